"""Which part of a compressed erofs file lies where: the kernel's fs/erofs/zmap.c and erofs_fs.h. It runs in the jail.

A file is cut into *clusters* of one size, each with an entry: where in it a run of data begins, and in which block that
run lies compressed; or how far back the run began that goes on in it. A run ends where the next one begins.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

import attrs

from layerrun.errors import ArchiveError
from layerrun.images.nodes import refuse

__all__ = ["FULL", "PACKED", "Run", "runs_of"]

# Layouts of the data of an inode: an entry takes 8 bytes, or 4 and 2.
FULL, PACKED = 1, 3
_PLAIN, _HEAD, _MORE = 0, 1, 2
# What a map says of itself: entries of 2 bytes, runs of several blocks, and what only the kernel can read.
_TWO_BYTES, _LONG, _LONG_TOO, _INLINE, _INTERLACED = 1, 2, 4, 8, 16
_UNKNOWN = 0xFFFF & ~(_TWO_BYTES | _LONG | _LONG_TOO | _INLINE | _INTERLACED)
# In the place of a distance: how many blocks the run takes.
_COUNT = 1 << 11
_MOST = 1 << 22

Read = Callable[[int, int], bytes]


@attrs.frozen
class Run:
    """Bytes ``start`` to ``end`` of a file: ``length`` bytes at ``place``, compressed by LZ4 unless ``plain``.

    ``turned``: of a plain one, the bytes in the block begin where they do in the file's block.
    """

    start: int
    end: int
    place: int
    length: int
    plain: bool
    turned: bool


@attrs.frozen
class _Entry:
    kind: int
    offset: int = 0
    block: int = 0
    count: int = 0


def runs_of(read: Read, behind: int, layout: int, size: int, bits: int) -> Iterator[Run]:
    """Yield the runs of a file of ``size`` bytes, whose map lies ``behind`` its inode; a block has 1 << ``bits``."""
    at = behind + 7 & ~7
    inline, advise, kinds, shift = struct.unpack("<2xHHBB", read(at, 8))
    if advise & _UNKNOWN or kinds or shift & 0x80:
        raise ArchiveError(
            "the image is compressed in a way that only the kernel can read",
            hint="unpack it by fsck.erofs --extract, and import the folder",
        )
    cluster = bits + (shift & 7)
    total = (size + (1 << cluster) - 1) >> cluster
    if total > _MOST:
        refuse("has a file that is too large")
    long = bool(advise & _LONG)
    if layout == FULL:
        entries, after = _full(read(at + 16, total * 8)), at + 16 + total * 8
    else:
        if cluster > (12 if advise & _TWO_BYTES else 14):
            refuse("has a map of a strange size")
        entries, after = _packed(read, at + 8, total, cluster, two=bool(advise & _TWO_BYTES), long=long)
    heads = [number for number, entry in enumerate(entries) if entry.kind != _MORE]
    if total and heads[:1] != [0]:
        refuse("has a map that begins with nothing")
    starts = [(number << cluster) + entries[number].offset for number in heads]
    for number, start, end in zip(heads, starts, [*starts[1:], size], strict=True):
        if start == size:
            break  # it says where the file ends
        entry = entries[number]
        follows = entries[number + 1] if number + 1 < total else None
        count = (
            follows.count if long and follows is not None and follows.kind == _MORE and follows.count else 1
        )
        if not start < end <= size or (number == 0 and start):
            refuse("has a map that leads back")
        if end - start > 1 << 24:
            refuse("has a run that is too long")
        place, length = entry.block << bits, count << bits
        if advise & _INLINE and end == size:
            place, length = after, inline  # the last run lies behind the map
        yield Run(start, end, place, length, entry.kind == _PLAIN, bool(advise & _INTERLACED))


def _full(data: bytes) -> list[_Entry]:
    found = []
    for advise, offset, block in struct.iter_unpack("<HHI", data):
        kind = advise & 3
        if kind == _MORE:
            back = block & 0xFFFF
            found.append(_Entry(_MORE, count=back & ~_COUNT if back & _COUNT else 0))
        else:
            found.append(_Entry(kind, offset, block))
    return found


def _packed(
    read: Read, at: int, total: int, cluster: int, *, two: bool, long: bool
) -> tuple[list[_Entry], int]:
    """Read entries in packs: 2 of 4 bytes up to a border of 32 bytes, 16 of 2 bytes, then of 4 again.

    Behind them: where the last pack ends.
    """
    found: list[_Entry] = []
    after = at
    first = (32 - at % 32) // 4 & 7
    middle = (total - first) // 16 * 16 if two and first < total else 0
    while len(found) < total:
        here = len(found)
        small = first <= here < first + middle
        # A pack of two begins at a border of 8 bytes, also where the first entry is its second.
        width, count = (2, 16) if small else (4, 2)
        begin = at % (width * count) // width
        pack = read(at - begin * width, width * count)
        after = at - begin * width + len(pack)
        entries = _pack(pack, count, cluster, long=long)
        for entry in entries[begin : begin + total - here]:
            found.append(entry)
            at += width
    return found, after


def _pack(pack: bytes, count: int, cluster: int, *, long: bool) -> list[_Entry]:
    """Take a pack apart: entries of so many bits, and at its end the block from which those in it count."""
    width = (len(pack) - 4) * 8 // count
    value, (base,) = int.from_bytes(pack[:-4], "little"), struct.unpack("<I", pack[-4:])
    bits = max(cluster, 12)
    low = [value >> width * i & (1 << bits) - 1 for i in range(count)]
    kinds = [value >> width * i + bits & 3 for i in range(count)]
    found = []
    for i in range(count):
        if kinds[i] == _MORE:
            found.append(_Entry(_MORE, count=low[i] & ~_COUNT if low[i] & _COUNT else 0))
        else:
            found.append(_Entry(kinds[i], low[i], (base + _before(low, kinds, i, long=long)) & 0xFFFFFFFF))
    return found


def _before(low: list[int], kinds: list[int], i: int, *, long: bool) -> int:
    """Return how many blocks the runs take that begin in a pack before its entry ``i``."""
    blocks = 0 if long else 1
    while i > 0:
        i -= 1
        if kinds[i] != _MORE:
            blocks += 1
        elif not long:
            i -= low[i]
            blocks += i >= 0
        elif low[i] & _COUNT:
            i -= 1
            blocks += low[i + 1] & ~_COUNT
        else:
            if low[i] <= 1:
                refuse("has a damaged map")
            i -= low[i] - 2
    return blocks
