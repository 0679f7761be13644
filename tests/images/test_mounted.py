"""Images of file systems: root mounts them at each start, and nobody sees that from outside."""

import json
import os
import subprocess

import attrs
import pytest
from support.stores import check_whole

from layerrun.bases import tree
from layerrun.bases.sources import bring
from layerrun.errors import ArchiveError, DamagedError, SystemError, UsageError
from layerrun.model import BaseKind
from layerrun.store.store import Store


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True, timeout=100)


@pytest.fixture
def source(folder):
    root = f"{folder}/source"
    os.makedirs(f"{root}/usr/bin")
    for name in ("usr/bin/tool", "usr/file", "usr/twin"):
        with open(f"{root}/{name}", "w") as file:
            file.write(name * 1000)  # more than lies beside its inode, or in the block with the sum
    os.link(f"{root}/usr/file", f"{root}/usr/hard")
    os.chown(f"{root}/usr/twin", 33, 34)
    os.chmod(f"{root}/usr/bin/tool", 0o4755)
    os.symlink("file", f"{root}/usr/link")
    os.mkfifo(f"{root}/usr/fifo")
    return root


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


def made(root, kind, *more):
    path = f"{root}.{kind}"
    if kind == "erofs":
        run("mkfs.erofs", *more, path, root)
    else:
        run("mksquashfs", root, path, "-no-progress", "-noappend", *more)
    return path


