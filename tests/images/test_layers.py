"""What layers of images mean: as umoci has it where that is right, and never more than a tree can bear."""

import gzip
import hashlib
import os
import shutil
import subprocess
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.layers import layout_of, tar_of
from support.stores import check_whole

from layerrun.bases import tree
from layerrun.bases.sources import bring
from layerrun.errors import ArchiveError
from layerrun.store.store import Store


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


ROOT = [
    ("usr", "d", ""),
    ("usr/a", "f", "a"),
    ("usr/sub", "d", ""),
    ("usr/sub/b", "f", "b"),
    ("usr/link", "l", "sub"),
]


def made(store, folder, *layers):
    number = len(os.listdir(folder))
    path = layout_of(f"{folder}/{number}", [tar_of(layer) for layer in layers])
    base = bring(store, f"b{number}", path)
    assert tree.verify(store, base) == []
    top = f"{store.path}/bases/{base.id}/tree"
    found = {}
    for at, folders, files in os.walk(top):
        for name in folders + files:
            full = f"{at}/{name}"
            found[os.path.relpath(full, top)] = (
                os.readlink(full)
                if os.path.islink(full)
                else ""
                if os.path.isdir(full)
                else open(full).read()  # noqa: SIM115
            )
    return found


BASE = {"usr": "", "usr/a": "a", "usr/sub": "", "usr/sub/b": "b", "usr/link": "sub"}


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ([("usr/.wh.a", "f", "")], {k: v for k, v in BASE.items() if k != "usr/a"}),
        ([("usr/.wh.sub", "f", "")], {k: v for k, v in BASE.items() if "sub" not in k}),
        ([("usr/.wh.none", "f", "")], BASE),
        ([("usr/sub/.wh..wh..opq", "f", "")], {k: v for k, v in BASE.items() if k != "usr/sub/b"}),
        # A layer's marks are about those below it, wherever in the layer they stand.
        ([("usr/a", "f", "new"), ("usr/.wh.a", "f", "")], BASE | {"usr/a": "new"}),
        ([("usr/.wh.a", "f", ""), ("usr/a", "f", "new")], BASE | {"usr/a": "new"}),
        (
            [("usr/sub/c", "f", "c"), ("usr/sub/.wh..wh..opq", "f", "")],
            {k: v for k, v in BASE.items() if k != "usr/sub/b"} | {"usr/sub/c": "c"},
        ),
        ([("usr/.wh..wh..opq", "f", ""), ("usr/z", "f", "z")], {"usr": "", "usr/z": "z"}),
        # Another kind in its place.
        ([("usr/a", "d", ""), ("usr/a/x", "f", "x")], BASE | {"usr/a": "", "usr/a/x": "x"}),
        (
            [("usr/sub", "f", "file")],
            {k: v for k, v in BASE.items() if k != "usr/sub/b"} | {"usr/sub": "file"},
        ),
        ([("usr/link", "d", "")], BASE | {"usr/link": ""}),
        ([("usr/h", "h", "usr/a")], BASE | {"usr/h": "a"}),
    ],
)
def test_marks(store, folder, layer, expected):
    os.mkdir(f"{folder}/l")
    found = made(store, f"{folder}/l", ROOT, layer)
    kinds = {path: value for path, value in found.items() if path != "usr/link" or value != "sub"}
    assert kinds == {path: value for path, value in expected.items() if path != "usr/link" or value != "sub"}
    assert ("usr/link" in found) == ("usr/link" in expected)
    check_whole(store.path)


# What later layers bring lies behind these.
LINKS = [
    ("usr", "d", ""),
    ("usr/a", "d", ""),
    ("usr/a/x", "f", "x"),
    ("usr/a/s", "d", ""),
    ("usr/a/s/q", "f", "q"),
    ("usr/b", "d", ""),
    ("usr/b/y", "f", "y"),
    ("usr/near", "l", "a"),
    ("usr/whole", "l", "/usr/b"),
    ("usr/up", "l", "../../../../usr/./a"),
    ("usr/chain", "l", "near/s"),
    ("usr/b/back", "l", "../near"),
    ("usr/loop", "l", "loop2"),
    ("usr/loop2", "l", "../usr/loop"),
    ("usr/nowhere", "l", "nothing"),
    ("usr/to-file", "l", "a/x"),
]
BEHIND = {path: value for path, kind, value in LINKS if kind != "d"} | dict.fromkeys(
    (path for path, kind, _ in LINKS if kind == "d"), ""
)


