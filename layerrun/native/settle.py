"""What a commit does to single entries: csrc/settle.h as Python. Names and paths are ``bytes``."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from layerrun.native import ffi, lib, new_error, raise_error

__all__ = ["Mark", "copy_entry", "look", "marks_in", "names_in", "newer", "refill", "scan"]

_LOOKED = struct.Struct("=5Q3q4I")
_MARK = struct.Struct("=c3I")
_NAME = struct.Struct("=BQI")
_SETID, _CAPS = 1, 2
DROP = {"setid": _SETID, "caps": _CAPS}


class Mark(NamedTuple):
    """Something of an entry that must be changed before it is shown, or known; see csrc/settle.h for the kinds."""

    kind: str
    path: bytes
    key: str
    value: bytes


def look(dir_fd: int, name: bytes) -> tuple[int, ...] | None:
    """Return what `layerrun.layers.delta.Stat` is made of for a name in a folder, ``None`` if nothing is there."""
    record, err = ffi.new("struct lr_looked *"), new_error()
    there = lib.lr_look(dir_fd, name, record, err)
    if there < 0:
        raise_error(err)
    if there == 0:
        return None
    ino, dev, rdev, mount, size, mtime, ctime, btime, mode, uid, gid, nlink = _LOOKED.unpack(
        ffi.buffer(record)
    )
    return (mode, uid, gid, rdev, ino, dev, mount, nlink, size, mtime, ctime, btime)


def _taken(found: Any) -> tuple[bytes, bytes, int]:
    try:
        return (
            bytes(ffi.buffer(found.marks, found.marks_size)) if found.marks_size else b"",
            bytes(ffi.buffer(found.names, found.names_size)) if found.names_size else b"",
            int(found.count),
        )
    finally:
        lib.lr_found_free(found)


def scan(dir_fd: int, name: bytes, *, userxattr: bool, drop: frozenset[str]) -> tuple[bytes, bytes, int]:
    """Return marks and names of an entry with all beneath it, for `marks_in` and `names_in`, and how many names."""
    found, err = ffi.new("struct lr_found *"), new_error()
    if lib.lr_scan(dir_fd, name, userxattr, sum(DROP[word] for word in drop), found, err) < 0:
        raise_error(err)
    return _taken(found)


def marks_in(data: bytes) -> Iterator[Mark]:
    """Yield the marks of a scan."""
    at = 0
    while at < len(data):
        kind, path, key, value = _MARK.unpack_from(data, at)
        at += _MARK.size
        ends = (at + path, at + path + key, at + path + key + value)
        yield Mark(
            kind.decode(),
            data[at : ends[0]],
            data[ends[0] : ends[1]].decode("utf-8", "surrogateescape"),
            data[ends[1] : ends[2]],
        )
        at = ends[2]


def names_in(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the names of a scan: type (``d_type`` of readdir(3)), size in bytes, path."""
    at = 0
    while at < len(data):
        kind, size, length = _NAME.unpack_from(data, at)
        at += _NAME.size
        yield kind, size, data[at : at + length]
        at += length


def newer(dir_fd: int, name: bytes, since: int, most: int) -> list[tuple[bytes, int]]:
    """Return what has changed after ``since`` (ns) in an entry: paths with the times of change, at most ``most``."""
    found, err = ffi.new("struct lr_found *"), new_error()
    if lib.lr_newer(dir_fd, name, since, most, found, err) < 0:
        raise_error(err)
    return [(path, changed) for _, changed, path in names_in(_taken(found)[1])]


def copy_entry(
    src_fd: int,
    name: bytes,
    dst_fd: int,
    new: bytes,
    *,
    owners: bool,
    userxattr: bool,
    drop: frozenset[str] = frozenset(),
) -> None:
    """Copy an entry of a layer or of the host, with all in it, to a new name, as it is to be shown."""
    flags = (
        lib.LR_COPY_OWNERS * owners
        + lib.LR_COPY_SETID * ("setid" not in drop)
        + lib.LR_COPY_CAPS * ("caps" not in drop)
        + lib.LR_COPY_USERXATTR * userxattr
    )
    err = new_error()
    if lib.lr_copy_entry(src_fd, name, dst_fd, new, flags, err) < 0:
        raise_error(err)


def refill(src_fd: int, dst_fd: int) -> None:
    """Make the content of one open file that of another, holes kept."""
    err = new_error()
    if lib.lr_refill(src_fd, dst_fd, err) < 0:
        raise_error(err)
