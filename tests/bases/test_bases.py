"""Tree bases: imported whole, found changed by a single byte, removed only when unused."""

import os
import shutil
import socket
import subprocess
import sys

import attrs
import pytest
from support.stores import check_whole, die_at_line, strides

from layerrun.bases import sources, tree, versions
from layerrun.bases.manifest import escape, unescape
from layerrun.errors import BaseInUseError, BusyError, DamagedError, ExistsError, NotFoundError, UsageError
from layerrun.model import AppConfig, IdMode
from layerrun.store.store import Store


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


@pytest.fixture
def source(folder):
    """A small root file system with one of everything."""
    root = f"{folder}/source"
    os.makedirs(f"{root}/usr/bin")
    os.chmod(root, 0o751)
    for name, text in {
        "usr/bin/tool": "#!\n",
        "usr/plain": "plain",
        "usr/empty": "",
        "a b=\\\n": "odd",
    }.items():
        with open(f"{root}/{name}", "w") as file:
            file.write(text)
    os.chmod(f"{root}/usr/bin/tool", 0o755)
    os.link(f"{root}/usr/plain", f"{root}/usr/hard")
    os.symlink("/etc/passwd", f"{root}/usr/link")
    os.symlink(b"\xff\n", f"{root}/usr/oddlink")
    os.mkfifo(f"{root}/usr/fifo")
    os.mkdir(os.fsencode(root) + b"/\xff\x1b", 0o1777)
    os.setxattr(f"{root}/usr/plain", "user.mark", b"a\0b")
    os.truncate(f"{root}/usr/empty", 1 << 20)
    os.mkdir(f"{root}/locked", 0)
    if os.geteuid() == 0:
        os.chown(f"{root}/usr/plain", 33, 34)
        os.chmod(f"{root}/usr/plain", 0o6711)
        os.mknod(f"{root}/usr/null", 0o20666, os.makedev(1, 3))
    return root


def tree_of(store, base):
    return f"{store.path}/bases/{base.id}/tree"


def test_import(store, source):
    calls = []
    base = sources.bring(store, "debian", source, progress=lambda *n: calls.append(n))
    assert store.base("debian") == base
    assert base.digest.startswith("sha256:")
    assert base.ids is IdMode.RANGE
    assert base.source == source
    assert base.size == (1 << 20) + len("#!\nplainodd")
    assert base.entries == sum(len(d) + len(f) for _, d, f in os.walk(source)) + 1
    copy = tree_of(store, base)
    assert subprocess.run(["diff", "-r", "--no-dereference", "-q", source, copy], check=False).returncode in (
        0,
        1,
    )
    plain, root = os.stat(f"{copy}/usr/plain"), os.stat(copy)
    # Its two names, and the object that it is.
    assert (plain.st_mode, plain.st_uid, plain.st_gid, plain.st_nlink) == (0o106711, 33, 34, 3)
    assert root.st_mode == 0o40751
    assert os.stat(f"{copy}/usr/null").st_rdev == os.makedev(1, 3)
    assert os.stat(f"{copy}/usr/empty").st_blocks == 0
    assert tree.verify(store, base) == []
    check_whole(store.path)


def test_digest_is_of_the_tree_alone(store, source):
    first = sources.bring(store, "first", source)
    os.utime(f"{source}/usr/plain", (1, 1))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{source}/usr/socket")
        os.setxattr(f"{source}/usr/plain", "trusted.overlay.opaque", b"y")
        again = sources.bring(store, "again", source)
    assert again.digest == first.digest
    assert again.id != first.id
    assert "trusted.overlay.opaque" not in os.listxattr(f"{tree_of(store, again)}/usr/plain")


