"""Applying a delta, by a process that may read the old tree. Nothing that the delta says is believed."""

from __future__ import annotations

import hashlib
import os
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import IO, NoReturn

import attrs

from layerrun.images.stream import Record, write_chunk, write_end_of_content, write_record
from layerrun.updates import decoding, deltafile, listing
from layerrun.updates.deltafile import CODECS, Frame, Head, Packed, refuse
from layerrun.updates.known import Known
from layerrun.updates.sides import Side, damaged, write_all

__all__ = ["apply_here"]

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_EXTRA = re.compile(rb"=|@([0-9]{1,10})|(-?[0-9]{1,12})(?:\.([0-9]{9}))?")
_LINE = re.compile(rb"n ([0-9]{1,18})|p ([0-9]{1,18}) ([0-9]{1,10}) ([0-9]{1,18})|f( [0-9]{1,18}){4}")


def apply_here(handed: Sequence[int], scheme: str, entries: int, size: int) -> None:
    """Write the stream of the new base.

    ``handed``: the old base's folder, the delta, where the stream goes, the pipes to and from the jail, an empty file,
    the store's objects. ``scheme`` is what owners on disk mean there, see `layerrun.updates.known`. ``entries`` and
    ``size`` (bytes of content) are what the new base may come to. Raises `ArchiveError`, `DamagedError`, and
    `BrokenPipeError` where nobody takes the stream.
    """
    folder, delta, out, ordering, answering, spool, objects = handed
    head = deltafile.read_head(delta)
    side = Side(folder, head.old)
    try:
        with os.fdopen(os.dup(out), "wb", 1 << 16) as file:
            known = Known(objects, scheme)
            work = _Apply(head, side, _Jail(ordering, answering), known, spool=spool, most=(entries, size))
            work.run(file)
    finally:
        side.close()


class _Jail:
    """The process that decompresses, as seen from outside. What it gives is not believed."""

    def __init__(self, ordering: int, answering: int) -> None:
        self._ordering, self._answering = ordering, answering

    def frame(self, at: int, frame: Frame, prefix: bytes) -> bytes:
        """Return what a frame, which lies at ``at``, makes with its prefix."""
        order = decoding.ORDER.pack(decoding.FRAME, at, frame.packed, frame.size, len(prefix))
        self._send(order + prefix)
        return self.take(frame.size)

    def stream(self, at: int, part: Packed) -> None:
        """Go over to another part that is one long stream."""
        codec = CODECS.index(part.codec)
        self._send(decoding.ORDER.pack(decoding.STREAM, at, part.packed, 0, codec))

    def read(self, size: int) -> bytes:
        """Return the next bytes of that part."""
        self._send(decoding.ORDER.pack(decoding.READ, 0, 0, size, 0))
        return self.take(size)

    def take(self, size: int) -> bytes:
        """Read so many bytes, or refuse the delta."""
        parts = []
        while size:
            data = os.read(self._answering, min(size, _CHUNK))
            if not data:
                refuse("is damaged: it cannot be decompressed")
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._ordering, view) :]
        except BrokenPipeError:
            refuse("is damaged: it cannot be decompressed")


@attrs.frozen
class _Content:
    """A line of the index: of ``size`` bytes, patched or fresh."""

    size: int
    patched: bool


class _Patched:
    """The stream of all patched contents: frames, each with its part of the stream of their sources."""

    def __init__(
        self, jail: _Jail, old: Side, start: int, frames: list[Frame], sources: list[tuple[bytes, int]]
    ) -> None:
        self._jail, self._old, self._at = jail, old, start
        self._frames = iter(frames)
        self._sources = sources
        self._starts = [0]
        for _, size in sources:
            self._starts.append(self._starts[-1] + size)
        self._data, self._done = b"", 0

    def read(self, size: int) -> bytes:
        """Return the next bytes, at least one and at most ``size``."""
        while self._done == len(self._data):
            frame = next(self._frames, None)
            if frame is None:
                refuse("is damaged: its patches end too soon")
            self._data, self._done = self._jail.frame(self._at, frame, self._prefix(frame)), 0
            self._at += frame.packed
        data = self._data[self._done : self._done + size]
        self._done += len(data)
        return data

    def _prefix(self, frame: Frame) -> bytes:
        at, end = frame.start, frame.start + frame.length
        if end > self._starts[-1]:
            refuse("is damaged: a patch leads beyond its source")
        parts = []
        while at < end:
            number = bisect_right(self._starts, at) - 1
            path, size = self._sources[number]
            offset = at - self._starts[number]
            length = min(end - at, size - offset)
            parts.append(self._old.read(path, offset, length))
            at += length
        return b"".join(parts)


