"""For any two trees a and b: what the delta of a and b makes of a is b."""

import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.deltas import scan
from support.stores import check_whole

from layerrun.bases import sources, tree, versions
from layerrun.bases.intake import import_base
from layerrun.store.store import Store
from layerrun.updates.delta import make_delta
from layerrun.updates.patching import delta_source

NAMES = st.sampled_from(["a", "b1", "b2", "lib.so.1", "lib.so.2", "x y", "\n", "\udcff", "=\\"])
BLOCKS = [bytes([n]) * 50 + os.urandom(400) for n in range(6)] + [b"", b"tiny", bytes(70_000)]
CONTENTS = st.lists(st.sampled_from(BLOCKS), max_size=6).map(b"".join)
FILES = st.tuples(
    st.just("f"),
    CONTENTS,
    st.sampled_from([0o644, 0o755, 0o4711, 0]),
    st.sampled_from([0, 33, 65535]),
    st.sampled_from([0, 1_700_000_000 * 10**9, 1_700_000_000_123_456_789]),
    st.sampled_from([None, b"", b"\0\n=x"]),
)
LINKS = st.tuples(st.just("l"), st.sampled_from(["a", "/etc", "\udcff\n"]))
OTHERS = st.sampled_from([("p",), ("h", 0), ("h", 1), ("c",)])
TREES = st.dictionaries(
    NAMES,
    st.recursive(
        st.one_of(FILES, FILES, LINKS, OTHERS),
        lambda inner: st.dictionaries(NAMES, inner, max_size=4),
        max_leaves=12,
    ),
    max_size=5,
)


def plant(root, described):
    """Make a tree as it is described; hard links lead to one of its files, if there is any."""
    os.makedirs(f"{root}/usr")
    os.makedirs(f"{root}/dev")
    files, links = [], []

    def fill(folder, entries):
        for name, what in entries.items():
            path = os.path.join(folder, os.fsencode(name))
            if isinstance(what, dict):
                os.mkdir(path)
                fill(path, what)
            elif what[0] == "f":
                files.append(path)
                write(path, what)
            elif what[0] == "l":
                os.symlink(os.fsencode(what[1]), path)
            elif what[0] == "p":
                os.mkfifo(path)
            elif what[0] == "h":
                links.append((path, what[1]))
        os.utime(folder, ns=(7, 7))

    fill(os.fsencode(root) + b"/usr", described)
    os.mknod(f"{root}/dev/null", 0o20666, os.makedev(1, 3))
    for path, number in links:
        if files:
            os.link(files[number % len(files)], path)


def write(path, described):
    _, content, mode, owner, when, mark = described
    with open(path, "wb") as file:
        file.write(content)
    os.chown(path, owner, owner)
    os.chmod(path, mode)
    if mark is not None:
        os.setxattr(path, "user.mark", mark)
    os.utime(path, ns=(when, when))


def without_devices(found):
    """Nobody vouches for a delta: device nodes stand in the manifest alone."""
    return {path: entry for path, entry in found.items() if entry["kind"] not in "cb"}


def names(found):
    """Leave out which names share a file: files that are alike share an object in the store. `links` tells it."""
    return {path: entry | ({"names": None} if entry["kind"] == "f" else {}) for path, entry in found.items()}


def groups(store, base):
    """Return the names of each file that has several."""
    found = {}
    with open(f"{store.path}/bases/{base.id}/links", "rb") as file:
        for line in file:
            kind, path, first = line.split()
            if kind == b"h":
                group = found.get(path, {path}) | found.get(first, {first})
                found.update(dict.fromkeys(group, group))
    return found


PAIRS = given(before=TREES, after=TREES, level=st.sampled_from([1, 9, 19]))
FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


@FEW
@PAIRS
def test_it_makes_b_of_a(store_path, folder, before, after, level):
    round_trip(store_path, folder, (before, after), level)


@pytest.mark.long
@settings(FEW, max_examples=300)
@PAIRS
def test_it_makes_b_of_a_in_many_ways(store_path, folder, before, after, level):
    round_trip(store_path, folder, (before, after), level)


def round_trip(store_path, folder, described, level):
    with Store.open(store_path) as store:
        roots = f"{folder}/before", f"{folder}/after"
        path = f"{folder}/delta"
        try:
            bases = []
            for root, entries in zip(roots, described, strict=True):
                plant(root, entries)
                bases.append(sources.bring(store, os.path.basename(root), root))
            make_delta(store, *bases, path, level=level, force=True)
            wanted = names(without_devices(scan(roots[1])))
            links = groups(store, bases[1])
            if bases[0].digest != bases[1].digest:
                versions.remove(store, "after")
            source = delta_source(store, path)
            try:
                made = import_base(store, "made", source)
            finally:
                source.close()
            assert made.digest == bases[1].digest
            assert names(without_devices(scan(f"{store.path}/bases/{made.id}/tree"))) == wanted
            assert groups(store, made) == links
            assert tree.verify(store, made) == []
        finally:
            for base in store.catalog.bases():
                versions.remove(store, base.name)
            for root in roots:
                shutil.rmtree(root, ignore_errors=True)
    check_whole(store_path)
