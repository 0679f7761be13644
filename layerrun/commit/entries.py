"""Entries of the host and of layers, by folder and name: no link is followed on the way, nor at its end."""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from layerrun.commit.journal import Meta
from layerrun.layers import overlay
from layerrun.layers.delta import Stat
from layerrun.native import settle, trees
from layerrun.native.settle import Mark

__all__ = ["Folders", "apply_meta", "held", "put_on", "read_meta", "split", "stat_of", "take_off"]

_KEEP = 64
_CAPABILITY = "security.capability"
# They belong to the machine: what it says of a place holds for whatever comes there.
_LEFT_ALONE = ("security.selinux", "security.ima", "security.evm")


def split(path: bytes) -> tuple[bytes, bytes]:
    """Return the folder and the name of a relative path."""
    folder, _, name = path.rpartition(b"/")
    return folder, name


def stat_of(dir_fd: int, name: bytes) -> Stat | None:
    """Return what a name in a folder is, ``None`` if nothing is there; ``b""`` is the folder itself."""
    found = settle.look(dir_fd, name)
    return None if found is None else Stat(*found)


class Folders:
    """Folders beneath a root by their paths, the last ones used kept open (``O_PATH``)."""

    def __init__(self, root_fd: int, *, cross_mounts: bool) -> None:
        self.root = root_fd
        self._cross = cross_mounts
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def open(self, path: bytes) -> int:
        """Return a descriptor of a folder, which stays ours; raises `OSError`, such as `FileNotFoundError`."""
        fd = self._open.get(path)
        if fd is not None:
            self._open.move_to_end(path)
            return fd
        try:
            fd = trees.open_beneath(self.root, path, os.O_PATH | os.O_DIRECTORY, cross_mounts=self._cross)
        except OSError as error:
            raise OSError(error.errno or 0, os.strerror(error.errno or 0), "/" + os.fsdecode(path)) from None
        self._open[path] = fd
        if len(self._open) > _KEEP:
            os.close(self._open.popitem(last=False)[1])
        return fd

    def at(self, path: bytes) -> tuple[int, bytes]:
        """Return the folder that a path lies in, and its name there; the root's own name is ``b""``."""
        folder, name = split(path)
        return self.open(folder), name

    def look(self, path: bytes) -> Stat | None:
        """Return what is at a path, ``None`` if nothing is there or on the way."""
        try:
            fd, name = self.at(path)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        return stat_of(fd, name)

    def clear(self) -> None:
        """Forget all: folders were exchanged."""
        for fd in self._open.values():
            os.close(fd)
        self._open.clear()


@contextmanager
def held(dir_fd: int, name: bytes) -> Iterator[tuple[int, str]]:
    """Yield an ``O_PATH`` descriptor of an entry, and a path that leads to just this inode and through no link."""
    if name:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    else:
        fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        yield fd, f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _wanted(key: str) -> bool:
    if key in _LEFT_ALONE:
        return False
    return os.geteuid() == 0 or key.startswith(("user.", "system.posix_acl_"))


def _xattrs(path: str, *, flavour: bool | None = None) -> dict[str, bytes]:
    """Return the attributes that count. What is overlayfs's own is not read: of a closed file its owner may not."""
    try:
        return {
            key: os.getxattr(path, key)
            for key in os.listxattr(path)
            if _wanted(key) and (flavour is None or not overlay.is_private_xattr(key, userxattr=flavour))
        }
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return {}
        raise


def _unescaped(xattrs: dict[str, bytes], *, userxattr: bool) -> dict[str, bytes]:
    """Give the user's attributes that overlayfs has escaped their names back."""
    prefix = overlay.xattr_name("", userxattr=userxattr)
    return {
        prefix + key[len(prefix) + 8 :] if key.startswith(prefix) else key: value
        for key, value in xattrs.items()
    }


def read_meta(
    dir_fd: int, name: bytes, *, flavour: bool | None = None, drop: frozenset[str] = frozenset()
) -> Meta:
    """Return what an entry is apart from its content.

    ``flavour``: of an entry of a layer, whether overlayfs's marks there are those of a plain user.
    """
    with held(dir_fd, name) as (fd, path):
        status = os.fstat(fd)
        xattrs = _xattrs(path, flavour=flavour)
        if flavour is not None:
            xattrs = _unescaped(xattrs, userxattr=flavour)
        mode = status.st_mode
        if "setid" in drop and stat.S_ISREG(mode):
            mode &= ~(stat.S_ISUID | stat.S_ISGID)
        if "caps" in drop:
            xattrs.pop(_CAPABILITY, None)
        return Meta(mode, status.st_uid, status.st_gid, status.st_mtime_ns, xattrs)


