"""Writing tar archives from records: the same records give the same bytes, on every machine.

The format is pax (POSIX.1-2001): a plain ustar header, and before it an extended one where something does not fit:
long names, fractions of a second, large numbers, extended attributes as GNU tar and the OCI image specification
have them (``SCHILY.xattr.``). Kinds ``w`` and ``o`` become whiteouts as layers of images have them (``.wh.``).
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from typing import IO

import attrs

from layerrun.errors import SystemError
from layerrun.images.stream import Record

__all__ = ["TarWriter"]

_BLOCK = 512
_RECORD = 10240  # an archive is padded to twenty blocks
_PIECE = 1 << 20
_TYPES = {"f": b"0", "k": b"0", "h": b"1", "l": b"2", "c": b"3", "b": b"4", "d": b"5", "p": b"6"}
_ZEROS = bytes(_RECORD)
_MOST_SIZE = 8**11 - 1
_MOST_ID = 8**7 - 1


class TarWriter:
    """Writes an archive to ``out``; call `close` at the end, which writes the archive's own end and leaves it open."""

    def __init__(self, out: IO[bytes], *, holes: bool = False) -> None:
        """Write to ``out``; ``holes``: files may be written with their holes, which is not for layers of images.

        The image specification advises against it: not all who read layers know them.
        """
        self.holes = holes
        self._out = out
        self._written = 0

    def add(
        self,
        record: Record,
        content: IO[bytes] | None = None,
        parts: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        """Write an entry; ``content`` is a file's, which must have ``record.size`` bytes. ``n`` and ``e`` are ignored.

        ``parts``: (offset, size) of what is kept of it, for the rest is holes (`layerrun.images.sparse`): then it is
        written as GNU tar does by ``--format=posix --sparse``, in version 1.0.

        Raises `SystemError` for a file that has become shorter meanwhile: the archive cannot be finished then.
        """
        if record.kind in "ne":
            return
        if record.kind in "wo":
            folder, name = (record.path, b".wh..opq") if record.kind == "o" else posixpath.split(record.path)
            self._head(Record("f", posixpath.join(folder, b".wh." + name), mtime_ns=0))
            return
        if parts is not None:
            assert content is not None
            self._sparse(record, content, parts)
            return
        self._head(record)
        if record.kind in "fk" and record.size:
            assert content is not None
            self._copy(record.path, content, record.size)
            self._pad(record.size)

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(_ZEROS[: 2 * _BLOCK])
        if rest := self._written % _RECORD:
            self._write(_ZEROS[: _RECORD - rest])

    def _write(self, data: bytes) -> None:
        self._out.write(data)
        self._written += len(data)

    def _pad(self, size: int) -> None:
        if rest := size % _BLOCK:
            self._write(_ZEROS[: _BLOCK - rest])

    def _copy(self, path: bytes, content: IO[bytes], size: int) -> None:
        while size and (piece := content.read(min(size, _PIECE))):
            self._write(piece)
            size -= len(piece)
        if size:
            raise SystemError(f"{path!r} has become shorter while it was read", errno=5, hint="try again")

    def _sparse(self, record: Record, content: IO[bytes], parts: Sequence[tuple[int, int]]) -> None:
        """Write a file with holes: the map of its parts as text, then the parts; holes are passed over."""
        kept = [*parts, (record.size, 0)]  # where it ends
        text = b"%d\n" % len(kept) + b"".join(b"%d\n%d\n" % part for part in kept)
        text += bytes(-len(text) % _BLOCK)
        stored = sum(size for _, size in parts)
        self._head(attrs.evolve(record, size=len(text) + stored), real=record.size)
        self._write(text)
        at = 0
        for offset, size in kept:
            content.seek(offset - at, os.SEEK_CUR)
            self._copy(record.path, content, size)
            at = offset + size
        self._pad(stored)

    def _head(self, record: Record, *, real: int | None = None) -> None:
        """Write the header; ``real``: the size of a file with holes."""
        name = record.path or b"."
        if record.kind == "d":
            name += b"/"
        size = record.size if record.kind in "fk" else 0
        seconds, fraction = divmod(record.mtime_ns, 10**9)
        pax: dict[bytes, bytes] = {b"SCHILY.xattr." + key: value for key, value in record.xattrs.items()}
        if real is not None:
            pax |= {
                b"GNU.sparse.major": b"1",
                b"GNU.sparse.minor": b"0",
                b"GNU.sparse.name": name,
                b"GNU.sparse.realsize": b"%d" % real,
            }
            # What those see who know no holes.
            folder, last = posixpath.split(name)
            name = posixpath.join(folder, b"GNUSparseFile.0", last)
        elif len(name) > 100 or not name.isascii():
            pax[b"path"] = name
        if len(record.link) > 100 or not record.link.isascii():
            pax[b"linkpath"] = record.link
        if fraction or not 0 <= seconds <= _MOST_SIZE:
            pax[b"mtime"] = _decimal(record.mtime_ns)
        for key, value, most in (
            (b"uid", record.uid, _MOST_ID),
            (b"gid", record.gid, _MOST_ID),
            (b"size", size, _MOST_SIZE),
        ):
            if value > most:
                pax[key] = b"%d" % value
        if pax:
            data = b"".join(_pax_line(key, value) for key, value in sorted(pax.items()))
            self._write(_header(b"./PaxHeaders/" + name[:80].rstrip(b"/"), b"x", size=len(data), mode=0o644))
            self._write(data)
            self._pad(len(data))
        self._write(
            _header(
                name,
                _TYPES[record.kind],
                mode=record.mode,
                uid=record.uid,
                gid=record.gid,
                size=size,
                mtime=seconds,
                link=record.link,
                device=(record.major, record.minor),
            )
        )


def _decimal(ns: int) -> bytes:
    """Write nanoseconds as seconds with a fraction; pax has no exponent, and a minus before the whole."""
    seconds, fraction = divmod(abs(ns), 10**9)
    text = f"{'-' if ns < 0 else ''}{seconds}.{fraction:09d}".rstrip("0").rstrip(".")
    return text.encode("ascii")


def _pax_line(key: bytes, value: bytes) -> bytes:
    r"""Write "LENGTH KEY=VALUE\n", where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _header(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
) -> bytes:
    """Make a ustar header; what does not fit stands in the pax header before it, and is cut or 0 here."""
    major, minor = device if kind in b"34" else (0, 0)
    head = b"%-100.100s%07o\0%07o\0%07o\0%011o\0%011o\0        %s%s%s%s%07o\0%07o\0%s" % (
        name.ljust(100, b"\0"),
        mode & 0o7777,
        uid if uid <= _MOST_ID else 0,
        gid if gid <= _MOST_ID else 0,
        size if size <= _MOST_SIZE else 0,
        mtime if 0 <= mtime <= _MOST_SIZE else 0,
        kind,
        link[:100].ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),
        major,
        minor,
        bytes(167),
    )
    assert len(head) == _BLOCK
    return head[:148] + b"%06o\0 " % sum(head) + head[156:]
