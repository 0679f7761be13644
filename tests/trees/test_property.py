"""Whatever is done in a mount: the diff is the difference of the two merged trees, and restoring undoes it."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.overlays import expected

OLD = 1_000_000_000_123_456_789
NEW = 1_500_000_000_987_654_321

# Few names, so that operations meet; sorting differs between "a.b", "a/b" and "a"; bytes that are no UTF-8.
NAMES = st.sampled_from(["a", "a.b", "b", "\udcff\n"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
TEXTS = st.sampled_from(["", "one", "two"])
TIMES = st.sampled_from([OLD, NEW])
MODES = st.sampled_from([0o700, 0o755, 0o4755])
KEYS = st.sampled_from(["user.mine", "user.overlay.opaque", "user.overlay.overlay.x"])

OPERATIONS = st.one_of(
    st.tuples(st.just("file"), PATHS, TEXTS, TIMES),
    st.tuples(st.just("dir"), PATHS),
    st.tuples(st.just("dir"), PATHS, MODES),
    st.tuples(st.just("symlink"), PATHS, TEXTS),
    st.tuples(st.just("fifo"), PATHS),
    st.tuples(st.just("socket"), PATHS),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("move"), PATHS, PATHS),
    st.tuples(st.just("link"), PATHS, PATHS),
    st.tuples(st.just("chmod"), PATHS, MODES),
    st.tuples(st.just("touch"), PATHS, TIMES),
    st.tuples(st.just("xattr"), PATHS, KEYS, TEXTS),
)
SESSIONS = st.lists(st.lists(OPERATIONS, max_size=12), min_size=1, max_size=3)
LOWERS = st.lists(
    OPERATIONS.filter(lambda o: o[0] in ("file", "dir", "symlink", "fifo") or o[2:3] == ("user.mine",)),
    max_size=12,
)
EASY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@given(lower=LOWERS, sessions=SESSIONS)
@EASY
def test_diff_is_the_difference_of_the_merged_trees(overlay, lower, sessions):
    answer = overlay.ask(lower, *sessions, strict=False)
    assert answer["diff"] == expected(answer["before"], answer["after"])


@given(lower=LOWERS, sessions=SESSIONS)
@EASY
def test_restoring_everything_leaves_no_change(overlay, lower, sessions):
    answer = overlay.ask(lower, *sessions, strict=False, globs=["/**"], roots=["/"])
    assert answer["diff_after"] == []
    before = {path: entry for path, entry in answer["before"].items() if path}
    restored = {path: entry for path, entry in answer["restored_tree"].items() if path}
    assert restored == before


def touches(path, glob):
    """The plain patterns of this test: names, and a last part of two stars."""
    parts, wanted = path.split("/"), glob.strip("/").split("/")
    if wanted[-1] == "**":
        return len(parts) >= len(wanted) and parts[: len(wanted) - 1] == wanted[:-1]
    return parts[: len(wanted)] == wanted


@given(lower=LOWERS, sessions=SESSIONS, path=PATHS, stars=st.booleans())
@EASY
def test_restoring_a_path_changes_nothing_else(overlay, lower, sessions, path, stars):
    glob = "/" + path + ("/**" if stars else "")
    answer = overlay.ask(lower, *sessions, strict=False, globs=[glob])
    before, after, restored = answer["before"], answer["after"], answer["restored_tree"]

    def rest(tree):
        return {at: entry for at, entry in tree.items() if not touches(at, glob)}

    # A folder on the way that was gone comes back as it was, so that the path can be in it.
    parents = {at for at in before if any(p.startswith(at + "/") for p in restored if touches(p, glob))}
    missing = {at: before[at] for at in parents if at not in after}
    assert {**rest(after), **missing} == rest(restored)

    def matching(tree):
        return {at: entry for at, entry in tree.items() if touches(at, glob)}

    in_the_way = any(at in after and after[at][0] != before.get(at, after[at])[0] for at in parents) or any(
        not is_folder(after.get(at)) for at in parents if at in after
    )
    if not in_the_way:
        assert matching(restored) == matching(before)


def is_folder(entry):
    return entry is not None and entry[0] == 0o040000


@pytest.mark.parametrize("globs", [["x"], ["/"], ["/a/../b"], [""], ["/a/./b"]])
def test_bad_patterns(globs):
    from layerrun.errors import UsageError
    from layerrun.layers.restore import restore_paths

    with pytest.raises(UsageError):
        restore_paths(-1, [], globs, -1, userxattr=False)
