"""Walking, listing, copying, comparing and removing trees: csrc/tree.h as Python.

Every tree is hostile input: nothing here follows a link, crosses a mount, waits for a fifo or
minds the depth of folders, the number of entries and the bytes of names. Names and paths are
``bytes``; paths are relative to the folder given. Failures raise `layerrun.errors.SystemError`.
Folders are given as descriptors (``O_PATH`` will do).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from layerrun.native import ffi, lib, new_error, raise_error

__all__ = [
    "CopyStats",
    "Entry",
    "Usage",
    "copy_tree",
    "deltas",
    "list_tree",
    "open_beneath",
    "remove_in_background",
    "remove_tree",
    "type_name",
    "usage",
]

_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}
_ENTRY = struct.Struct("=12I q2Q")
_LENGTH = struct.Struct("=I")
_PAIR = struct.Struct("=2I")


class Entry(NamedTuple):
    """An entry of a tree, as lstat(2) and listxattr(2) show it.

    ``type`` is one of the values of `layerrun.changes.FileType`; ``mode`` has the permission bits and
    the type; ``size`` is in bytes; ``rdev`` and ``dev`` are as from `os.makedev`; ``link_target`` is
    empty unless it is a symbolic link; ``xattrs`` is sorted by key.
    """

    path: bytes
    type: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    rdev: int
    ino: int
    dev: int
    nlink: int
    link_target: bytes
    xattrs: dict[bytes, bytes]


class CopyStats(NamedTuple):
    """What was copied, and how much was left out; see struct lr_copied in csrc/tree.h."""

    entries: int
    bytes: int
    sockets: int
    devices: int
    xattrs: int


class Usage(NamedTuple):
    """How much is in a folder.

    ``entries`` names beneath it; ``apparent`` bytes in regular files and link targets;
    ``allocated`` bytes of disk, folders and the folder itself included. Hard links count once.
    """

    entries: int
    apparent: int
    allocated: int


def type_name(mode: int) -> str:
    """Return the name of a mode's type, a value of `layerrun.changes.FileType`."""
    return _TYPES[stat.S_IFMT(mode)]


def remove_tree(dir_fd: int, name: bytes) -> None:
    """Remove ``name`` in a folder with all beneath it; if it is not there, that is fine.

    Folders without permissions are given them. What has a mount on it is refused (EBUSY). Several
    removers may work on one tree.
    """
    err = new_error()
    if lib.lr_remove(dir_fd, _text(name), err) < 0:
        raise_error(err)


def remove_in_background(dir_fd: int, name: bytes) -> None:
    """Let a detached process of low priority do `remove_tree`; return as soon as it runs."""
    err = new_error()
    if lib.lr_remove_background(dir_fd, _text(name), err) < 0:
        raise_error(err)


def copy_tree(src_fd: int, dst_fd: int, *, owners: bool, devices: bool = True) -> CopyStats:
    """Copy all beneath a folder into an empty one, and the folder's own metadata with it.

    Kept: content (by reflink where the file system can), holes, modes, times, hard links, extended
    attributes with ACLs and capabilities, owners if asked. Never taken over: overlayfs's own
    attributes. Left out: sockets; with ``devices=False`` the device nodes that may not be made;
    without owners such attributes as may not be set. What is mounted in the tree is not copied: a
    folder arrives empty, anything else is refused (EXDEV).
    """
    err, copied = new_error(), ffi.new("struct lr_copied *")
    if lib.lr_copy(src_fd, dst_fd, owners, devices, copied, err) < 0:
        raise_error(err)
    return CopyStats(copied.entries, copied.bytes, copied.sockets, copied.devices, copied.xattrs)


def usage(fd: int) -> Usage:
    """Return how much is in a folder; what vanishes meanwhile is not counted."""
    err, found = new_error(), ffi.new("struct lr_usage *")
    if lib.lr_usage(fd, found, err) < 0:
        raise_error(err)
    return Usage(found.entries, found.apparent, found.allocated)


