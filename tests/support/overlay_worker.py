"""Runs in a mount namespace of its own and does on real overlays what `support.overlays` asks for.

Its text is given to ``python -c``, since a plain user may not be able to read the checkout. One JSON request a
line on stdin, one JSON answer a line on stdout.
"""

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
import socket
import stat
import sys
import tempfile
import traceback

libc = ctypes.CDLL(None, use_errno=True)
OVERLAY = ("trusted.overlay.", "user.overlay.")


def mount(target, options):
    if libc.mount(b"overlay", os.fsencode(target), b"overlay", 0, os.fsencode(options)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), options)


def opener(path, flags):
    """Never wait for a fifo's other end."""
    return os.open(path, flags | os.O_NONBLOCK, 0o666)


def umount(target):
    if libc.umount2(os.fsencode(target), 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def entry(path, follow=False):
    """What counts of an entry, in a form that JSON keeps."""
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    content = None
    if stat.S_ISREG(kind):
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
    elif stat.S_ISLNK(kind):
        content = os.readlink(path)
    elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        content = status.st_rdev
    xattrs = {}
    for name in os.listxattr(path, follow_symlinks=False):
        xattrs[name] = os.getxattr(path, name, follow_symlinks=False).hex()
    mode = 0 if stat.S_ISLNK(kind) else stat.S_IMODE(status.st_mode)
    time = 0 if stat.S_ISDIR(kind) else status.st_mtime_ns
    size = status.st_size if stat.S_ISREG(kind) else 0
    return [kind, content, [mode, status.st_uid, status.st_gid, time, xattrs], size]


def snapshot(top):
    found = {"": entry(top)}
    for folder, dirs, files in os.walk(top):
        for name in dirs + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, top)] = entry(path)
    return found


class Operations:
    """What may be done in a tree; paths are relative to it."""

    def __init__(self, top):
        self.top = top

    def at(self, path):
        return os.path.join(self.top, path)

    def file(self, path, text="", time=None):
        with open(self.at(path), "w", opener=opener) as file:
            file.write(text)
        if time is not None:
            os.utime(self.at(path), ns=(time, time))

    def append(self, path, text):
        with open(self.at(path), "a", opener=opener) as file:
            file.write(text)

    def big(self, path, size, at, text):
        with open(self.at(path), "a+b") as file:
            file.truncate(size)
        with open(self.at(path), "r+b") as file:
            file.seek(at)
            file.write(text.encode())

    def dir(self, path, mode=0o755):
        os.mkdir(self.at(path))
        os.chmod(self.at(path), mode)

    def symlink(self, path, target="target"):
        os.symlink(target, self.at(path))

    def fifo(self, path):
        os.mkfifo(self.at(path))

    def socket(self, path):
        # A socket's address is short: go there first.
        here = os.getcwd()
        os.chdir(os.path.dirname(self.at(path)))
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as made:
                made.bind(os.path.basename(path))
        finally:
            os.chdir(here)

    def char(self, path, major=1, minor=3):
        os.mknod(self.at(path), stat.S_IFCHR | 0o644, os.makedev(major, minor))

    def whiteout(self, path):
        os.mknod(self.at(path), stat.S_IFCHR, 0)

    def remove(self, path):
        path = self.at(path)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)

    def rename(self, path, to):
        os.rename(self.at(path), self.at(to))

    def move(self, path, to):
        shutil.move(self.at(path), self.at(to))

    def link(self, path, to):
        os.link(self.at(path), self.at(to), follow_symlinks=False)

    def chmod(self, path, mode):
        os.chmod(self.at(path), mode)

    def chown(self, path, uid, gid):
        os.chown(self.at(path), uid, gid, follow_symlinks=False)

    def touch(self, path, time):
        os.utime(self.at(path), ns=(time, time), follow_symlinks=False)

    def xattr(self, path, name, value):
        os.setxattr(self.at(path), name, value.encode(), follow_symlinks=False)

    def unxattr(self, path, name):
        os.removexattr(self.at(path), name)

    def truncate(self, path, size):
        os.truncate(self.at(path), size)

    def times(self, path, atime, mtime):
        os.utime(self.at(path), ns=(atime, mtime), follow_symlinks=False)

    def bytes_xattr(self, path, name, value):
        os.setxattr(self.at(path), name, bytes.fromhex(value), follow_symlinks=False)

    def rmdir(self, path):
        os.rmdir(self.at(path))

    def unlink(self, path):
        os.unlink(self.at(path))

    def run(self, operations, strict):
        done = 0
        for name, *args in operations:
            try:
                getattr(self, name)(*args)
                done += 1
            except (OSError, shutil.Error):
                if strict:
                    raise
        return done