def test_layers_behind_links_of_other_layers(store, folder):
    """Where links lead with the tree as the root; the same once the first layer comes from its record."""
    os.mkdir(f"{folder}/l")
    second = [
        ("usr/near/n", "f", "n"),
        ("usr/whole/m", "f", "m"),
        ("usr/up/.wh.x", "f", ""),
        ("usr/h", "h", "usr/chain/q"),
    ]
    expected = BEHIND | {"usr/a/n": "n", "usr/b/m": "m", "usr/h": "q"}
    del expected["usr/a/x"]
    assert made(store, f"{folder}/l", LINKS, second) == expected
    assert made(store, f"{folder}/l", LINKS, [("usr", "d", ""), *second]) == expected
    assert len({base.digest for base in store.catalog.bases()}) == 1
    check_whole(store.path)


def test_no_link_leads_out_of_the_tree(store, folder):
    """However it is spelled, and whatever lies where it would lead to on the machine."""
    os.mkdir(f"{folder}/outside")
    out = f"{folder}/outside"
    first = [
        ("usr", "d", ""),
        ("usr/whole", "l", out),
        ("usr/up", "l", "../" * 40 + out[1:]),
        ("usr/proc", "l", "/proc/self/root" + out),
    ]
    for path in ("up", "proc"):
        layers = [tar_of(first), tar_of([(f"usr/{path}/x", "f", "x")])]
        with pytest.raises(ArchiveError, match="leads nowhere"):
            bring(store, "web", layout_of(f"{folder}/{path}", layers))
    inside = [(out[1:], "d", "")]
    layers = [tar_of(first + inside), tar_of([("usr/up/x", "f", "x"), ("usr/whole/y", "f", "y")])]
    base = bring(store, "web", layout_of(f"{folder}/x", layers))
    assert sorted(os.listdir(f"{store.path}/bases/{base.id}/tree{out}")) == ["x", "y"]
    assert os.listdir(out) == []


HOSTILE = {
    "a whiteout through a link": [("usr/link/.wh.b", "f", "")],
    "up": [("../x", "f", "x")],
    "a link, then beneath it": [("usr/l", "l", "/etc"), ("usr/l/x", "f", "x")],
    "a hard link to nothing": [("usr/h", "h", "etc/passwd")],
    "a hard link through a link to nothing": [("usr/h", "h", "usr/link/none")],
    "the root taken away": [(".wh.", "f", "")],
    "a whiteout of up": [("usr/.wh...", "f", "")],
    "a whiteout of this": [("usr/.wh..", "f", "")],
    "a device": [("usr/null", "f", "", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3})],
    "an overlay whiteout": [("dev/gone", "f", "", {"type": tarfile.CHRTYPE})],
    "an owner beyond": [("usr/x", "f", "", {"uid": 1 << 31})],
    "the root as a link": [(".", "l", "/etc")],
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("place", [0, 1])
def test_hostile_layers(store, folder, what, place):
    layers = [tar_of(ROOT), tar_of(HOSTILE[what])]
    if place == 0:
        layers = [tar_of(ROOT + HOSTILE[what])]
    path = layout_of(f"{folder}/x", layers)
    try:
        base = bring(store, "web", path)
    except ArchiveError:
        assert store.catalog.bases() == []
        assert os.listdir(f"{store.path}/bases") == []
    else:
        # In a first layer there is nothing that a mark could take away.
        assert what == "a whiteout through a link"
        assert tree.verify(store, base) == []
    assert not os.path.exists(f"{folder}/x/x")
    check_whole(store.path)


def test_attributes_of_overlayfs_are_left_out(store, folder):
    pax = {
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.kept": "y",
    }
    path = layout_of(f"{folder}/x", [tar_of(ROOT), tar_of([("usr/sub", "d", "", {"pax_headers": pax})])])
    base = bring(store, "web", path)
    assert os.listxattr(f"{store.path}/bases/{base.id}/tree/usr/sub") == ["user.kept"]


