"""Decompressing a delta, in a jail: what zstd and lzma make of hostile bytes is made here and nowhere else.

It has a delta to read from, and two pipes: orders come by one, and content goes by the other. All it needs is imported
before it shuts itself in.
"""

from __future__ import annotations

import lzma
import os
import struct
from typing import Any

from layerrun.errors import ArchiveError
from layerrun.images import prefixed

__all__ = ["FRAME", "ORDER", "READ", "STREAM", "decode_here"]

# An order: what, where in the file, bytes packed, bytes made, bytes of prefix (which follow) or the codec's number.
ORDER = struct.Struct("<BQQQQ")
FRAME, STREAM, READ = range(3)

_CHUNK = 1 << 18
_XZ_MEMORY = 128 << 20

prefixed.preload()


def decode_here(delta: int, orders: int, content: int) -> None:
    """Do what the orders say until there are no more. Raises `ArchiveError` for what is damaged."""
    stream: _Stream | None = None
    with os.fdopen(orders, "rb") as source, os.fdopen(content, "wb") as out:
        try:
            while order := source.read(ORDER.size):
                what, start, packed, size, more = ORDER.unpack(order)
                if what == FRAME:
                    out.write(prefixed.unpatch(_read(delta, start, packed), source.read(more), size))
                elif what == STREAM:
                    stream = _Stream(delta, start, packed, more)
                elif stream is not None:
                    stream.copy(out, size)
                out.flush()
        except (prefixed.FrameError, lzma.LZMAError, EOFError) as error:
            raise ArchiveError(f"the delta is damaged: {error}", hint="nothing of it was kept") from None


def _read(fd: int, start: int, length: int) -> bytes:
    data = b""
    while len(data) < length:
        part = os.pread(fd, length - len(data), start + len(data))
        if not part:
            raise EOFError("it ends too soon")
        data += part
    return data


class _Stream:
    """A part of the delta that is one long stream."""

    def __init__(self, fd: int, start: int, packed: int, codec: int) -> None:
        self._fd, self._at, self._left = fd, start, packed
        self._work: Any = prefixed.Stream() if codec == 0 else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)

    def copy(self, out: Any, size: int) -> None:
        """Write its next ``size`` bytes."""
        while size:
            if self._work.eof:
                raise EOFError("one of its parts ends too soon")
            data = b""
            if self._work.needs_input:
                data = _read(self._fd, self._at, min(_CHUNK, self._left))
                if not data:
                    raise EOFError("one of its parts ends too soon")
                self._at += len(data)
                self._left -= len(data)
            made = self._work.decompress(data, min(size, _CHUNK))
            out.write(made)
            size -= len(made)