ALTERATIONS = {
    "content": lambda r: open(f"{r}/usr/bin/tool", "r+").write("#?"),  # noqa: SIM115
    "content of the same size and time": None,
    "mode": lambda r: os.chmod(f"{r}/usr/bin/tool", 0o700),
    "setuid": lambda r: os.chmod(f"{r}/usr/bin/tool", 0o4755),
    "mode of the root": lambda r: os.chmod(r, 0o700),
    "owner": lambda r: os.chown(f"{r}/usr/bin/tool", 1, 0),
    "group": lambda r: os.chown(f"{r}/usr/bin/tool", 0, 1),
    "xattr": lambda r: os.setxattr(f"{r}/usr/bin/tool", "user.x", b"1"),
    "xattr value": lambda r: os.setxattr(f"{r}/usr/plain", "user.mark", b"a\0c"),
    "link target": lambda r: (os.unlink(f"{r}/usr/link"), os.symlink("/etc/shadow", f"{r}/usr/link")),
    "device number": lambda r: (
        os.unlink(f"{r}/usr/null"),
        os.mknod(f"{r}/usr/null", 0o20666, os.makedev(1, 5)),
    ),
    "type": lambda r: (os.unlink(f"{r}/usr/fifo"), os.mkdir(f"{r}/usr/fifo", 0o644)),
    "added": lambda r: os.mkdir(f"{r}/usr/new"),
    "missing": lambda r: os.unlink(f"{r}/usr/fifo"),
    "renamed": lambda r: os.rename(f"{r}/usr/fifo", f"{r}/usr/fifp"),
}


@pytest.mark.parametrize("what", ALTERATIONS)
def test_every_alteration_is_found_and_changes_the_digest(store, source, what):
    base = sources.bring(store, "first", source)

    def alter(root):
        if ALTERATIONS[what] is not None:
            ALTERATIONS[what](root)
            return
        path = f"{root}/usr/bin/tool"
        before = os.stat(path)
        with open(path, "r+") as file:
            file.write("?")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    alter(tree_of(store, base))
    assert tree.verify(store, base)
    alter(source)
    assert sources.bring(store, "second", source).digest != base.digest


# What import never takes over; in the tree of a base the kernel would believe it.
MARKS = (
    "trusted.overlay.opaque",
    "trusted.overlay.redirect",
    "user.overlay.opaque",
    "trusted.overlay.overlay.x",
)


@pytest.mark.parametrize("mark", MARKS)
def test_marks_of_overlayfs_are_neither_imported_nor_overlooked(store, source, mark):
    os.setxattr(f"{source}/usr/bin", mark, b"y")
    os.setxattr(source, mark, b"y")
    base = sources.bring(store, "b", source)
    root = tree_of(store, base)
    assert mark not in os.listxattr(root) + os.listxattr(f"{root}/usr/bin")
    assert tree.verify(store, base) == []
    os.setxattr(f"{root}/usr/bin", mark, b"y")
    assert [(p.kind, p.path) for p in tree.verify(store, base)] == [("changed", "/usr/bin")]