class _Apply:
    def __init__(
        self, head: Head, old: Side, jail: _Jail, known: Known, *, spool: int, most: tuple[int, int]
    ) -> None:
        self._head, self._old, self._jail, self._spool, self._objects = head, old, jail, spool, known
        self._most_entries, self._most_size = most
        self._entries = list(listing.entries(self._manifest(), self._most_entries))
        self._extras = self._read_extras()
        before = list(listing.entries(old.manifest, self._most_entries))
        self._known = {entry.value: entry.path for entry in reversed(before) if entry.kind == "f"}
        files = [entry.path if entry.kind == "f" else None for entry in before]
        self._contents, frames, sources = self._read_index(files)
        self._patched = _Patched(jail, old, head.at("patches"), frames, sources)
        jail.stream(head.at("fresh"), head.fresh)
        counts = Counter(entry.value for entry in self._entries if entry.kind == "f")
        self._repeated = {value for value, count in counts.items() if count > 1}
        self._spooled: dict[bytes, tuple[int, int]] = {}
        self._size = 0

    def run(self, out: IO[bytes]) -> None:
        """Write the stream."""
        for number in range(len(self._entries)):
            self._one(out, number)
        if next(self._contents, None) is not None:
            refuse("is damaged: it brings contents that no file has")
        write_record(out, Record("e"))

    def _manifest(self) -> bytes:
        at = self._head.at("listing")
        parts = []
        for frame in self._head.listing:
            if frame.start + frame.length > len(self._old.manifest):
                refuse("is damaged: its listing leads beyond the old one")
            prefix = self._old.manifest[frame.start : frame.start + frame.length]
            parts.append(self._jail.frame(at, frame, prefix))
            at += frame.packed
        manifest = b"".join(parts)
        if "sha256:" + hashlib.sha256(manifest).hexdigest() != self._head.new:
            refuse("is damaged: its listing has another digest than it promises")
        return manifest

    def _part(self, name: str, part: Packed) -> list[bytes]:
        """Return the lines of a part that is text."""
        self._jail.stream(self._head.at(name), part)
        text = self._jail.read(part.size)
        if text and not text.endswith(b"\n"):
            refuse(f"is damaged: its {name} has no end")
        return text.split(b"\n")[:-1]

    def _read_extras(self) -> list[bytes]:
        lines = self._part("extras", self._head.extras)
        if len(lines) != len(self._entries):
            refuse("is damaged: it does not say as much of each entry")
        return lines

    def _read_index(
        self, files: Sequence[bytes | None]
    ) -> tuple[Iterator[_Content], list[Frame], list[tuple[bytes, int]]]:
        """Return the contents, the frames of patches, and the sources of these; all sums are right then."""
        contents: list[_Content] = []
        frames: list[Frame] = []
        sources: list[tuple[bytes, int]] = []
        for line in self._part("index", self._head.index):
            if _LINE.fullmatch(line) is None:
                refuse(f"is damaged: its index has a line {line[:80]!r}")
            numbers = [int(word) for word in line[2:].split()]
            if line.startswith(b"f"):
                try:
                    frames.append(deltafile.frame(*numbers))
                except ValueError:
                    refuse("is damaged: a patch is too large")
                continue
            contents.append(_Content(numbers[0], len(numbers) > 1))
            if len(numbers) > 1:
                path = files[numbers[1]] if numbers[1] < len(files) else None
                if path is None or self._old.size(path) != numbers[2]:
                    refuse("is damaged: the source of a patch is another file than it should be")
                sources.append((path, numbers[2]))
        sums = (
            (sum(one.size for one in contents if one.patched), sum(one.size for one in frames)),
            (sum(one.size for one in contents if not one.patched), self._head.fresh.size),
            (sum(one.packed for one in frames), self._head.patches),
        )
        if any(one != other for one, other in sums):
            refuse("is damaged: the sizes of its parts are not those of its contents")
        return iter(contents), frames, sources

    def _one(self, out: IO[bytes], number: int) -> None:
        entry, extra = self._entries[number], self._extras[number]
        found = _EXTRA.fullmatch(extra)
        if found is None:
            refuse(f"is damaged: it says {extra[:40]!r} of an entry")
        if found[1] is not None:
            self._hard_link(out, number, int(found[1]))
            return
        when = int(found[2]) * 10**9 + int(found[3] or 0) if found[2] else self._old.mtime(entry.path)
        record = Record(
            entry.kind,
            path=entry.path,
            mode=entry.mode,
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=when or 0,
            link=entry.value if entry.kind == "l" else b"",
            xattrs=entry.xattrs,
            major=entry.major,
            minor=entry.minor,
        )
        if entry.kind == "f":
            self._file(out, record, entry.value)
        else:
            write_record(out, record)

    def _hard_link(self, out: IO[bytes], number: int, earlier: int) -> None:
        entry, first = self._entries[number], self._entries[min(earlier, number)]
        if (
            earlier >= number
            or entry.kind != "f"
            or self._extras[earlier].startswith(b"@")
            or attrs.evolve(first, path=entry.path) != entry
        ):
            refuse(f"is damaged: {entry.path[:200]!r} is a hard link to what it cannot be")
        write_record(out, Record("h", path=entry.path, link=first.path))

    def _file(self, out: IO[bytes], record: Record, digest: bytes) -> None:
        known, spooled = self._known.get(digest), self._spooled.get(digest)
        if known is not None and (found := self._find(record, digest, known)) is not None:
            self._count(found.size)
            write_record(out, found)
            return
        if known is not None:
            size = self._old.size(known)
            chunks = self._from_old(known, size)
        elif spooled is not None:
            size = spooled[1]
            chunks = self._from_spool(*spooled)
        else:
            content = next(self._contents, None)
            if content is None:
                refuse("is damaged: it lacks contents")
            size = content.size
            chunks = self._from_delta(content, keep=digest if digest in self._repeated else None)
        self._count(size)
        write_record(out, attrs.evolve(record, size=size))
        made, at = hashlib.sha256(), 0
        for data in chunks:
            made.update(data)
            if data != _ZEROS:  # a hole
                write_chunk(out, at, data)
            at += len(data)
        write_end_of_content(out, size)
        if made.hexdigest().encode() != digest:
            if known is not None:
                damaged(known)
            self._wrong(record.path)

    def _find(self, record: Record, digest: bytes, known: bytes) -> Record | None:
        return self._objects.find(record, digest, self._old.inodes(known, record.path))

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self._most_size:
            refuse(f"makes more than {self._most_size:,} bytes of files")

    def _wrong(self, path: bytes) -> NoReturn:
        refuse(
            f"makes {path[:200]!r} another file than it promises: it is damaged, or the base {self._head.old} is"
        )

    def _from_old(self, path: bytes, size: int) -> Iterator[bytes]:
        fd = self._old.open(path)
        try:
            at = 0
            while at < size and (data := os.pread(fd, min(_CHUNK, size - at), at)):
                at += len(data)
                yield data
        finally:
            os.close(fd)

    def _from_spool(self, start: int, size: int) -> Iterator[bytes]:
        for at in range(0, size, _CHUNK):
            yield os.pread(self._spool, min(_CHUNK, size - at), start + at)

    def _from_delta(self, content: _Content, *, keep: bytes | None) -> Iterator[bytes]:
        """Yield a content that the delta brings; what is needed once more is kept in a file."""
        start = os.lseek(self._spool, 0, os.SEEK_END) if keep else 0
        left = content.size
        while left:
            size = min(left, _CHUNK)
            data = self._patched.read(size) if content.patched else self._jail.read(size)
            if keep:
                write_all(self._spool, data)
            left -= len(data)
            yield data
        if keep:
            self._spooled[keep] = start, content.size
