"""Listing, copying, counting, opening and removing trees of any kind."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
import time

import pytest
from support import reach

from layerrun.errors import SystemError as LayerrunSystemError
from layerrun.layers.diff import diff_upper
from layerrun.native import trees

OLD = 1_000_000_000_123_456_789
ODD = [b"new\nline", b"\x1b[31m", b"\xff\xfe", b"n" * 255, b" ", b"-rf", b"*", b"..."]


@pytest.fixture
def top(folder):
    """A descriptor of an empty folder, which is the current one meanwhile."""
    fd = os.open(folder, os.O_RDONLY)
    here = os.getcwd()
    os.chdir(folder)
    yield fd
    os.chdir(here)
    os.close(fd)


def populate(name):
    """A tree with one of everything."""
    os.makedirs(f"{name}/dir/deep", 0o755)
    for each in ODD:
        with open(os.fsencode(name) + b"/dir/" + each, "wb") as file:
            file.write(each)
    with open(f"{name}/hole", "wb") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"data")
    with open(f"{name}/many", "wb") as file:
        file.write(os.urandom(1 << 20))
    os.link(f"{name}/many", f"{name}/dir/deep/again")
    os.symlink("/etc/passwd", f"{name}/absolute")
    os.symlink(b"\xff" * 300, os.fsencode(name) + b"/long")
    os.mkfifo(f"{name}/fifo", 0o640)
    os.setxattr(f"{name}/many", "user.note", b"x" * 2000)
    os.setxattr(f"{name}/dir", "user.empty", b"")
    os.chmod(f"{name}/hole", 0o4711)
    os.mkdir(f"{name}/shut", 0o000)
    if os.geteuid() == 0:
        os.chown(f"{name}/many", 1234, 4321)
        os.lchown(f"{name}/absolute", 55, 66)
        os.mknod(f"{name}/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for path in ("hole", "dir/deep", "absolute", "fifo", "dir"):
        os.utime(f"{name}/{path}", ns=(OLD, OLD), follow_symlinks=False)


def listed(name, *, links=True):
    """What list_tree says, without what no copy can keep."""
    fd = os.open(name, os.O_PATH)
    try:
        entries = list(trees.list_tree(fd))
    finally:
        os.close(fd)
    return [
        entry._replace(
            ino=0, dev=0, size=0 if entry.type == "dir" else entry.size, nlink=links and entry.nlink
        )
        for entry in entries
    ]


def open_descriptors():
    return sorted(os.listdir("/proc/self/fd"))


def test_list(top):
    populate("tree")
    entries = listed("tree")
    names = [
        os.fsencode(os.path.relpath(os.path.join(f, n), "tree"))
        for f, d, fs in os.walk("tree")
        for n in d + fs
    ]
    assert [e.path for e in entries] == sorted(names, key=lambda path: path.split(b"/"))
    by = {entry.path: entry for entry in entries}
    assert by[b"absolute"].link_target == b"/etc/passwd"
    assert (by[b"absolute"].uid, by[b"absolute"].gid, by[b"absolute"].mtime_ns) == (55, 66, OLD)
    assert by[b"long"].link_target == b"\xff" * 300
    assert by[b"many"].xattrs == {b"user.note": b"x" * 2000}
    assert by[b"dir"].xattrs == {b"user.empty": b""}
    assert (by[b"hole"].mode, by[b"hole"].size) == (stat.S_IFREG | 0o4711, 8 << 20)
    assert (by[b"many"].nlink, by[b"many"].ino) == (2, 0)
    assert (by[b"null"].type, by[b"null"].rdev) == ("char", os.makedev(1, 3))
    status = os.stat("tree/many")
    entry = next(e for e in trees.list_tree(top, xattrs=False) if e.path == b"tree/many")
    assert (entry.ino, entry.dev, entry.mtime_ns, entry.xattrs) == (
        status.st_ino,
        status.st_dev,
        status.st_mtime_ns,
        {},
    )


def test_a_list_given_up_leaves_nothing_open(top):
    populate("tree")
    before = open_descriptors()
    following = trees.list_tree(top)
    next(following)
    assert open_descriptors() != before
    following.close()
    assert open_descriptors() == before


def test_usage(top):
    populate("tree")
    subprocess.run(["du", "-s", "tree"], check=True)
    fd = os.open("tree", os.O_PATH)
    found = trees.usage(fd)
    os.close(fd)
    du = subprocess.check_output(["du", "-s", "--block-size=1", "tree"], text=True)
    assert found.allocated == int(du.split()[0])
    assert found.entries == len(listed("tree"))
    sizes = {}
    for folder, _, names in os.walk("tree"):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                sizes[status.st_ino] = status.st_size
    assert found.apparent == sum(sizes.values())


@pytest.mark.parametrize("where", ["same", "tmpfs"])
def test_copy_is_exact(top, folder, where):
    populate("tree")
    subprocess.run(["setfacl", "-m", "u:77:r", "tree/many"], check=True)
    subprocess.run(["setfacl", "-d", "-m", "g:88:rw", "tree/dir"], check=True)
    subprocess.run(["setcap", "cap_net_raw+ep", "tree/many"], check=True)
    os.setxattr("tree/dir", "trusted.overlay.opaque", b"y")
    os.setxattr("tree/dir", "user.overlay.opaque", b"y")
    os.chmod("tree", 0o2751)
    os.chown("tree", 9, 8)
    os.utime("tree", ns=(OLD, OLD))
    target = "copy"
    os.mkdir(target)
    if where == "tmpfs":
        target = os.path.join("/dev/shm", os.path.basename(folder))
        os.mkdir(target)
    source, made = os.open("tree", os.O_PATH), os.open(target, os.O_PATH)
    try:
        before = open_descriptors()
        stats = trees.copy_tree(source, made, owners=True)
        assert open_descriptors() == before
        wanted = []
        for entry in listed("tree"):
            kept = {k: v for k, v in entry.xattrs.items() if b".overlay." not in k}
            wanted.append(entry._replace(xattrs=kept))
        assert listed(target) == wanted
        assert {b"security.capability", b"system.posix_acl_access"} <= set(
            next(e for e in wanted if e.path == b"many").xattrs
        )
        assert stats.entries == len(wanted)
        root = os.stat(target)
        assert (stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid, root.st_mtime_ns) == (0o2751, 9, 8, OLD)
        for name in ("many", "hole", "dir/deep/again"):
            with open(f"tree/{name}", "rb") as one, open(f"{target}/{name}", "rb") as two:
                assert one.read() == two.read()
        assert os.stat(f"{target}/many").st_ino == os.stat(f"{target}/dir/deep/again").st_ino
        assert os.stat(f"{target}/hole").st_blocks * 512 < 1 << 20
        # Only the attribute that is nobody's but the user's in this flavour is missed.
        missed = [(c.change, c.path) for c in diff_upper(made, [source], userxattr=False, roots=["/"])]
        assert missed == [("P", "/dir")]
    finally:
        os.close(source)
        os.close(made)
        if where == "tmpfs":
            subprocess.run(["rm", "-rf", target], check=True)


def test_copy_refuses_what_is_there(top):
    os.makedirs("a/x")
    os.makedirs("b/x")
    source, made = os.open("a", os.O_PATH), os.open("b", os.O_PATH)
    with pytest.raises(LayerrunSystemError, match="cannot make the folder x: File exists"):
        trees.copy_tree(source, made, owners=True)
    os.close(source)
    os.close(made)


def as_user(user, script, *words):
    argv = reach.translate([sys.executable, "-I", "-c", script, *words])
    done = subprocess.run(
        [*user.prefix(), *argv], env=user.environ(), cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_copy_as_a_plain_user(single_user, user_folder, top):
    path = user_folder(single_user)
    os.makedirs(f"{path}/tree/dir")
    os.mkdir(f"{path}/copy")
    os.mknod(f"{path}/tree/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.chown(f"{path}/tree/dir", 12, 13)
    subprocess.run(["chown", single_user.name, f"{path}/copy"], check=True)
    subprocess.run(["setcap", "cap_net_raw+ep", "/dev/null"], check=False, capture_output=True)
    script = (
        "import os, sys; from layerrun.native import trees\n"
        "fds = [os.open(p, os.O_PATH) for p in sys.argv[1:]]\n"
        "try: trees.copy_tree(*fds, owners=False)\n"
        "except OSError as error: print(error)\n"
        "[os.rmdir(sys.argv[2] + '/' + n) for n in os.listdir(sys.argv[2])]\n"
        "print(trees.copy_tree(*fds, owners=False, devices=False))\n"
    )
    said = as_user(single_user, script, f"{path}/tree", f"{path}/copy").splitlines()
    assert said[0] == "cannot make the device node null: Operation not permitted"
    assert said[1] == "CopyStats(entries=1, bytes=0, sockets=0, devices=1, xattrs=0)"


def test_remove(top):
    populate("tree")
    os.symlink("outside", "tree/link")
    os.mkdir("outside")
    with open("outside/kept", "w"):
        pass
    subprocess.run(["chattr", "+i", "tree/many"], check=False, capture_output=True)
    before = open_descriptors()
    trees.remove_tree(top, b"tree")
    assert open_descriptors() == before
    assert os.listdir() == ["outside"]
    assert os.listdir("outside") == ["kept"]
    trees.remove_tree(top, b"tree")
    trees.remove_tree(top, b"nothing")


@pytest.mark.parametrize("kind", ["file", "symlink", "fifo", "dir"])
def test_remove_a_single_thing(top, kind):
    os.mkdir("kept")
    {
        "file": lambda: open("x", "w").close(),
        "symlink": lambda: os.symlink("kept", "x"),
        "fifo": lambda: os.mkfifo("x"),
        "dir": lambda: os.mkdir("x"),
    }[kind]()
    trees.remove_tree(top, b"x")
    assert os.listdir() == ["kept"]


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/etc"])
def test_remove_takes_one_name(top, name):
    with pytest.raises(LayerrunSystemError) as caught:
        trees.remove_tree(top, name)
    assert caught.value.errno == errno.EINVAL


def test_remove_as_a_plain_user_without_permissions(single_user, user_folder):
    path = user_folder(single_user)
    script = (
        "import os, sys; from layerrun.native import trees\n"
        "os.chdir(sys.argv[1]); os.makedirs('tree/a/b/c'); open('tree/a/b/c/f', 'w').close()\n"
        "os.makedirs('tree/work/work')\n"
        "for name, mode in (('a/b/c', 0), ('a/b', 0o100), ('a', 0o555), ('work/work', 0), ('', 0o555)):\n"
        "    os.chmod('tree/' + name, mode)\n"
        "trees.remove_tree(os.open('.', os.O_PATH), b'tree'); print(os.listdir())\n"
    )
    assert as_user(single_user, script, path) == "[]\n"


def test_remove_never_changes_the_folder_around(single_user, user_folder):
    path = user_folder(single_user)
    script = (
        "import os, sys; from layerrun.native import trees\n"
        "os.chdir(sys.argv[1]); os.makedirs('around/tree/x'); os.chmod('around', 0o555)\n"
        "try: trees.remove_tree(os.open('around', os.O_PATH), b'tree')\n"
        "except OSError as error: print(error)\n"
        "print(oct(os.stat('around').st_mode))\n"
    )
    said = as_user(single_user, script, path)
    assert said == "cannot remove tree: Permission denied\n0o40555\n"


def test_two_removers(top):
    for number in range(40):
        os.makedirs(f"tree/{number % 7}/{number}/" + "/".join(["deep"] * 12))
    script = "import sys; from layerrun.native import trees; trees.remove_tree(int(sys.argv[1]), b'tree')"
    removers = [
        subprocess.Popen([sys.executable, "-c", script, str(top)], stdin=subprocess.DEVNULL, pass_fds=[top])
        for _ in range(4)
    ]
    assert [remover.wait() for remover in removers] == [0] * 4
    assert os.listdir() == []


def test_remove_in_background(top):
    populate("tree")
    trees.remove_in_background(top, b"tree")
    end = time.monotonic() + 30
    while os.path.lexists("tree") and time.monotonic() < end:
        time.sleep(0.01)
    assert os.listdir() == []


def test_remove_in_background_keeps_no_lock(top):
    """A lock of the caller's is free once the caller has closed it, however long the removing takes."""
    for number in range(100):
        os.mkdir(f"{number}")
        lock = os.open("lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        trees.remove_in_background(top, b"%d" % number)
        os.close(lock)
        again = os.open("lock", os.O_RDWR)
        fcntl.flock(again, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(again)
    end = time.monotonic() + 30
    while os.listdir() != ["lock"] and time.monotonic() < end:
        time.sleep(0.01)
    assert os.listdir() == ["lock"]


@pytest.mark.parametrize("kind", ["dir", "file"])
@pytest.mark.root
def test_a_mount_is_left_alone(top, folder, kind):
    script = f"""
    set -e; cd {folder}; mkdir -p tree/sub precious; echo p > precious/kept
    if [ {kind} = dir ]; then mkdir tree/sub/m; mount --bind precious tree/sub/m
    else touch tree/sub/m; mount --bind precious/kept tree/sub/m; fi
    exec {sys.executable} -c '
import os
from layerrun.native import trees
top = os.open(".", os.O_RDONLY)
tree = os.open("tree", os.O_RDONLY)
print(sorted(e.path for e in trees.list_tree(tree)))
print(trees.usage(tree).entries)
os.mkdir("copy")
for work in (
    lambda: trees.copy_tree(tree, os.open("copy", os.O_PATH), owners=True).entries,
    lambda: trees.open_beneath(tree, b"sub/m", os.O_PATH),
    lambda: trees.remove_tree(top, b"tree"),
):
    try: print(work())
    except OSError as error: print(error)
print(os.path.exists("precious/kept"))
'
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    copied = "2" if kind == "dir" else "cannot copy what is mounted on sub/m: Invalid cross-device link"
    removed = "remove what has something mounted on it, tree/sub/m" if kind == "dir" else "remove tree/sub/m"
    assert done.stdout.splitlines() == [
        "[b'sub', b'sub/m']",
        "2",
        copied,
        "cannot open sub/m: Invalid cross-device link",
        f"cannot {removed}: Device or resource busy",
        "True",
    ]


def test_open_beneath(top):
    os.makedirs("a/b")
    os.symlink("b", "a/link")
    os.mkfifo("a/fifo")
    with open("a/b/file", "w") as file:
        file.write("text")
    fd = trees.open_beneath(top, b"a/b/file", os.O_RDONLY)
    assert os.read(fd, 9) == b"text"
    assert not os.get_inheritable(fd)
    os.close(fd)
    os.close(trees.open_beneath(top, b"", os.O_PATH))
    os.close(trees.open_beneath(top, b"a/fifo", os.O_RDONLY))
    os.close(trees.open_beneath(top, b"a/link", os.O_PATH))
    os.close(trees.open_beneath(top, b"a/new", os.O_WRONLY | os.O_CREAT, 0o640))
    assert stat.S_IMODE(os.stat("a/new").st_mode) == 0o640
    for path, code in (
        (b"a/link/file", errno.ELOOP),
        (b"a/link", errno.ELOOP),
        (b"a/../a", errno.EXDEV),
        (b"..", errno.EXDEV),
        (b"/etc", errno.EXDEV),
        (b"a/none", errno.ENOENT),
        (b"x" * 300, errno.ENAMETOOLONG),
        (b"x" * 5000, errno.ENAMETOOLONG),
    ):
        with pytest.raises(LayerrunSystemError) as caught:
            trees.open_beneath(top, path, os.O_RDONLY)
        assert caught.value.errno == code, path
    with pytest.raises(ValueError, match="NUL"):
        trees.open_beneath(top, b"a\0b", os.O_RDONLY)


def test_errors_name_the_path(top):
    os.makedirs("tree/a\nb")
    with pytest.raises(LayerrunSystemError, match=r"cannot open nothing: No such file") as caught:
        trees.open_beneath(top, b"nothing", os.O_RDONLY)
    assert isinstance(caught.value, OSError)
    assert caught.value.filename == "nothing"
    with pytest.raises(LayerrunSystemError):
        trees.usage(-1)
    with pytest.raises(LayerrunSystemError, match=r"cannot open x\\ny: No such"):
        trees.open_beneath(top, b"x\ny", os.O_RDONLY)