def test_an_added_socket_is_found(store, source):
    base = sources.bring(store, "b", source)
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(tree_of(store, base), os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/sock")
        os.close(here)
    assert [(p.kind, p.path) for p in tree.verify(store, base)] == [("added", "/sock")]


def test_order_of_making_does_not_matter(store, folder):
    digests = set()
    for number, names in enumerate([("usr", "b", "a"), ("a", "b", "usr")]):
        top = f"{folder}/{number}"
        os.mkdir(top)
        for name in names:
            os.mkdir(f"{top}/{name}")
            for key in sorted(("user.x", "user.y"), reverse=bool(number)):
                os.setxattr(f"{top}/{name}", key, key.encode())
        digests.add(sources.bring(store, f"b{number}", top).digest)
    assert len(digests) == 1


def test_two_imports_of_one_tree_at_once(store_path, source):
    """The slower one finds the base that the quicker one made, as if it had come later."""
    Store.open(store_path).close()
    code = (
        "import sys; from layerrun.store.store import Store; from layerrun.bases import sources\n"
        "with Store.open(sys.argv[1]) as s: print(sources.bring(s, 'b', sys.argv[2]).id)"
    )
    argv = [sys.executable, "-c", code, store_path, source]
    both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    ids = {process.communicate()[0] for process in both}
    assert [process.returncode for process in both] == [0] * 4
    assert len(ids) == 1
    check_whole(store_path)


def test_problems_are_named(store, source):
    base = sources.bring(store, "b", source)
    root = tree_of(store, base)
    os.unlink(f"{root}/a b=\\\n")
    os.mkdir(os.fsencode(root) + b"/\xff\x1b/n")
    os.chmod(f"{root}/usr/bin", 0o700)
    os.chmod(root, 0o755)
    assert [(p.kind, p.path) for p in tree.verify(store, base)] == [
        ("changed", "/"),
        ("missing", "/a b=\\\n"),
        ("changed", "/usr/bin"),
        ("added", os.fsdecode(b"/\xff\x1b/n")),
    ]


def test_altered_manifest(store, source):
    base = sources.bring(store, "b", source)
    path = f"{store.path}/bases/{base.id}/manifest"
    with open(path, "a") as file:
        file.write("d 0755 0 0 - evil\n")
    with pytest.raises(DamagedError, match="altered"):
        tree.verify(store, base)
    os.unlink(path)
    with pytest.raises(DamagedError, match="altered"):
        tree.verify(store, base)
    shutil.rmtree(tree_of(store, base))
    with pytest.raises(DamagedError, match="missing"):
        tree.verify(store, base)


def test_same_again(store, source):
    base = sources.bring(store, "b", source)
    assert sources.bring(store, "b", source) == base
    os.mkdir(f"{source}/usr/more")
    with pytest.raises(ExistsError, match="another content"):
        sources.bring(store, "b", source)
    assert os.listdir(f"{store.path}/bases") == [base.id]
    assert tree.verify(store, base) == []
    check_whole(store.path)


def test_what_is_no_root_file_system(store, folder, source):
    os.mkdir(f"{folder}/empty")
    with open(f"{folder}/file", "w"):
        pass
    for path, match in (
        (f"{folder}/empty", "neither usr nor bin"),
        (f"{folder}/gone", "no folder"),
        (f"{folder}/file", "not a folder"),
        ("/", "holds the store"),
        (folder, "holds the store"),
    ):
        with pytest.raises(UsageError, match=match):
            tree.open_folder(store, path)
    for name in ("host", "B", "../b"):
        with pytest.raises(UsageError):
            sources.bring(store, name, source)
    assert store.catalog.bases() == []
    check_whole(store.path)


def test_host_is_no_tree(store):
    with pytest.raises(UsageError, match="cannot be removed"):
        versions.remove(store, "host")
    with pytest.raises(UsageError, match="nothing is recorded"):
        tree.verify(store, store.base("host"))


def test_in_use(store, source):
    base = sources.bring(store, "b", source)
    for number in range(7):
        store.create_app(f"a{number}", AppConfig(base="b"), ids=IdMode.RANGE)
    with pytest.raises(BaseInUseError, match="a0, a1, a2, a3, a4 and 2 more"):
        versions.remove(store, "b")
    for number in range(6):
        store.remove_app(f"a{number}")
    store.update_app("a6", AppConfig())
    versions.remove(store, "b")
    assert [b.name for b in store.bases()] == ["host"]
    assert os.listdir(f"{store.path}/bases") == []
    with pytest.raises(NotFoundError):
        versions.remove(store, "b")
    assert base not in store.bases()


def test_a_version_that_is_added_during_a_removal(store, source):
    base = sources.bring(store, "b", source)
    new = attrs.evolve(base, id="0" * 16, digest="sha256:" + "0" * 64)
    with store.catalog.transaction():
        store.catalog.add_next_version(new)
    with pytest.raises(BusyError, match="changed meanwhile"):
        versions._remove(store, [base])
    assert len(store.catalog.versions("b")) == 2


def test_app_on_a_base(store, source):
    base = sources.bring(store, "b", source)
    app = store.create_app("one", AppConfig(base="b"), ids=IdMode.RANGE)
    upper = os.stat(f"{store.app_dir(app)}/data/upper")
    assert upper.st_mode == 0o40751
    (fd,) = store.lower_fds(app)
    assert os.path.samestat(os.fstat(fd), os.stat(tree_of(store, base)))
    os.close(fd)
    os.rename(tree_of(store, base), f"{store.path}/gone")
    with pytest.raises(DamagedError, match="base 'b' is missing"):
        store.lower_fds(app)
    with pytest.raises(DamagedError):
        store.reset_app("one")
    assert store.app("one").generation == 1


@pytest.mark.parametrize("stride", strides(29, 5))
def test_crash_during_import(folder, source, store_path, stride):
    template = f"{folder}/template"
    with Store.open(template):
        pass

    def act():
        with Store.open(store_path) as store:
            sources.bring(store, "b", source)

    number, killed = 1, True
    while killed:
        shutil.copytree(template, store_path)
        killed = die_at_line(number, act)
        check_whole(store_path)
        with Store.open(store_path) as store:
            base = sources.bring(store, "b", source)
            assert tree.verify(store, base) == []
            versions.remove(store, "b")
        check_whole(store_path)
        shutil.rmtree(store_path)
        number += stride
    assert number > 100


@pytest.mark.parametrize("stride", strides(29, 5))
def test_crash_during_removal(folder, source, store_path, stride):
    template = f"{folder}/template"
    with Store.open(template) as store:
        sources.bring(store, "b", source)

    def act():
        with Store.open(store_path) as store:
            versions.remove(store, "b")

    number, killed = 1, True
    while killed:
        subprocess.run(["cp", "-a", template, store_path], check=True)
        killed = die_at_line(number, act)
        check_whole(store_path)
        with Store.open(store_path) as store:
            for base in store.catalog.bases():
                assert tree.verify(store, base) == []
        subprocess.run(["rm", "-rf", store_path], check=True)
        number += stride
    assert number > 100


def test_full_disk(folder, source):
    os.mkdir(f"{folder}/m")
    with open(f"{source}/usr/big", "wb") as file:
        file.write(b"x" * (2 << 20))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", f"{folder}/m"], check=True)
    try:
        with Store.open(f"{folder}/m/store") as store:
            with pytest.raises(OSError, match="No space left"):
                sources.bring(store, "b", source)
            store.create_app("one", AppConfig(), ids=IdMode.NONE)
        check_whole(f"{folder}/m/store")
    finally:
        subprocess.run(["umount", f"{folder}/m"], check=True)


@pytest.mark.parametrize("data", [b"", b"a", bytes(range(256)), b"\\x41", b"\\\\", b"=", " é".encode()])
def test_escape(data):
    escaped = escape(data)
    assert unescape(escaped) == data
    assert all(0x21 <= c <= 0x7E and c != ord("=") for c in escaped)


ROOTLESS = """
import sys
from layerrun.bases import sources, tree, versions
from layerrun.model import *
from layerrun.store.store import Store
path, source = sys.argv[1:]
with Store.open(path) as store:
    base = sources.bring(store, "b", source)
    print(base.ids, base.digest)
    print(sources.bring(store, "b", source) == base, tree.verify(store, base))
    store.create_app("a", AppConfig(base="b"), ids=base.ids)
    store.remove_app("a")
    versions.remove(store, "b")
"""


def rootless(user, path, source):
    done = user.run([sys.executable, "-c", ROOTLESS, path, source])
    assert done.stderr == ""
    ids, digest, *rest = done.stdout.split(None, 3)
    assert rest == ["True", "[]\n"]
    assert os.listdir(f"{path}/bases") == os.listdir(f"{path}/trash") == []
    return ids, digest


def test_rootless_with_subordinate_ids(plain_user, user_folder, store, source):
    """The same tree has the same digest, whoever imports it, if the ids can be told."""
    from layerrun.native.subids import subids

    os.unlink(f"{source}/usr/null")
    digest = sources.bring(store, "b", source).digest
    uid, gid, _ = subids(plain_user.name)
    mine = f"{user_folder(plain_user)}/source"
    subprocess.run(["cp", "-a", source, mine], check=True)
    mode = os.stat(f"{mine}/usr/plain").st_mode
    subprocess.run(["chown", "-hR", f"{plain_user.uid}:{plain_user.gid}", mine], check=True)
    os.chown(f"{mine}/usr/plain", uid + 32, gid + 33)
    for name in ("usr/plain", "usr/bin/tool"):  # chown(2) took the setuid bits
        os.chmod(f"{mine}/{name}", mode if name == "usr/plain" else 0o755)
    found = rootless(plain_user, f"{os.path.dirname(mine)}/store", mine)
    assert found == ("subids", digest)


def make_readable(source):
    for name in (".", "locked", "usr/plain"):
        os.chmod(f"{source}/{name}", 0o755)


def test_rootless_with_one_id(single_user, user_folder, source):
    make_readable(source)
    path = f"{user_folder(single_user)}/store"
    assert rootless(single_user, path, source)[0] == "single"


def test_rootless_import_of_what_root_owns(plain_user, user_folder, source):
    make_readable(source)
    path = f"{user_folder(plain_user)}/store"
    assert rootless(plain_user, path, source)[0] == "single"
    os.chmod(f"{source}/locked", 0)
    done = plain_user.run([sys.executable, "-c", ROOTLESS, path, source])
    assert "locked" in done.stderr
    assert "Permission denied" in done.stderr
    assert os.listdir(f"{path}/staging") == os.listdir(f"{path}/bases") == []
