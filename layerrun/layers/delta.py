"""What an upper changes, in full: `layerrun.layers.diff` with all that a commit must know of both sides."""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Delta", "Stat", "unpack"]

# As in csrc/wide.c: a length, the record, the path.
_LENGTH = struct.Struct("=I")
_DELTA = struct.Struct("=2BhqQ4I5Q4q4I5Q4q")


class Stat(NamedTuple):
    """An entry as statx(2) shows it. Times are nanoseconds since the epoch; ``btime_ns`` is 0 where it is not known.

    ``mount`` is the id of the mount that it lies on.
    """

    mode: int
    uid: int
    gid: int
    rdev: int
    ino: int
    dev: int
    mount: int
    nlink: int
    size: int
    mtime_ns: int
    ctime_ns: int
    btime_ns: int
    atime_ns: int = 0

    @property
    def is_dir(self) -> bool:
        """Whether it is a folder."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)


class Delta(NamedTuple):
    """A difference between an upper and what lies beneath it, or an entry of the upper that is none.

    Attributes:
        letter: A, M, D, T or P as of `layerrun.changes.Change`; ``=`` is an upper's entry that equals what lies
            beneath. A folder that both have is given even where only its time of modification is another, as ``=``.
        path: relative to the root, in the bytes of the file system; the root itself is ``b""``.
        new: what the upper has; ``None`` where it deletes.
        old: what lies beneath; ``None`` where there is nothing.
        lower: the number of the lower that has ``old``, 0 the topmost; -1 where there is none.
        origin: the upper's entry was copied up from a lower (overlayfs noted so).
        marked: it has attributes of overlayfs's own, which must go before it is shown to anybody.
        capable: it has a file capability (security.capability).
        within: it lies in a folder that has nothing beneath it: it comes and goes with that folder.
        since_ns: when it came into the upper, by the clock that the kernel gives files: of a copy-up, a new entry or a
            whiteout the birth; of what an opaque folder hides, that folder's birth. 0: not known.
        origin_other: ``origin`` is set and names another inode than ``old``: something else lies there since.
        origin_ino: the inode number that ``origin`` names; 0 where that is not known.
        root: a folder that layerrun made (a mount point, the root): its metadata say nothing.
    """

    letter: str
    path: bytes
    new: Stat | None
    old: Stat | None
    lower: int
    origin: bool
    marked: bool
    capable: bool
    within: bool
    since_ns: int = 0
    origin_other: bool = False
    origin_ino: int = 0
    root: bool = False


def unpack(data: bytes) -> Iterator[Delta]:
    """Yield what a run of the records of `layerrun.native.trees.deltas` says."""
    at = 0
    while at < len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        letter, flags, lower, since, origin, *sides = _DELTA.unpack_from(data, at)
        path = data[at + _DELTA.size : at + length]
        at += length
        yield Delta(
            letter=chr(letter),
            path=path,
            new=_stat(sides[:13]) if flags & 1 else None,
            old=_stat(sides[13:]) if flags & 2 else None,
            lower=lower,
            origin=bool(flags & 4),
            marked=bool(flags & 16),
            capable=bool(flags & 32),
            within=bool(flags & 64),
            since_ns=since,
            origin_other=bool(flags & 8),
            origin_ino=origin,
            root=bool(flags & 128),
        )


def _stat(side: list[int]) -> Stat:
    mode, uid, gid, nlink, rdev, dev, ino, mount, size, mtime, ctime, btime, atime = side
    return Stat(mode, uid, gid, rdev, ino, dev, mount, nlink, size, mtime, ctime, btime, atime)
