"""Where a file has data: by its content, so that it is the same wherever the file lies and however it came there."""

from __future__ import annotations

import errno
import heapq
import os
from collections.abc import Iterator

__all__ = ["LEAST", "parts_of"]

# Bytes: shorter runs of zeros are data. Readers of archives here make holes of the same runs (csrc/tar_io.c).
LEAST = 64 << 10
# Parts of one file: readers hold maps to a limit.
_MOST = 10_000
_ZEROS = bytes(LEAST)


def parts_of(fd: int, size: int) -> list[tuple[int, int]] | None:
    """Return (offset, size) of all parts of a file that are not zeros, ``None`` if that is the whole of it.

    Between them lie holes that begin at a multiple of `LEAST`; of too many the largest stay.
    """
    if size < LEAST:
        return None
    parts: list[tuple[int, int]] = []
    for start, end in _data(fd, size):
        if parts and sum(parts[-1]) == start:
            parts[-1] = parts[-1][0], end - parts[-1][0]
        else:
            parts.append((start, end - start))
    if parts == [(0, size)]:
        return None
    return parts if len(parts) <= _MOST else _joined(parts)


def _data(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield pieces that are not zeros; what the file system knows to be a hole is not read."""
    at = 0
    while at < size:
        at = _next_data(fd, at, size)
        at -= at % LEAST
        piece = os.pread(fd, min(LEAST, size - at), at)
        if not piece:
            return
        if piece != _ZEROS[: len(piece)] or len(piece) < LEAST:
            yield at, at + len(piece)
        at += len(piece)


def _next_data(fd: int, at: int, size: int) -> int:
    try:
        return os.lseek(fd, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            # The rest is a hole: go on with what is behind its last border.
            return max(at, size - size % LEAST)
        return at


def _joined(parts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Keep the largest holes, and of equal ones the first; the others count as data."""

    def hole(number: int) -> tuple[int, int]:
        return parts[number][0] - sum(parts[number - 1]), -number

    kept = set(heapq.nlargest(_MOST - 1, range(1, len(parts)), key=hole))
    found = parts[:1]
    for number, (start, length) in enumerate(parts[1:], 1):
        if number in kept:
            found.append((start, length))
        else:
            found[-1] = found[-1][0], start + length - found[-1][0]
    return found
