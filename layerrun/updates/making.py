"""The making of a delta, by a process that may read both trees."""

from __future__ import annotations

import hashlib
import lzma
import os
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import attrs

from layerrun.errors import ArchiveError, UsageError
from layerrun.images.prefixed import pack, patch
from layerrun.updates import listing
from layerrun.updates.deltafile import BLOCK, WINDOW, Frame, Head, Packed, pack_head
from layerrun.updates.pairing import Pairing
from layerrun.updates.sides import Side, read_at, write_all

__all__ = ["AHEAD", "make_here"]

# What the pipe gets that is told how far it is: bytes.
AHEAD = struct.Struct("<Q")

# Small files share a frame, up to this many new bytes: they compress better beside each other.
_GROUP = 4 << 20
_CHUNK = 1 << 20
# A patch must be this much smaller than the file compressed alone, else the old file is no help.
_WORTH = 0.9
# How that is found out: at a level that finds what lies far apart, and on the first part of big files.
_QUICK = 9
_SAMPLE = 1 << 20
# From this level on what is new is tried with xz as well.
_PATIENT = 16
_XZ_DICTIONARY = 16 << 20
_ENTRIES = 2_000_000
_THREADS = 2


def make_here(handed: Sequence[int], said: dict[str, Any], level: int) -> list[int]:
    """Write a delta; return how many contents it brings as patches, and how many as they are.

    ``handed``: the folders of the old and of the new base, a pipe that is told how many bytes of the new one are done
    (`AHEAD`), the file to write, and four empty files to work in.
    ``said`` are the fields of the head that the catalog knows.
    """
    old_fd, new_fd, ahead, out, patches, raw, first, second = handed
    sides: list[Side] = []
    try:
        for fd, digest in ((old_fd, said["old"]), (new_fd, said["new"])):
            sides.append(Side(fd, digest))
        work = _Work(sides[0], sides[1], (patches, raw, ahead), level)
        index = work.run()
        times, times_packed = _pack(work.extras(), level)
        parts, parts_packed = _pack(index, level)
        frames, frames_packed = _listing(sides[0].manifest, sides[1].manifest, level)
        fresh, fresh_fd = _fresh(raw, first, second, level)
        patched = os.fstat(patches).st_size
        head = Head(listing=frames, extras=times, index=parts, patches=patched, fresh=fresh, **said)
        _join(out, [pack_head(head), frames_packed, times_packed, parts_packed], [patches, fresh_fd])
        return [work.patched, work.fresh]
    finally:
        for side in sides:
            side.close()


def _entries(side: Side) -> list[listing.Entry]:
    try:
        return list(listing.entries(side.manifest, _ENTRIES))
    except ArchiveError as error:
        raise UsageError(f"there can be no delta of this base: {error}") from None


@attrs.frozen
class _Piece:
    """A frame to be made: of ``data``, with the ``prefix`` that begins at ``start`` of the stream of sources."""

    data: bytes
    prefix: bytes
    start: int


class _Work:
    """The contents that the new tree has and the old has not, in the order in which they come first."""

    def __init__(self, old: Side, new: Side, files: tuple[int, int, int], level: int) -> None:
        self._old, self._new = old, new
        self._patches, self._raw, self._ahead = files
        self._level = level
        self._done = self._told = 0
        self._old_entries, self._new_entries = _entries(old), _entries(new)
        self.patched = self.fresh = 0
        self._lines: list[str] = []
        self._sources = 0  # bytes in the stream of sources so far
        self._group: list[tuple[bytes, bytes]] = []
        self._held = self._needed = 0  # bytes of the group, and of its sources

    def run(self) -> bytes:
        """Write the frames of patches and what is fresh to their files; return the index."""
        frames = []
        with ThreadPoolExecutor(_THREADS) as pool, os.fdopen(os.dup(self._patches), "wb") as file:
            for piece, packed in _in_order(
                pool, self._pieces(), lambda one: patch(one.data, one.prefix, self._level)
            ):
                frames.append(f"f {len(packed)} {len(piece.data)} {piece.start} {len(piece.prefix)}")
                file.write(packed)
        return "".join(line + "\n" for line in self._lines + frames).encode("ascii")

    def extras(self) -> bytes:
        """Return a line for each entry of the new tree: what the manifest does not say."""
        numbers = {entry.path: number for number, entry in enumerate(self._new_entries)}
        first: dict[bytes, int] = {}
        lines = []
        for number, entry in enumerate(self._new_entries):
            group = self._new.group(entry.path)
            if entry.kind == "f" and group in numbers:
                earlier = first.setdefault(group, number)
                if earlier != number:
                    lines.append(f"@{earlier}")
                    continue
            when = self._new.mtime(entry.path)
            if when is None or when == self._old.mtime(entry.path):
                lines.append("=")
            else:
                seconds, rest = divmod(when, 10**9)
                lines.append(f"{seconds}.{rest:09}" if rest else f"{seconds}")
        return "".join(line + "\n" for line in lines).encode("ascii")

    def _pieces(self) -> Iterator[_Piece]:
        numbers = {entry.path: number for number, entry in enumerate(self._old_entries)}
        digests = {entry.path: entry.value for entry in self._old_entries if entry.kind == "f"}
        pairing = Pairing({path: self._old.size(path) for path in digests})
        seen = set(digests.values())
        for entry in self._new_entries:
            if entry.kind != "f":
                continue
            size = self._new.size(entry.path)
            self._tell(size)
            if entry.value in seen:
                continue
            seen.add(entry.value)
            self._new.verify(entry.path, entry.value)
            source = pairing.source(entry.path, size)
            if source is not None and self._helps(entry.path, size, source):
                self._old.verify(source, digests[source])
                self.patched += 1
                self._lines.append(f"p {size} {numbers[source]} {self._old.size(source)}")
                yield from self._patched(entry.path, size, source)
            else:
                self.fresh += 1
                self._lines.append(f"n {size}")
                self._append(entry.path, size)
        yield from self._flush()

    def _tell(self, size: int) -> None:
        self._done += size
        if self._done - self._told > _CHUNK:
            self._told = self._done
            os.write(self._ahead, AHEAD.pack(self._done))

    def _helps(self, path: bytes, size: int, source: bytes) -> bool:
        """Say whether a source makes a file smaller; of big files the first part speaks for all."""
        data = self._new.read(path, 0, min(size, _SAMPLE))
        prefix = self._old.read(source, 0, min(self._old.size(source), 4 * _SAMPLE))
        alone = len(patch(data, b"", _QUICK))
        return bool(prefix) and len(patch(data, prefix, _QUICK)) < alone * _WORTH

    def _patched(self, path: bytes, size: int, source: bytes) -> Iterator[_Piece]:
        before = self._old.size(source)
        if size > BLOCK or before > WINDOW // 2:
            yield from self._flush()
            yield from self._big(path, size, source, before)
            return
        if self._held + size > _GROUP or self._needed + before > WINDOW // 2:
            yield from self._flush()
        self._group.append((path, source))
        self._held += size
        self._needed += before

    def _flush(self) -> Iterator[_Piece]:
        if self._group:
            data = b"".join(self._new.read(path, 0, self._new.size(path)) for path, _ in self._group)
            prefix = b"".join(self._old.read(path, 0, self._old.size(path)) for _, path in self._group)
            self._group, self._held, self._needed = [], 0, 0
            yield _Piece(data, prefix, self._sources)
            self._sources += len(prefix)

    def _big(self, path: bytes, size: int, source: bytes, before: int) -> Iterator[_Piece]:
        """Cut a big file into blocks, each with what lies around the same place of its source."""
        for data_at, length, at, reach in _blocks(size, before):
            yield _Piece(
                self._new.read(path, data_at, length), self._old.read(source, at, reach), self._sources + at
            )
        self._sources += before

    def _append(self, path: bytes, size: int) -> None:
        for at in range(0, size, _CHUNK):
            write_all(self._raw, self._new.read(path, at, min(_CHUNK, size - at)))