def test_too_many_layers(store, folder):
    tars = [tar_of([*(ROOT if not n else ()), (f"usr/{n}", "f", str(n))]) for n in range(129)]
    base = bring(store, "web", layout_of(f"{folder}/fine", tars[:128]))
    assert base.entries == len(BASE) + 1 + 128
    with pytest.raises(ArchiveError, match="no more than 128"):
        bring(store, "more", layout_of(f"{folder}/more", tars))


def test_a_layer_that_is_known_is_not_read_again(store, folder):
    """Its blob need not even be there."""
    low, high = tar_of(ROOT), tar_of([("usr/c", "f", "c"), ("usr/.wh.a", "f", "")])
    first = bring(store, "one", layout_of(f"{folder}/one", [low]))
    path = layout_of(f"{folder}/two", [low, high])
    blob = hashlib.sha256(gzip.compress(low, 1, mtime=0)).hexdigest()
    os.unlink(f"{path}/blobs/sha256/{blob}")
    second = bring(store, "two", path)
    assert tree.verify(store, second) == []
    assert sorted(os.listdir(f"{store.path}/bases/{second.id}/tree/usr")) == ["c", "link", "sub"]
    assert os.path.samefile(
        f"{store.path}/bases/{first.id}/tree/usr/sub/b", f"{store.path}/bases/{second.id}/tree/usr/sub/b"
    )


def test_objects_of_a_layer_that_is_known_have_gone(layerrun, plain_user, user_folder):
    """It is read after all; what was begun from its record is a plain user's subordinate ids'."""
    top = user_folder(plain_user)
    folder = ("var/man", "d", "", {"uid": 6, "gid": 6, "mode": 0o755})
    shared = ("var/man/a", "f", "a", {"uid": 6, "gid": 6})
    whole = [*ROOT, ("var", "d", ""), folder, shared, ("zzz", "f", "z")]
    for name, entries in (("one", whole), ("other", [*ROOT, ("var", "d", ""), folder, shared])):
        path = layout_of(f"{top}/{name}", [tar_of(entries)])
        subprocess.run(["chmod", "-R", "a+rX", path], check=True)
        layerrun("base", "import", name, path, user=plain_user, check=0)
    layerrun("base", "remove", "one", "-y", user=plain_user, check=0)
    layerrun("base", "import", "again", f"{top}/one", user=plain_user, check=0)
    layerrun("base", "verify", "again", user=plain_user, check=0)


def test_the_first_layer_alone_is_recorded(store, folder):
    """What read it has read nothing else; by its blob, whose digest is verified outside the jail."""
    low, high = tar_of(ROOT), tar_of([("usr/c", "f", "c")])
    path = layout_of(f"{folder}/x", [low, high])
    for number, layers in enumerate(((low,), (low, high), (low, high))):
        bring(store, f"b{number}", path)
        blobs = [hashlib.sha256(gzip.compress(data, 1, mtime=0)).hexdigest() for data in layers]
        plain = [hashlib.sha256(data).hexdigest() for data in layers]
        expected = {f"sha256:{b}.sha256:{p}.owners" for b, p in zip(blobs, plain, strict=True)}
        assert set(os.listdir(f"{store.path}/records")) == expected


@pytest.mark.long
def test_a_bomb(store, folder):
    """Beyond a gigabyte nothing may grow to more than 200 times its size."""
    path = f"{folder}/x"
    layout_of(path, [tar_of(ROOT)])
    shutil.rmtree(path)
    block = tarfile.TarInfo("usr/zeros")
    block.size = 3 << 30
    made = gzip.compress(tar_of(ROOT)[:-10240], 1, mtime=0) + gzip.compress(block.tobuf(), 1, mtime=0)
    zeros = gzip.compress(bytes(64 << 20), 9, mtime=0)
    layout_of(path, [made + zeros * 48], compress=False, diff_ids=["sha256:" + "0" * 64])
    with pytest.raises(ArchiveError, match="times its size"):
        bring(store, "web", path)
    assert store.catalog.bases() == []
    check_whole(store.path)


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)
CHANGES = st.lists(
    st.tuples(PATHS, st.sampled_from(["file", "dir", "link", "gone", "hard", "mode"]), PATHS), max_size=8
)