KINDS = {
    "erofs": ("erofs",),
    "lz4": ("erofs", "-zlz4hc"),
    "sqfs": ("sqfs",),
    "zstd": ("sqfs", "-comp", "zstd"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_its_digest_is_that_of_the_tree_in_it(store, source, kind):
    expected = bring(store, "tree", source)
    base = bring(store, "image", made(source, *KINDS[kind]))
    assert (base.kind, base.digest, base.entries, base.size) == (
        BaseKind.IMAGE,
        expected.digest,
        expected.entries,
        expected.size,
    )
    assert tree.verify(store, base) == []
    assert sorted(os.listdir(f"{store.path}/bases/{base.id}")) == ["image", "manifest"]
    check_whole(store.path)
    assert bring(store, "image", source) == base


def test_repair_is_from_all_that_import_takes_and_of_trees_alone(layerrun, source):
    image = made(source, "erofs")
    layerrun("base", "import", "tree", source)
    layerrun("base", "import", "image", image)
    with Store.open(layerrun.store()) as store:
        paths = {name: f"{store.path}/bases/{store.base(name).id}" for name in ("tree", "image")}
    used = {one["name"]: one for one in json.loads(layerrun("du", "--json").out)["bases"]}
    assert used["image"]["frees"] == used["image"]["allocated"] >= os.path.getsize(image)
    os.chmod(f"{paths['tree']}/tree/usr", 0o700)
    assert layerrun("base", "verify", "tree", "--repair", image, "-y").rc == 0
    with open(f"{paths['image']}/image", "r+b") as file:
        data = file.read().replace(b"usr/twin" * 100, b"usr/TWIN" * 100)
        file.seek(0)
        file.write(data)
    assert layerrun("base", "verify", "image").out == "changed  /usr/twin\n"
    refused = layerrun("base", "verify", "image", "--repair", source, "-y")
    assert refused.rc == 2
    assert "no part can be put right" in refused.err


@pytest.mark.parametrize("kind", ["erofs", pytest.param("sqfs", marks=pytest.mark.long)])
def test_apps_over_an_image(layerrun, debian_tree, folder, kind):
    path = f"{folder}/debian.{kind}"
    if kind == "erofs":
        run("mkfs.erofs", path, debian_tree)
    else:
        run("mksquashfs", debian_tree, path, "-no-progress", "-noI", "-noD", "-noF")
    with open("/proc/mounts") as file:
        before = file.read()
    layerrun("base", "import", "debian", path)
    for name in ("a", "b"):
        layerrun("create", name, "--base", "debian")
    words = "cat /etc/debian_version; stat -c '%u %a' /usr/bin/su; echo x > /etc/new; rm -f /etc/issue"
    for _ in range(2):  # the second by a stored plan
        found = layerrun("app", "a", "--", "sh", "-c", words)
        assert found.out.split()[1:] == ["0", "4755"]
    assert layerrun("diff", "a").out.splitlines()[0].split()[0] in "AD"
    assert "/etc/issue" in layerrun("diff", "a").out
    assert layerrun("app", "b", "--", "ls", "/etc/issue").out == "/etc/issue\n"
    assert layerrun("try", "-n", "--base", "debian", "--", "ls", "/etc/issue").out == "/etc/issue\n"
    assert layerrun("which", "b", "/etc/issue").rc == 0
    layerrun("reset", "-y", "a")
    assert layerrun("app", "a", "--", "ls", "/etc/issue").out == "/etc/issue\n"
    layerrun("app", "a", "--", "touch", "/usr/nothing", check=0)
    with open("/proc/mounts") as file:
        assert file.read() == before
    layerrun("base", "remove", "-y", "debian", check=3)


def test_what_cannot_be_left_out_is_refused(store, source, folder):
    del folder

    def device(root):
        os.mknod(f"{root}/usr/null", 0o20666, os.makedev(1, 3))

    def whiteout(root):
        os.makedirs(f"{root}/dev")
        os.mknod(f"{root}/dev/gone", 0o20000, 0)

    def mark(root):
        os.setxattr(f"{root}/usr/bin", "trusted.overlay.opaque", b"y")

    def owner(root):
        os.chown(f"{root}/usr/file", 70000, 0)

    def nothing(root):
        os.rename(f"{root}/usr", f"{root}/other")

    for number, (change, error, match) in enumerate(
        [
            (device, ArchiveError, "device node"),
            (whiteout, ArchiveError, "device node"),
            (mark, ArchiveError, "overlayfs"),
            (owner, ArchiveError, "70000:0"),
            (nothing, UsageError, "no root file system"),
        ]
    ):
        mine = f"{source}{number}"
        run("cp", "-a", source, mine)
        change(mine)
        with pytest.raises(error, match=match):
            bring(store, "image", made(mine, "erofs"))
    assert os.listdir(f"{store.path}/bases") == []
    check_whole(store.path)


def test_damage(store, source, folder):
    path = made(source, "erofs")
    with open(f"{folder}/bad", "wb") as file:
        file.write(open(path, "rb").read(1100) + b"\xff" * 4096)  # noqa: SIM115
    with pytest.raises(ArchiveError, match="cannot be mounted"):
        bring(store, "image", f"{folder}/bad")
    base = bring(store, "image", path)
    image = f"{store.path}/bases/{base.id}/image"
    with open(path, "rb") as file:
        data = file.read()
    os.chmod(image, 0o600)
    with open(image, "wb") as file:
        file.write(data.replace(b"usr/bin/tool", b"usr/bin/fool", 1))
    assert [(p.kind, p.path) for p in tree.verify(store, base)] == [("changed", "/usr/bin/tool")]
    os.truncate(image, 100)
    with pytest.raises(SystemError, match="erofs"):
        tree.verify(store, base)
    os.unlink(image)
    with pytest.raises(DamagedError, match="missing"):
        tree.verify(store, base)


PLAIN = {
    "erofs": ("erofs",),
    "gzip": ("sqfs",),
    "xz": ("sqfs", "-comp", "xz", "-Xbcj", "x86"),
    "zstd": ("sqfs", "-comp", "zstd"),
    "lz4": ("sqfs", "-comp", "lz4"),
    "lz4hc": ("sqfs", "-comp", "lz4", "-Xhc"),
    "lzo": ("sqfs", "-comp", "lzo"),
    "lzo1x_1": ("sqfs", "-comp", "lzo", "-Xalgorithm", "lzo1x_1"),
    "lzma": ("sqfs", "-comp", "lzma"),
    "small blocks": ("sqfs", "-b", "4096"),
    "no fragments": ("sqfs", "-no-fragments"),
    "nothing compressed": ("sqfs", "-noI", "-noD", "-noF", "-noX"),
    "erofs by lz4": ("erofs", "-zlz4"),
    "runs of several blocks": ("erofs", "-zlz4hc", "-C65536"),
    "a map of 8 bytes": ("erofs", "-zlz4", "-Elegacy-compress"),
    "a map of 8 bytes, several blocks": ("erofs", "-zlz4", "-Elegacy-compress", "-C65536"),
    "ends beside maps": ("erofs", "-zlz4hc", "-Eztailpacking", "-C16384"),
    "chunks": ("erofs", "--chunksize=4096"),
}


def rich(root):
    """Add what is laid out in ways of its own."""
    os.mkdir(f"{root}/usr/many")
    os.mkdir(f"{root}/usr/empty")
    for number in range(300):
        with open(f"{root}/usr/many/{number:0200}", "w") as file:
            file.write(str(number % 7) * number * 10)
    with open(f"{root}/usr/text", "w") as file:
        for number in range(120_000):
            file.write(f"{number * number % 9973} {'repeat ' * (number % 5)}")
    with open(f"{root}/usr/text", "rb") as text, open(f"{root}/usr/mixed", "wb") as file:
        file.write(text.read(100_001) + os.urandom(70_001) + text.read(100_001))
    with open(f"{root}/usr/sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(os.urandom(300_000))
        file.truncate(5 << 20)
    for number in range(40):
        os.setxattr(f"{root}/usr/many", f"user.key{number}", b"v" * number)
    os.setxattr(f"{root}/usr/twin", "user.shared", b"same" * 100)
    os.setxattr(f"{root}/usr/file", "user.shared", b"same" * 100)
    os.setxattr(f"{root}/usr/bin/tool", "security.capability", b"\1\0\0\2" + b"\0\x20\0\0" + b"\0" * 12)
    os.mkdir(f"{root}/dev")


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(
            kind, marks=() if kind in ("gzip", "lzo", "runs of several blocks") else pytest.mark.long
        )
        for kind in PLAIN
    ],
)
def test_unpacked_it_is_the_same(store, source, kind):
    """What a plain user gets: it is read in the jail, by nobody's rights."""
    from layerrun.bases.intake import import_base
    from layerrun.images.unpacking import UnpackedSource

    rich(source)
    expected = bring(store, "tree", source)
    path = made(source, *PLAIN[kind])
    fd = os.open(path, os.O_RDONLY)
    try:
        system = "erofs" if PLAIN[kind][0] == "erofs" else "squashfs"
        base = import_base(store, "image", UnpackedSource(fd, path, system))
    finally:
        os.close(fd)
    assert (base.digest, base.kind) == (expected.digest, BaseKind.TREE)
    assert tree.verify(store, base) == []


@pytest.mark.parametrize("kind", [pytest.param("sqfs", marks=pytest.mark.long), "erofs"])
def test_a_plain_user_unpacks_it(layerrun, any_user, user_folder, source, kind):
    path = f"{user_folder(any_user)}/a.{kind}"
    os.rename(made(source, kind, *(("-zlz4",) if kind == "erofs" else ("-comp", "lz4"))), path)
    os.chmod(path, 0o644)
    layerrun("base", "import", "image", path, user=any_user)
    assert "tree" in layerrun("base", "list", user=any_user).out
    layerrun("base", "verify", "image", user=any_user)


def test_what_only_the_kernel_can_read(source):
    """The advice names the tool that unpacks it."""
    from layerrun.images.erofs import Erofs

    path = made(source, "erofs", "-zlz4hc", "-C65536")
    with open(path, "rb") as file:
        data = bytearray(file.read())
    image = os.memfd_create("image")
    try:
        os.write(image, data)
        reader = Erofs(image)
        (usr,) = (node for name, node in reader.entries(reader.root()) if name == b"usr")
        file = next(node for name, node in reader.entries(usr) if name == b"file")
        os.pwrite(
            image, b"\x01", (file.inner[1] + 7 & ~7) + 6
        )  # lzma, which other tools than Debian's can write
        with pytest.raises(ArchiveError, match="only the kernel") as caught:
            list(reader.content(file))
        assert "fsck.erofs" in caught.value.hint
    finally:
        os.close(image)


@pytest.mark.parametrize(
    "kind", ["erofs", "sqfs", pytest.param("lzo", marks=pytest.mark.long), "lz4", "chunks"]
)
def test_any_damage_is_an_error_of_ours_or_none(source, kind):
    """What reads in the jail never fails with anything else, and never goes on for ever."""
    import random

    from layerrun.images.limits import Limits
    from layerrun.images.unpacking import read_here

    ways = {
        "lz4": ("erofs", "-zlz4hc"),
        "lzo": ("sqfs", "-comp", "lzo"),
        "chunks": ("erofs", "--chunksize=4096"),
    }
    path = made(source, *ways.get(kind, (kind,)))
    with open(path, "rb") as file:
        data = file.read()
    chance = random.Random(7)
    out = os.open("/dev/null", os.O_WRONLY)
    system = "squashfs" if kind in ("sqfs", "lzo") else "erofs"
    used = min(len(data), 12_000)
    for _ in range(150):
        bad = bytearray(data)
        for _ in range(chance.choice([1, 3, 30])):
            bad[chance.randrange(used)] = chance.randrange(256)
        image = os.memfd_create("image")
        os.write(image, bad)
        try:
            read_here(out, image, system, attrs.asdict(Limits(entries=5000, size=64 << 20)))
        except ArchiveError:
            pass
        finally:
            os.close(image)
    os.close(out)