def _blocks(size: int, before: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield blocks of ``size`` bytes: where, how long, and the part of ``before`` old bytes that serves each."""
    for at in range(0, size, BLOCK):
        length = min(BLOCK, size - at)
        start = max(0, min(at - (WINDOW - BLOCK) // 2, before - WINDOW))
        yield at, length, start, min(WINDOW, before - start)


def _in_order(
    pool: ThreadPoolExecutor, pieces: Iterator[_Piece], work: Callable[[_Piece], bytes]
) -> Iterator[tuple[_Piece, bytes]]:
    """Yield each piece with what came of it, a few of them ahead of the caller: what waits is bounded."""
    waiting: deque[tuple[_Piece, Future[bytes]]] = deque()
    for piece in pieces:
        waiting.append((piece, pool.submit(work, piece)))
        if len(waiting) > _THREADS:
            done, packed = waiting.popleft()
            yield done, packed.result()
    for done, packed in waiting:
        yield done, packed.result()


def _listing(old: bytes, new: bytes, level: int) -> tuple[tuple[Frame, ...], bytes]:
    frames, parts = [], []
    for at, length, start, reach in _blocks(len(new), len(old)):
        packed = patch(new[at : at + length], old[start : start + reach], level)
        frames.append(Frame(len(packed), length, start, reach))
        parts.append(packed)
    return tuple(frames), b"".join(parts)


def _pack(data: bytes, level: int) -> tuple[Packed, bytes]:
    """Compress what is held in memory, by whatever makes it smaller."""
    found = [("zstd", patch(data, b"", level))]
    if level >= _PATIENT:
        found.append(("xz", lzma.compress(data, preset=6)))
    codec, packed = min(found, key=lambda one: len(one[1]))
    return Packed(codec, len(packed), len(data)), packed


def _fresh(raw: int, first: int, second: int, level: int) -> tuple[Packed, int]:
    """Compress the file ``raw`` into one of the two others, by whatever makes it smaller; return which."""
    size = os.fstat(raw).st_size
    pack(_chunks(raw, size), first, level, size)
    found = [("zstd", first)]
    if level >= _PATIENT and size:
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": _XZ_DICTIONARY}]
        work = lzma.LZMACompressor(lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)
        for data in _chunks(raw, size):
            write_all(second, work.compress(data))
        write_all(second, work.flush())
        found.append(("xz", second))
    codec, fd = min(found, key=lambda one: os.fstat(one[1]).st_size)
    return Packed(codec, os.fstat(fd).st_size, size), fd


def _join(out: int, parts: Sequence[bytes], files: Sequence[int]) -> None:
    digest = hashlib.sha256()
    for data in parts:
        digest.update(data)
        write_all(out, data)
    for fd in files:
        for data in _chunks(fd, os.fstat(fd).st_size):
            digest.update(data)
            write_all(out, data)
    write_all(out, digest.digest())


def _chunks(fd: int, size: int) -> Iterator[bytes]:
    for at in range(0, size, _CHUNK):
        yield read_at(fd, at, min(_CHUNK, size - at))
