"""What differs between two stacks of layers on common ones, made by hand: beside a merge worked out in Python."""

from __future__ import annotations

import os
import shutil
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import leaks

from layerrun.layers.between import Stacks, differences, rows

pytestmark = pytest.mark.root

OLD = 1_000_000_000_000_000_000
NAMES = ["a", "a-", "ab", "b"]
LEAF = st.one_of(
    st.sampled_from(["one", "two", "three"]).map(lambda text: ("file", text)),
    st.sampled_from(["x", "y"]).map(lambda target: ("link", target)),
    st.just(("whiteout",)),
)


def folders(inside):
    return st.tuples(
        st.just("dir"),
        st.booleans(),
        st.sampled_from([0o755, 0o700]),
        st.dictionaries(st.sampled_from(NAMES), inside),
    )


TREE = st.dictionaries(st.sampled_from(NAMES), st.one_of(LEAF, folders(st.one_of(LEAF, folders(LEAF)))))
LAYERS = st.lists(TREE, max_size=2)


def build(path, tree):
    for name, (kind, *rest) in tree.items():
        at = f"{path}/{name}"
        if kind == "file":
            with open(at, "w") as file:
                file.write(rest[0])
        elif kind == "link":
            os.symlink(rest[0], at)
        elif kind == "whiteout":
            os.mknod(at, 0o020000, 0)
        else:
            os.mkdir(at)
            if rest[0]:
                os.setxattr(at, "trusted.overlay.opaque", b"y")
            build(at, rest[2])
            os.chmod(at, rest[1])
        os.utime(at, ns=(OLD, OLD), follow_symlinks=False)


def merged(layers):
    """Return path -> (kind, value) of layers, the topmost first."""
    found = {}
    for name in {name for layer in layers for name in layer}:
        having = [layer[name] for layer in layers if name in layer]
        if having[0][0] != "dir":
            if having[0][0] != "whiteout":
                found[name] = having[0]
            continue
        parts = []
        for entry in having:
            if entry[0] != "dir":
                break
            parts.append(entry[3])
            if entry[1]:
                break
        found[name] = ("dir", having[0][2])
        found.update({f"{name}/{below}": entry for below, entry in merged(parts).items()})
    return found


def wanted(old, new, *, deep):
    """Return what must be said: letter and path, a folder before what is in it."""
    said, gone = [], []
    for path in sorted(old.keys() | new.keys(), key=lambda path: path.split("/")):
        if path not in new and not deep and any(path.startswith(top) for top in gone):
            continue
        before, after = old.get(path), new.get(path)
        if before is None:
            said.append(("A", path))
        elif after is None:
            said.append(("D", path))
        elif before[0] != after[0]:
            said.append(("T", path))
        elif before != after:
            said.append(("P" if before[0] == "dir" else "M", path))
        if before and before[0] == "dir" and (after is None or after[0] != "dir"):
            gone.append(path + "/")
    return said


@pytest.fixture(scope="module")
def top():
    path = tempfile.mkdtemp(prefix=leaks.PREFIX, dir="/var/tmp")
    yield path
    shutil.rmtree(path)


@settings(max_examples=150, deadline=None)
@given(
    st.tuples(LAYERS, LAYERS, st.lists(TREE, min_size=1, max_size=2)),
    st.booleans(),
    st.sampled_from(["", "a", "b/a", "ab"]),
)
def test_as_a_merge_says(top, layers, deep, only):
    old, new, common = layers
    place = tempfile.mkdtemp(dir=top)
    fds = []
    try:
        for number, layer in enumerate([*old, *new, *common]):
            os.mkdir(f"{place}/{number}")
            build(f"{place}/{number}", layer)
            fds.append(os.open(f"{place}/{number}", os.O_PATH))
        stacks = Stacks(fds[: len(old)], fds[len(old) : len(old) + len(new)], fds[len(old) + len(new) :])
        options = {"userxattr": False, "deep": deep, "only": [only.encode()] if only else [], "roots": [b""]}
        found = list(differences(stacks, **options))
        said = [(d.letter, d.path.decode()) for d in found]
        right = wanted(merged([*old, *common]), merged([*new, *common]), deep=deep)
        if only:
            # A folder on the way is told where it is gone, for what was asked for is gone with it.
            right = [
                (letter, path)
                for letter, path in right
                if f"{path}/".startswith(f"{only}/") or (letter in "DT" and only.startswith(f"{path}/"))
            ]
        assert sorted(said) == sorted(right)
        assert [(chr(row[0]), row[7]) for row in rows(stacks, **options)] == said
        for difference in found:
            for layer, seen in ((difference.layer, difference.new), (difference.old_layer, difference.old)):
                if seen is None:
                    assert layer == -1
                    continue
                info = os.stat(difference.path, dir_fd=stacks.all[layer], follow_symlinks=False)
                assert (seen.ino, seen.mode, seen.size) == (info.st_ino, info.st_mode, info.st_size)
    finally:
        for fd in fds:
            os.close(fd)
        shutil.rmtree(place)


def test_what_is_common_is_not_read(top):
    """Not even looked at: a folder in a common layer that cannot be read is no hindrance."""
    place = tempfile.mkdtemp(dir=top)
    for name in ("old/a", "new/a", "common/b/c"):
        os.makedirs(f"{place}/{name}")
    with open(f"{place}/new/a/f", "w") as file:
        file.write("x")
    fds = [os.open(f"{place}/{name}", os.O_PATH) for name in ("old", "new", "common")]
    before = os.stat(f"{place}/common").st_atime_ns
    found = list(differences(Stacks(fds[:1], fds[1:2], fds[2:]), userxattr=False))
    assert [(d.letter, d.path) for d in found] == [("A", b"a/f")]
    assert os.stat(f"{place}/common").st_atime_ns == before
    for fd in fds:
        os.close(fd)