def upper_kind(path, userxattr):
    """Say how an upper holds an entry: the row of the case grid."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return "absent"
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFCHR and status.st_rdev == 0:
        return "whiteout"
    if kind == stat.S_IFDIR:
        with contextlib.suppress(OSError):
            if os.getxattr(path, ("user" if userxattr else "trusted") + ".overlay.opaque") == b"y":
                return "opaque"
    return {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}.get(kind, "special")


def handle(request):
    from layerrun.layers import diff, restore
    from layerrun.native import trees

    userxattr = request["userxattr"]
    strict = request["strict"]
    answer = {}
    top = tempfile.mkdtemp(dir=request["folder"])
    os.chdir(top)
    os.mkdir("lower")
    Operations("lower").run(request["lower"], strict)
    lowers = ["lower"]
    answer["before"] = snapshot("lower")

    def mounted(names, upper, number):
        os.makedirs(f"work{number}", exist_ok=True)
        os.makedirs("merged", exist_ok=True)
        options = "index=off,metacopy=off,xino=off" + (
            ",userxattr" if userxattr else ",redirect_dir=nofollow"
        )
        mount("merged", f"lowerdir={':'.join(names)},upperdir={upper},workdir=work{number},{options}")

    def opened(names):
        return [os.open(name, os.O_PATH | os.O_DIRECTORY) for name in names]

    answer["done"] = []
    for number, operations in enumerate(request["generations"]):
        upper = f"upper{number}"
        os.mkdir(upper)
        if operations and operations[0][0] == "planted":
            Operations(upper).run(operations.pop(0)[1], strict)
        mounted(lowers, upper, number)
        try:
            answer["before"] = snapshot("merged")
            answer["done"].append(Operations("merged").run(operations, strict))
            answer["after"] = snapshot("merged")
        finally:
            umount("merged")
        lowers.insert(0, upper)
    upper, *beneath = lowers
    answer["kinds"] = {path: upper_kind(os.path.join(upper, path), userxattr) for path in request["kinds"]}
    fd, *lower_fds = opened(lowers)
    options = {key: request[key] for key in ("skip", "roots") if key in request}
    answer["diff"] = [
        [c.change, c.path, c.type, c.size, c.old_type, c.old_size]
        for c in diff.diff_upper(fd, lower_fds, userxattr=userxattr, **options)
    ]
    if "globs" in request:
        os.mkdir("trash")
        trash = os.open("trash", os.O_PATH)
        answer["restored"] = restore.restore_paths(
            fd, lower_fds, request["globs"], trash, userxattr=userxattr
        )
        os.close(trash)
        mounted(beneath, upper, len(beneath))
        try:
            answer["restored_tree"] = snapshot("merged")
        finally:
            umount("merged")
        answer["diff_after"] = [
            [c.change, c.path] for c in diff.diff_upper(fd, lower_fds, userxattr=userxattr, **options)
        ]
    for each in (fd, *lower_fds):
        os.close(each)
    answer["descriptors"] = len(os.listdir("/proc/self/fd"))
    os.chdir("/")
    parent = os.open(os.path.dirname(top), os.O_RDONLY)
    trees.remove_tree(parent, os.fsencode(os.path.basename(top)))
    os.close(parent)
    answer["left"] = os.path.lexists(top)
    return answer


def main():
    os.umask(0o022)
    for line in sys.stdin:
        try:
            answer = handle(json.loads(line))
        except Exception:  # noqa: BLE001  (the answer says so)
            answer = {"error": traceback.format_exc()}
            os.chdir("/")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