def open_beneath(
    root_fd: int, path: bytes, flags: int, mode: int = 0o600, *, cross_mounts: bool = False
) -> int:
    """Open a path of any length beneath a folder: no link, no ``..``, no other mount on the way.

    ``O_CLOEXEC``, ``O_NOFOLLOW`` and, without ``O_PATH``, ``O_NONBLOCK`` are added to ``flags``;
    ``mode`` is for ``O_CREAT``; ``cross_mounts`` lifts the last rule. The empty path is the folder
    itself. See openat2(2).
    """
    err = new_error()
    fd: int = lib.lr_open_beneath(root_fd, _text(path), flags, mode, cross_mounts, err)
    if fd < 0:
        raise_error(err)
    return fd


def list_tree(fd: int, *, xattrs: bool = True) -> Iterator[Entry]:
    """Yield all beneath a folder: a folder before what is in it, names in bytewise order.

    ``xattrs=False`` saves a system call for each entry and leaves them empty.
    """
    err = new_error()
    handle = lib.lr_list_open(fd, xattrs, err)
    if handle == ffi.NULL:
        raise_error(err)
    try:
        for data in _runs(lib.lr_list_next, handle, err):
            yield from _entries(data)
    finally:
        lib.lr_list_close(handle)


def deltas(
    upper_fd: int,
    lower_fds: Sequence[int],
    *,
    userxattr: bool,
    skip: Sequence[bytes] = (),
    roots: Sequence[bytes] = (),
    cross_mounts: bool = False,
) -> Iterator[bytes]:
    """Yield runs of records (`layerrun.layers.delta` unpacks them): every entry of an upper and everything it hides.

    The lowers are merged, top first; the order is that of `list_tree`. What counts as a change is said in
    `layerrun.layers.diff`. ``userxattr`` is the store's flavour of overlayfs attributes. Entries in ``skip`` are
    left out with all beneath them; of those in ``roots`` metadata do not count (``b""`` is the root).
    ``cross_mounts``: there may be mounts in the lowest lower; otherwise meeting one is an error (EXDEV).
    """
    # cffi keeps nothing alive that C points to: these names do, until the walk is closed.
    skips = [ffi.new("char[]", _text(path)) for path in sorted(skip)]
    marked = [ffi.new("char[]", _text(path)) for path in sorted(roots)]
    skip_array, root_array = ffi.new("const char *[]", skips), ffi.new("const char *[]", marked)
    options = ffi.new(
        "struct lr_diff_options *",
        (userxattr, cross_mounts, skip_array, len(skips), root_array, len(marked)),
    )
    err = new_error()
    handle = lib.lr_diff_open(upper_fd, list(lower_fds), len(lower_fds), options, err)
    if handle == ffi.NULL:
        raise_error(err)
    try:
        yield from _runs(lib.lr_diff_next, handle, err)
    finally:
        lib.lr_diff_close(handle)


def _text(name: bytes) -> bytes:
    if b"\0" in name:
        raise ValueError("a name cannot hold a NUL byte")
    return name


def _runs(following: Any, handle: Any, err: Any) -> Iterator[bytes]:
    """Yield the runs of records C makes until it has no more."""
    data, size = ffi.new("const char **"), ffi.new("size_t *")
    while True:
        if following(handle, data, size, err) < 0:
            raise_error(err)
        if size[0] == 0:
            return
        yield bytes(ffi.buffer(data[0], size[0]))


def _entries(data: bytes) -> Iterator[Entry]:
    at = 0
    while at < len(data):
        head = _ENTRY.unpack_from(data, at)
        length, mode, uid, gid, major, minor, dev_major, dev_minor, nlink, path, target, _, *rest = head
        mtime, size, ino = rest
        names = at + _ENTRY.size
        more = names + path + target
        at += _LENGTH.size + length
        yield Entry(
            path=data[names : names + path],
            type=type_name(mode),
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            mtime_ns=mtime,
            rdev=os.makedev(major, minor),
            ino=ino,
            dev=os.makedev(dev_major, dev_minor),
            nlink=nlink,
            link_target=data[names + path : more],
            xattrs=_xattrs(data[more:at]) if more < at else {},
        )


def _xattrs(data: bytes) -> dict[bytes, bytes]:
    found = {}
    at = 0
    while at < len(data):
        key, value = _PAIR.unpack_from(data, at)
        at += _PAIR.size
        found[data[at : at + key]] = data[at + key : at + key + value]
        at += key + value
    return found