def change(root, path, kind, other):
    """Do something to a tree as a step of a build would; what cannot be done is left."""
    full, target = f"{root}/usr/{path}", f"{root}/usr/{other}"
    try:
        if kind == "gone" or (kind != "mode" and os.path.lexists(full)):
            shutil.rmtree(full) if os.path.isdir(full) and not os.path.islink(full) else os.unlink(full)
        if kind in ("file", "dir", "link", "hard"):
            os.makedirs(os.path.dirname(full), exist_ok=True)
        if os.path.realpath(os.path.dirname(full)) != os.path.dirname(full):
            return
        if kind == "file":
            with open(full, "x") as file:
                file.write(other)
        elif kind == "dir":
            os.mkdir(full)
        elif kind == "link":
            os.symlink(other, full)
        elif kind == "hard" and os.path.isfile(target) and not os.path.islink(target):
            os.link(target, full)
        elif kind == "mode" and not os.path.islink(full):
            os.chmod(full, 0o700)
    except OSError:
        pass


FOLDERS = st.sampled_from(["a", "b", "a/s", "near", "whole", "up", "chain", "b/back", "whole/back", "new"])
PLACES = st.tuples(FOLDERS, st.sampled_from(["x", "y", "s", "q", "n"])).map("/".join)
BROUGHT = st.one_of(
    st.tuples(PLACES, st.sampled_from("fffd"), st.sampled_from("12")),
    st.tuples(PLACES, st.just("l"), st.sampled_from(["x", "../a", "/usr/b"])),
    st.tuples(PLACES, st.just("h"), PLACES.map("usr/{}".format)),
    st.tuples(PLACES.map(lambda path: f"/.wh.{path[-1]}".join((path[:-2], ""))), st.just("f"), st.just("")),
    st.tuples(FOLDERS.map("{}/.wh..wh..opq".format), st.just("f"), st.just("")),
    st.just((".wh.near", "f", "")),
)


@pytest.mark.long
@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(layers=st.lists(st.lists(BROUGHT, min_size=1, max_size=3), min_size=1, max_size=3))
def test_what_layers_bring_behind_links_is_as_umoci_has_it(folder, layers):
    """What both take is the same; umoci alone takes what lies behind a layer's own links, or those to nothing."""
    here = f"{folder}/{len(os.listdir(folder))}"
    os.mkdir(here)
    tars = [tar_of(LINKS)] + [tar_of([(f"usr/{one[0]}", *one[1:]) for one in layer]) for layer in layers]
    image, bundle = layout_of(f"{here}/layout", tars), f"{here}/bundle"
    argv = ["umoci", "unpack", "--image", f"{image}:x", bundle]
    theirs = subprocess.run(argv, capture_output=True, check=False, timeout=60).returncode == 0
    with Store.open(f"{here}/store") as store:
        try:
            base = bring(store, "image", image)
        except ArchiveError:
            return
        assert tree.verify(store, base) == []
        if theirs:
            assert base.digest == bring(store, "tree", f"{bundle}/rootfs").digest
    shutil.rmtree(here)
    os.mkdir(here)


@pytest.mark.long
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(layers=st.lists(CHANGES, min_size=1, max_size=3))
def test_any_layers_are_as_umoci_has_them(folder, layers):
    """Trees that umoci packs and unpacks, layer by layer: ours has the digest of what was packed."""

    def run(*argv):
        subprocess.run(argv, check=True, capture_output=True, timeout=60)

    here = f"{folder}/{len(os.listdir(folder))}"
    image, bundle = f"{here}/layout", f"{here}/bundle"
    os.mkdir(here)
    run("umoci", "init", "--layout", image)
    run("umoci", "new", "--image", f"{image}:x")
    run("umoci", "unpack", "--image", f"{image}:x", bundle)
    os.mkdir(f"{bundle}/rootfs/usr")
    for changes in layers:
        for one in changes:
            change(f"{bundle}/rootfs", *one)
        run("umoci", "repack", "--refresh-bundle", "--image", f"{image}:x", bundle)
    with Store.open(f"{here}/store") as store:
        base = bring(store, "image", image)
        assert tree.verify(store, base) == []
        assert base.digest == bring(store, "tree", f"{bundle}/rootfs").digest
    shutil.rmtree(f"{here}/store")
