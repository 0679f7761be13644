"""What later layers bring behind the links of layers beneath them."""

import os

import attrs
import pytest
from support.streams import ONE, TWO, Told, file, folder_of, paths, take

from layerrun.bases import intake, tree
from layerrun.errors import ArchiveError
from layerrun.images.stream import Record


def told_by(*entries):
    """Records of (kind, path, content or target)."""
    return [
        folder_of(path)
        if kind == "d"
        else file(path, value.encode())
        if kind == "f"
        else Record(kind, path.encode(), link=value.encode())
        for kind, path, value in entries
    ]


# What later layers bring lies behind these.
LINKS = [
    ("f", "usr/a/x", "x"),
    ("f", "usr/a/s/q", "q"),
    ("f", "usr/b/y", "y"),
    ("l", "usr/near", "a"),
    ("l", "usr/whole", "/usr/b"),
    ("l", "usr/up", "../../../../usr/./a"),
    ("l", "usr/chain", "near/s"),
    ("l", "usr/b/back", "../near"),
    ("l", "usr/loop", "loop2"),
    ("l", "usr/loop2", "../usr/loop"),
    ("l", "usr/nowhere", "nothing"),
    ("l", "usr/to-file", "a/x"),
]
BEHIND = {path: value for _, path, value in LINKS}


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ([("f", "usr/near/n", "n")], {"usr/a/n": "n"}),
        ([("f", "usr/whole/n", "n"), ("f", "usr/up/m", "m")], {"usr/b/n": "n", "usr/a/m": "m"}),
        ([("f", "usr/chain/n/m", "n")], {"usr/a/s/n/m": "n"}),
        ([("f", "usr/whole/back/n", "n")], {"usr/a/n": "n"}),
        ([("f", "usr/near/x", "new"), ("w", "usr/up/x", "")], {"usr/a/x": "new"}),
        ([("d", "usr/near/x", ""), ("f", "usr/near/x/n", "n")], {"usr/a/x": None, "usr/a/x/n": "n"}),
        ([("l", "usr/near/s", "x")], {"usr/a/s": "x", "usr/a/s/q": None}),
        ([("h", "usr/h", "usr/near/x"), ("h", "usr/up/h", "usr/whole/y")], {"usr/h": "x", "usr/a/h": "y"}),
        ([("w", "usr/near/x", "")], {"usr/a/x": None}),
        ([("o", "usr/whole/back", "")], {"usr/a/x": None, "usr/a/s/q": None}),
        (
            [("f", "usr/up/n", "n"), ("o", "usr/near", "")],
            {"usr/a/x": None, "usr/a/s/q": None, "usr/a/n": "n"},
        ),
        ([("w", "usr/nowhere/x", ""), ("w", "usr/to-file/x", ""), ("o", "usr/nowhere", "")], {}),
        # The layer's own link has taken all that was there away.
        ([("l", "usr/a", "b"), ("w", "usr/a/x", "")], {"usr/a": "b", "usr/a/x": None, "usr/a/s/q": None}),
        ([("l", "usr/a", "b"), ("o", "usr/a", "")], {"usr/a": "b", "usr/a/x": None, "usr/a/s/q": None}),
        ([("l", "usr/nothing", "/etc"), ("w", "usr/nowhere/passwd", "")], {"usr/nothing": "/etc"}),
        # A link goes, or another thing takes its place: what comes before lies behind it, what comes later does not.
        ([("f", "usr/near/n", "n"), ("w", "usr/near", "")], {"usr/a/n": "n", "usr/near": None}),
        ([("w", "usr/near", ""), ("f", "usr/near/n", "n")], {"usr/near": None, "usr/near/n": "n"}),
        ([("d", "usr/near", ""), ("f", "usr/near/n", "n")], {"usr/near": None, "usr/near/n": "n"}),
    ],
)
def test_behind_links_of_other_layers(store, layer, expected):
    """Where they lead with the tree as the root; from a layer's record as from the layer."""
    base = take(store, ONE, *told_by(*LINKS), TWO, *told_by(*layer))
    top = f"{store.path}/bases/{base.id}/tree"
    found = {}
    for path in paths(store, base):
        if os.path.islink(f"{top}/{path}"):
            found[path] = os.readlink(f"{top}/{path}")
        elif os.path.isfile(f"{top}/{path}"):
            with open(f"{top}/{path}") as text:
                found[path] = text.read()
    assert found == {path: value for path, value in (BEHIND | expected).items() if value is not None}
    assert tree.verify(store, base) == []
    again = intake.import_base(store, "again", Told([ONE, TWO]))
    assert again.digest == base.digest


def test_what_lies_behind_a_link_keeps_what_it_is(store):
    """Owner, mode, attributes and times; groups of names and device nodes say where they really are."""
    plain = file("usr/near/n", b"n", uid=5, mode=0o4751, xattrs={b"user.x": b"1"})
    behind = attrs.evolve(plain, record=attrs.evolve(plain.record, gid=6, mtime_ns=7 * 10**9))
    devices = [Record("l", b"usr/dev", link=b"../dev"), folder_of("dev")]
    base = take(
        store,
        ONE,
        *told_by(*LINKS),
        *devices,
        TWO,
        behind,
        Record("h", b"usr/whole/h", link=b"usr/up/n"),
        Record("c", b"usr/dev/null", major=1, minor=3),
        Record("c", b"dev/zero", major=1, minor=5),
        Record("n", link=b"three"),
        Record("w", b"usr/dev/zero"),
    )
    top = f"{store.path}/bases/{base.id}"
    found = os.stat(f"{top}/tree/usr/a/n")
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777, found.st_mtime) == (5, 6, 0o4751, 7)
    assert os.listxattr(f"{top}/tree/usr/a/n") == ["user.x"]
    with open(f"{top}/links") as text:
        assert text.read() == "h usr/b/h usr/a/n\na 0.000000000 dev/null\n"
    with open(f"{top}/manifest") as text:
        assert [line.split()[4:] for line in text if line.startswith("c ")] == [["1:3", "dev/null"]]
    assert tree.verify(store, base) == []


DEEP = "usr/" + "/".join("d" * 120)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ([("f", "usr/loop/x", "x")], "in a circle"),
        ([("h", "usr/h", "usr/loop/x")], "in a circle"),
        ([("w", "usr/loop/x", "")], "in a circle"),
        ([("f", "usr/nowhere/x", "x")], "leads nowhere"),
        ([("d", "usr/nowhere/x/y", "")], "leads nowhere"),
        ([("f", "usr/to-file/x", "x")], "no folder"),
        ([("h", "usr/h", "usr/nowhere/x")], "not there"),
        ([("l", "usr/own", "a"), ("f", "usr/own/x", "x")], "behind a link"),
        # A link of another layer that leads to one of its own.
        ([("l", "usr/nothing", "a"), ("f", "usr/nowhere/x", "x")], "behind a link"),
        ([("l", "usr/nothing", "/etc"), ("h", "usr/h", "usr/nowhere/passwd")], "behind a link"),
        ([("d", "usr/deep/" + "/".join("e" * 20), "")], "too deep"),
    ],
)
def test_links_that_are_not_followed(store, layer, words):
    deep = [("d", DEEP, ""), ("l", "usr/deep", DEEP[4:])] if "deep" in words else []
    with pytest.raises(ArchiveError, match=words):
        take(store, ONE, *told_by(*LINKS, *deep), TWO, *told_by(*layer))
    assert store.catalog.bases() == []
