"""Whatever a program does: a commit leaves what a direct run leaves, undo what was before, redo the commit again."""

import struct

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support import users
from support.twins import Twins
from support.whose import whose

OLD = 1_000_000_000_123_456_789
NEW = 1_500_000_000_987_654_321

# Few names, so that operations meet; sorting differs between "a.b", "a/b" and "a"; bytes that are no UTF-8.
NAMES = st.sampled_from(["a", "a.b", "b", "\udcff\n"])
PATHS = st.sampled_from([1, 1, 2, 2, 2, 3]).flatmap(
    lambda depth: st.lists(NAMES, min_size=depth, max_size=depth).map("/".join)
)
TEXTS = st.sampled_from(["", "one", "two"])
TIMES = st.sampled_from([OLD, NEW])
MODES = st.sampled_from([0o700, 0o755, 0o4755, 0o2775, 0o1777, 0o600, 0o500])
KEYS = st.sampled_from(["user.mine", "user.overlay.opaque", "user.overlay.overlay.x"])
IDS = st.sampled_from([0, 1, 1000, 65533])


def acl(*entries):
    """An access control list as acl(5) has it on disk: version 2, then tag, permissions, id."""
    return b"".join([struct.pack("<I", 2), *(struct.pack("<HHI", *entry) for entry in entries)]).hex()


NOBODY = 0xFFFFFFFF
# The worker puts in its own id: in a layer of a plain user there is no other.
CALLER = 0x55555555
ACL = acl((1, 7, NOBODY), (2, 6, CALLER), (4, 5, NOBODY), (0x10, 7, NOBODY), (0x20, 4, NOBODY))
# cap_net_raw=ep, for the machine's own root and for whoever is root where it is set.
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0).hex()

MAKING = st.one_of(
    st.tuples(st.just("file"), PATHS, TEXTS, TIMES),
    st.tuples(st.just("file"), PATHS, TEXTS),
    st.tuples(st.just("dir"), PATHS),
    st.tuples(st.just("dir"), PATHS, MODES),
    st.tuples(st.just("symlink"), PATHS, TEXTS.filter(bool)),
    st.tuples(st.just("fifo"), PATHS),
    st.tuples(st.just("socket"), PATHS),
    st.tuples(st.just("big"), PATHS, st.just(8 << 20), st.sampled_from([0, 7_000_000]), TEXTS),
    st.tuples(st.just("xattr"), PATHS, st.just("user.mine"), TEXTS),
    st.tuples(st.just("bytes_xattr"), PATHS, st.just("system.posix_acl_access"), st.just(ACL)),
    st.tuples(st.just("bytes_xattr"), PATHS, st.just("system.posix_acl_default"), st.just(ACL)),
    st.tuples(st.just("chmod"), PATHS, MODES),
    st.tuples(st.just("chown"), PATHS, IDS, IDS),
)
OPERATIONS = st.one_of(
    MAKING,
    st.tuples(st.just("append"), PATHS, TEXTS),
    st.tuples(st.just("truncate"), PATHS, st.sampled_from([0, 2, 8 << 20])),
    st.tuples(st.just("remove"), PATHS),
    st.tuples(st.just("unlink"), PATHS),
    st.tuples(st.just("rmdir"), PATHS),
    st.tuples(st.just("rename"), PATHS, PATHS),
    st.tuples(st.just("move"), PATHS, PATHS),
    st.tuples(st.just("link"), PATHS, PATHS),
    st.tuples(st.just("touch"), PATHS, TIMES),
    st.tuples(st.just("xattr"), PATHS, KEYS, TEXTS),
    st.tuples(st.just("unxattr"), PATHS, KEYS),
    st.tuples(st.just("bytes_xattr"), PATHS, st.just("security.capability"), st.just(CAPABILITY)),
)
# Of everything something is there, or most operations would find nothing.
SCAFFOLD = [
    ("dir", "a", 0o755),
    ("dir", "a/b", 0o700),
    ("file", "a/b/a", "one"),
    ("file", "a/b/b", "two"),
    ("file", "a/a", "two"),
    ("symlink", "a/a.b", "target"),
    ("file", "a.b", "one"),
    ("dir", "b", 0o755),
    ("fifo", "b/a"),
    ("big", "b/b", 8 << 20, 3 << 20, "in the middle"),
    ("dir", "b/a.b", 0o755),
    ("socket", "b/a.b/a"),
]
LOWERS = st.lists(MAKING, max_size=8).map(lambda more: SCAFFOLD + more)
SESSION = st.lists(OPERATIONS, min_size=4, max_size=20)


@pytest.fixture(scope="module", params=["root", "root's namespace", users.PLAIN])
def twins(request):
    name, _, jail = request.param.partition("'")
    made = Twins(whose(name), "none" if name == "root" and not jail else None)
    yield made
    made.close()


def tamed(operation):
    """Root of a user namespace is less than root: what it writes to loses setuid. That is no matter of commits.

    And what a plain user has closed even to themselves the test could not look at without changing it.
    """
    name, path, *values = operation
    if name in ("chmod", "dir") and values:
        values = [values[0] & 0o1777 | 0o500]
    return (name, path, *values)


def examples(number, **more):
    # What fails is shown as it was found: to make it smaller takes minutes.
    phases = [Phase.explicit, Phase.reuse, Phase.generate]
    quiet = list(HealthCheck)
    return settings(max_examples=number, deadline=None, suppress_health_check=quiet, phases=phases, **more)


def check(twins, lower, *sessions, **more):
    if twins.ids is None:
        lower, *sessions = ([tamed(one) for one in each] for each in (lower, *sessions))
    answer = twins.ask(lower, *sessions, **more)
    assert not answer["wrong"], "\n".join([*answer["wrong"], *answer["changes"]])


@given(lower=LOWERS, operations=SESSION)
@examples(8, derandomize=True)
def test_commit_is_a_direct_run(twins, lower, operations):
    check(twins, lower, operations)


@given(lower=LOWERS, sessions=st.lists(SESSION, min_size=2, max_size=3))
@examples(3, derandomize=True)
def test_with_checkpoints_between(twins, lower, sessions):
    check(twins, lower, *sessions, checkpoints=True)


@pytest.mark.long
@given(lower=LOWERS, sessions=st.lists(SESSION, min_size=1, max_size=3), checkpoints=st.booleans())
@examples(1000)
def test_often(twins, lower, sessions, checkpoints):
    check(twins, lower, *sessions, checkpoints=checkpoints)