def set_mtime(path: str, mtime_ns: int) -> None:
    """Set the time of modification of what a path of `held` leads to, if it is ours to set."""
    status = os.stat(path)
    # A plain user may write into folders of others, such as /tmp, and cannot set their times.
    if status.st_mtime_ns != mtime_ns and os.geteuid() in (0, status.st_uid):
        os.utime(path, ns=(status.st_atime_ns, mtime_ns))


def apply_meta(dir_fd: int, name: bytes, meta: Meta, *, times: bool = True, back: bool = False) -> None:
    """Make an entry what ``meta`` says. The order: chown(2) takes setuid and capabilities away, ACLs change modes.

    ``back``: as it was before. A plain user may not give a file back to a group that they are not in.
    """
    with held(dir_fd, name) as (fd, path):
        status = os.fstat(fd)
        if (status.st_uid, status.st_gid) != (meta.uid, meta.gid):
            try:
                os.chown(path, meta.uid, meta.gid)
            except PermissionError:
                if not back:
                    raise
        if meta.xattrs is not None:
            _set_xattrs(path, meta.xattrs)
        if not stat.S_ISLNK(meta.mode) and os.fstat(fd).st_mode != meta.mode:
            os.chmod(path, stat.S_IMODE(meta.mode))
        if times:
            set_mtime(path, meta.mtime_ns)


def _set_xattrs(path: str, wanted: dict[str, bytes]) -> None:
    there = _xattrs(path)
    with _writable(path, needed=there != wanted):
        for key in there.keys() - wanted.keys():
            os.removexattr(path, key)
        for key, value in wanted.items():
            if there.get(key) != value:
                os.setxattr(path, key, value)


@contextmanager
def _writable(path: str, *, needed: bool = True) -> Iterator[None]:
    """Let the owner write to an entry for a moment: without that a plain user may not set attributes of it."""
    mode = os.stat(path).st_mode
    if not needed or os.geteuid() == 0 or mode & stat.S_IWUSR or stat.S_ISLNK(mode):
        yield
        return
    os.chmod(path, stat.S_IMODE(mode) | stat.S_IWUSR)
    try:
        yield
    finally:
        os.chmod(path, stat.S_IMODE(mode))


def _shown_key(key: str) -> str | None:
    """Return the name that an escaped attribute of the user's has outside; ``None``: it is overlayfs's own."""
    for prefix in ("trusted.overlay.", "user.overlay."):
        if key.startswith(prefix + "overlay."):
            return prefix + key[len(prefix) + 8 :]
    return None


def _by_path(marks: Iterable[Mark]) -> dict[bytes, list[Mark]]:
    found: dict[bytes, list[Mark]] = {}
    for mark in marks:
        found.setdefault(mark.path, []).append(mark)
    return found


@contextmanager
def _inside(dir_fd: int, name: bytes, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the folder and the name of what lies at ``path`` in an entry."""
    if not path:
        yield dir_fd, name
        return
    folder, last = split(name + b"/" + path)
    fd = trees.open_beneath(dir_fd, folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield fd, last
    finally:
        os.close(fd)


def take_off(dir_fd: int, name: bytes, marks: Iterable[Mark]) -> None:
    """Take off an entry what must not be shown; it may have been done in part."""
    for path, some in _by_path(marks).items():
        with _inside(dir_fd, name, path) as (folder, last):
            if some[0].kind == "w":
                with suppress(FileNotFoundError):
                    os.unlink(last, dir_fd=folder)
                continue
            with held(folder, last) as (_, entry), _writable(entry):
                for mark in some:
                    _take_one_off(entry, mark)


def _take_one_off(entry: str, mark: Mark) -> None:
    if mark.kind == "m":
        mode = int.from_bytes(mark.value, "little")
        os.chmod(entry, stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))
    elif mark.kind == "x":
        shown = _shown_key(mark.key)
        if shown is not None:
            os.setxattr(entry, shown, mark.value)
        try:
            os.removexattr(entry, mark.key)
        except OSError as error:
            if error.errno != errno.ENODATA:
                raise


def put_on(dir_fd: int, name: bytes, marks: Iterable[Mark]) -> None:
    """Undo `take_off`; it may have been done in part, or not at all."""
    for path, some in _by_path(marks).items():
        with _inside(dir_fd, name, path) as (folder, last):
            if some[0].kind == "w":
                with suppress(FileExistsError):
                    overlay.make_whiteout(folder, os.fsdecode(last))
                continue
            with held(folder, last) as (_, entry):
                with _writable(entry):
                    for mark in some:
                        _put_one_on(entry, mark)
                for mark in some:
                    if mark.kind in "mk":
                        os.chmod(entry, stat.S_IMODE(int.from_bytes(mark.value, "little")))


def _put_one_on(entry: str, mark: Mark) -> None:
    if mark.kind != "x":
        return
    shown = _shown_key(mark.key)
    if shown is not None:
        with suppress(OSError):
            os.removexattr(entry, shown)
    os.setxattr(entry, mark.key, mark.value)
