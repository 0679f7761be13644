"""Images of file systems: root mounts them at each start, and nobody sees that from outside."""

import os
import subprocess

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
    expected = tree.import_tree(store, "tree", source)
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


@pytest.mark.parametrize("kind", ["erofs", "sqfs"])
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


def test_a_plain_user_is_told_what_to_do(layerrun, any_user, user_folder, source):
    path = f"{user_folder(any_user)}/a.erofs"
    os.rename(made(source, "erofs"), path)
    os.chmod(path, 0o644)
    failed = layerrun("base", "import", "image", path, user=any_user, check=2)
    assert "fsck.erofs --extract" in failed.err
