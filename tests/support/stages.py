"""A tree, a layer over it, and what of it is to be committed.

It is planned by itself, on purpose in a way of its own, so that what is tested is only how a plan is carried out.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import time
import types

from layerrun.commit import engine
from layerrun.commit.entries import stat_of
from layerrun.commit.ops import Kind, Op
from layerrun.native import trees
from layerrun.runtime import throwaway
from layerrun.store.store import Store

BEFORE = """
echo old > rep; echo gone > rem; mkdir d; echo x > d/x; echo meta > meta; chmod 600 meta
echo w1 > w; ln w w2; mkdir olddir; echo in > olddir/in; ln -s there link; mkdir opaque; echo 1 > opaque/1
echo 2 > opaque/2; mkdir gone; echo a > gone/a; chmod 555 gone; echo f > tofolder; mkdir deep; mkdir deep/er
echo q > deep/er/q; setfattr -n user.a -v 1 meta; setfattr -n user.b -v 2 meta; echo ro > ro; chmod 444 ro
touch -d '2001-01-01 00:00:00.123456789' d olddir rep deep deep/er gone opaque
mkdir -p mnt/sub; test -e mnt/f || { echo f > mnt/f; echo g > mnt/g; echo h > mnt/sub/h; ln mnt/sub/h mnt/sub/i; }
touch -d '2002-01-01' mnt mnt/sub .
"""


AFTER = """
echo new > add; echo new > rep; rm rem; mkdir nd; echo a > nd/a; chmod 000 nd/a; mkdir nd/e; echo z > nd/e/z
chmod 000 nd/e; chmod 644 meta; setfattr -n user.a -v 3 meta; setfattr -x user.b meta; setfattr -n user.c -v 4 meta
echo w22 > w; rm -r olddir; echo file > olddir; ln add add2; rm link; ln -s elsewhere link; rm -r opaque
mkdir opaque; echo 3 > opaque/3; chmod 755 gone; rm -r gone; rm tofolder; mkdir tofolder; echo in > tofolder/in
mkfifo fifo; truncate -s 1M sparse; echo end >> sparse; echo q2 > deep/er/q; chmod 700 deep/er
chmod 644 ro; echo rw > ro; chmod 444 ro; mkdir split; echo s > split/s; mkdir split/t; echo u > split/t/u
chmod 750 split/t; printf x > "$(printf 'odd \\377\\nname')"; mkdir closed; echo c > closed/c; chmod 555 closed
echo f2 > mnt/f; rm mnt/g; mkdir mnt/n; echo n > mnt/n/n; chmod 700 mnt/sub; echo h2 > mnt/sub/h; echo p > mnt/p
setfattr -n user.new -v 1 mnt/p; touch -d '2010-01-01' split split/t mnt .
"""


def shell(script, cwd):
    subprocess.run(["sh", "-ec", script], check=True, cwd=cwd)


def content(path):
    with open(path, "rb", opener=lambda p, f: os.open(p, f | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]


def picture(top, *, names=True):
    """Return all that can be seen of a tree, times of change left out."""
    fd = os.open(top, os.O_RDONLY)
    groups = {}
    seen = {}
    info = os.fstat(fd)
    seen["."] = (info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns)
    todo = [b""]
    while todo:
        folder = todo.pop()
        path = os.path.join(os.fsencode(top), folder)
        if not os.access(path, os.R_OK | os.X_OK):
            continue  # closed to its owner, and to look into it would change it
        for name in sorted(os.listdir(path)):
            if name.startswith(b".layerrun-"):
                continue  # where things are kept aside
            at = os.path.join(folder, name)
            full = os.path.join(path, name)
            info = os.lstat(full)
            readable = stat.S_ISREG(info.st_mode) and os.access(full, os.R_OK)
            seen[at] = (
                info.st_mode,
                info.st_uid,
                info.st_gid,
                info.st_rdev,
                None
                if stat.S_ISDIR(info.st_mode)
                else (info.st_size, info.st_blocks if info.st_size > 4096 else 0),
                info.st_mtime_ns,
                os.readlink(full) if stat.S_ISLNK(info.st_mode) else "",
                content(full) if readable else "",
                {
                    k: os.getxattr(full, k, follow_symlinks=False)
                    for k in os.listxattr(full, follow_symlinks=False)
                },
                groups.setdefault((info.st_dev, info.st_ino), at) if info.st_nlink > 1 and names else "",
            )
            if stat.S_ISDIR(info.st_mode):
                todo.append(at)
    os.close(fd)
    return seen


def differences(one, other):
    return {k: (one.get(k), other.get(k)) for k in {*one, *other} if one.get(k) != other.get(k)}


class ByHand:
    """Plans everything in an upper beneath a folder."""

    def __init__(self, store, app, top):
        self.upper = store.open_data(app, "upper")
        self.root = os.open("/", os.O_RDONLY)
        self.flavour = "user" if os.geteuid() else "trusted"
        self.ops, self.last, self.linked = [], [], {}
        self.looked = time.clock_gettime_ns(5)  # CLOCK_REALTIME_COARSE
        self._folder(os.fsencode(top).strip(b"/"), meta=True)
        os.close(self.upper)
        os.close(self.root)

    def planned(self, left=0):
        return types.SimpleNamespace(ops=self.ops + self.last, left=left, merges={}, looked_ns=self.looked)

    def _stat(self, fd, path):
        folder, _, name = path.rpartition(b"/")
        try:
            at = trees.open_beneath(fd, folder, os.O_PATH, cross_mounts=True)
        except OSError:
            return None
        try:
            return stat_of(at, name)
        finally:
            os.close(at)

    def _add(self, kind, path, new, old, letter, **more):
        source = None if kind in (Kind.REMOVE, Kind.LINK) else path
        self.ops.append(Op(kind, path, source=source, new=new, old=old, letter=letter, **more))

    def _xattr(self, path, key):
        fd = trees.open_beneath(self.upper, path, os.O_PATH)
        try:
            return os.getxattr(f"/proc/self/fd/{fd}", f"{self.flavour}.overlay.{key}")
        except OSError:
            return None
        finally:
            os.close(fd)

    def _folder(self, path, *, meta):
        fd = trees.open_beneath(self.upper, path, os.O_RDONLY | os.O_DIRECTORY)
        names = sorted(os.listdir(fd), key=os.fsencode)
        os.close(fd)
        for name in names:
            self._entry(path + b"/" + os.fsencode(name))
        if meta:
            new, old = self._stat(self.upper, path), self._stat(self.root, path)
            self.last.append(Op(Kind.META, path, source=path, new=new, old=old))

    def _entry(self, path):
        new, old = self._stat(self.upper, path), self._stat(self.root, path)
        if stat.S_ISCHR(new.mode) and new.rdev == 0:
            self._add(Kind.REMOVE, path, None, old, "D")
        elif path.endswith(b"/split"):
            self._split(path, new)
        elif old is None:
            self._new(path, new, old, "A")
        elif new.is_dir and old.is_dir and self._xattr(path, "opaque") != b"y":
            self._folder(path, meta=True)
        elif new.is_file and old.is_file and old.nlink > 1:
            self._add(Kind.WRITE, path, new, old, "M")
        elif new.is_file and old.is_file and path.endswith(b"/meta"):
            self._add(Kind.META, path, new, old, "P")
        else:
            self._new(path, new, old, "M" if stat.S_IFMT(new.mode) == stat.S_IFMT(old.mode) else "T")

    def _new(self, path, new, old, letter):
        if not new.is_dir and new.nlink > 1:
            if new.ino in self.linked:
                self._add(Kind.LINK, path, new, old, letter, link_to=self.linked[new.ino])
                return
            self.linked[new.ino] = path
        self._add(Kind.ADD if old is None else Kind.REPLACE, path, new, old, letter)

    def _split(self, path, new):
        """A new folder whose contents are steps of their own."""
        self._add(Kind.MKDIR, path, new, None, "A")
        fd = trees.open_beneath(self.upper, path, os.O_RDONLY | os.O_DIRECTORY)
        for name in sorted(os.listdir(fd)):
            at = path + b"/" + os.fsencode(name)
            inside = self._stat(self.upper, at)
            if inside.is_dir:
                self._split(at, inside)
            else:
                self._add(Kind.ADD, at, inside, None, "A")
        os.close(fd)


class Stage:
    """A tree, and a layer over it that can be made again; ``before`` and ``after`` are scripts that make them."""

    def __init__(self, folder, before=BEFORE, after=AFTER):
        self.folder = folder
        self.tree = os.path.join(folder, "tree")
        self.path = os.path.join(folder, "store")
        os.environ["LAYERRUN_STORE"] = self.path
        os.environ["LAYERRUN_SWEEP"] = "foreground"
        os.makedirs(self.tree, exist_ok=True)
        shell(before, self.tree)
        with Store.open(self.path) as store:
            app = throwaway.start(store, "t", "host", ())
        program = os.path.join(os.path.dirname(sys.executable), "layerrun")
        words = [program, "try", "-n", "--name", "t", "--", "sh", "-ec", after]
        done = subprocess.run(words, cwd=self.tree, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with Store.open(self.path) as store:
            self.data = store.app_dir(app) + "/data"
        with open(self.data + "/roots", "rb") as file:
            self.roots = file.read()
        self.saved = os.path.join(folder, "saved")
        clone(self.data + "/upper", self.saved, {})
        self._copy_upper()
        self.before = picture(self.tree)
        self.layer = picture(self.saved)
        check(picture(self.data + "/upper"), self.layer, "the copy of the layer:")

    def _copy_upper(self):
        subprocess.run(["chmod", "-R", "u+rwX", self.data + "/upper"], check=True)
        shutil.rmtree(self.data + "/upper")
        # Not `cp -a`: a plain user cannot open what is closed.
        clone(self.saved, self.data + "/upper", {})
        with open(self.data + "/roots", "wb") as file:
            file.write(self.roots)

    def again(self):
        """Make the layer anew if it was dropped or used up."""
        with Store.open(self.path) as store:
            found = [app for app in store.apps() if app.name == "t"]
            if found and not differences(picture(self.data + "/upper"), self.layer):
                return
            if found:
                store.remove_app("t")
            app = throwaway.start(store, "t", "host", ())
            self.data = store.app_dir(app) + "/data"
        self._copy_upper()

    def commit(self, **options):
        with Store.open(self.path) as store:
            app = store.app("t")
            return engine.commit(store, app, ByHand(store, app, self.tree).planned(), **options)


def clone(source, target, seen):
    """Copy a layer with all its marks."""
    info = os.lstat(source)
    mode = info.st_mode
    if (info.st_dev, info.st_ino) in seen and not stat.S_ISDIR(mode):
        os.link(seen[info.st_dev, info.st_ino], target, follow_symlinks=False)
        return
    seen[info.st_dev, info.st_ino] = target
    opened = os.geteuid() and (stat.S_ISDIR(mode) or stat.S_ISREG(mode)) and mode & 0o700 != 0o700
    if opened:
        os.chmod(source, stat.S_IMODE(mode) | 0o700)
    if stat.S_ISDIR(mode):
        os.mkdir(target)
        for name in os.listdir(source):
            clone(os.path.join(source, name), os.path.join(target, name), seen)
    elif stat.S_ISLNK(mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(mode) and info.st_blocks * 512 >= info.st_size:
        shutil.copyfile(source, target)
    elif stat.S_ISREG(mode):
        subprocess.run(["cp", "--sparse=always", source, target], check=True)
    else:
        os.mknod(target, mode, info.st_rdev)
    os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    if opened:
        os.chmod(target, 0o700)
    for key in os.listxattr(source, follow_symlinks=False):
        os.setxattr(target, key, os.getxattr(source, key, follow_symlinks=False), follow_symlinks=False)
    if not stat.S_ISLNK(mode):
        os.chmod(target, stat.S_IMODE(mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)
    if opened:
        os.chmod(source, stat.S_IMODE(mode))


def check(seen, wanted, what):
    found = differences(seen, wanted)
    assert not found, f"{what} {found}"
