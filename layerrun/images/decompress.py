"""Decompressing what nobody vouches for: what runs in the jail, `layerrun.native.jail`, and is imported before.

The kind of compression is told by its first bytes: gzip, xz, bzip2, zstd, or none. Memory is bounded by the formats'
windows, of which only reasonable ones are taken, and what comes out by limits on size and growth.
"""

from __future__ import annotations

import bz2
import errno
import hashlib
import lzma
import os
import threading
import zlib
from collections.abc import Callable
from typing import Any

from layerrun.errors import ArchiveError
from layerrun.images.kinds import kind_of
from layerrun.images.limits import Limits
from layerrun.images.zstandard import library

__all__ = ["Pump", "beginning", "reader_of"]

CHUNK = 1 << 18
_XZ_MEMORY = 256 << 20
# 128 MiB: what zstd itself takes without being told to take more.
_ZSTD_WINDOW = 27


# Now: in the jail there are no files to import it from. Only the jail imports this module.
zstd = library()

# What the libraries say of damage; bz2 says it by an OSError without errno.
_DAMAGED = (EOFError, lzma.LZMAError, zlib.error, zstd.ZstdError, ValueError, OSError)


def reader_of(
    fd: int, offset: int | None, length: int | None, ahead: int | None = None
) -> Callable[[], bytes]:
    """Return a function that reads some more: of all that comes, or of ``length`` bytes from ``offset`` on.

    ``ahead`` is a file with what was read before, which comes first.
    """
    at, left, before = offset, length, 0

    def more() -> bytes:
        nonlocal at, left, before
        if ahead is not None and (data := os.pread(ahead, CHUNK, before)):
            before += len(data)
            return data
        size = CHUNK if left is None else min(CHUNK, left)
        data = os.read(fd, size) if at is None else os.pread(fd, size, at)
        at = None if at is None else at + len(data)
        left = None if left is None else left - len(data)
        return data

    return more


class _Gzip:
    """zlib's decompressor with the face of the others."""

    def __init__(self) -> None:
        self._work = zlib.decompressobj(wbits=31)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._work.eof

    @property
    def unused_data(self) -> bytes:
        return self._work.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        tail = self._work.unconsumed_tail
        made = self._work.decompress(tail + data if tail else data, max_length)
        self.needs_input = not self._work.unconsumed_tail and len(made) < max_length
        return made


def _new(kind: str) -> Any:
    if kind == "gzip":
        return _Gzip()
    if kind == "xz":
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    if kind == "zstd":
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW})
    return bz2.BZ2Decompressor() if kind == "bzip2" else None


def beginning(more: Callable[[], bytes], size: int) -> bytes:
    """Return the first bytes of what comes, decompressed, ``size`` at most; fewer where it is damaged or ends."""
    made, data = b"", more()
    try:
        while data and len(made) < size and (work := _new(kind_of(data))) is not None:
            while len(made) < size and not work.eof and (data or not work.needs_input):
                made += work.decompress(data, size - len(made))
                data = more() if work.needs_input else b""
            data = (work.unused_data + data) or more()
    except _DAMAGED:
        pass  # whoever reads all of it will say so
    return made


class Pump:
    """Decompresses into a pipe, which a thread does while another reads it.

    ``hashed``: make a digest of what comes out, of all of it, also where nobody reads it any more. ``most``: bytes that
    may come out. When it has ended
    ``error`` says what was wrong, and ``digest`` is set.
    """

    def __init__(
        self, more: Callable[[], bytes], out: int, limits: Limits, *, hashed: bool, most: int | None = None
    ) -> None:
        self._source, self._out, self._limits = more, out, limits
        self._most = 2 * limits.size + limits.free if most is None else most
        self._open = True
        self._sum = hashlib.sha256() if hashed else None
        self._taken = self._made = 0
        self.error: Exception | None = None
        self.digest: str | None = None
        self._ended = threading.Event()

    def wait(self) -> None:
        """Wait for the end; close the reader's end of the pipe before, or have read it to its end."""
        self._ended.wait()

    def run(self) -> None:
        """Do it; it raises nothing."""
        try:
            self._work()
            self.digest = None if self._sum is None else "sha256:" + self._sum.hexdigest()
        except Exception as error:  # noqa: BLE001  (who waits for us says it)
            self.error = _explained(error)
        finally:
            # Whoever finds the pipe ended looks for the error.
            os.close(self._out)
            self._ended.set()

    def _input(self) -> bytes:
        data = self._source()
        self._taken += len(data)
        return data

    def _work(self) -> None:
        head = b""
        while len(head) < 6 and (data := self._input()):
            head += data
        kind = kind_of(head)
        if not kind:
            while head and self._put(head):
                head = self._input()
            return
        while head and self._frame(kind, head):
            # Another stream may follow, or zeros that only fill up a block.
            head = self._rest.lstrip(b"\0")
            while not head and (data := self._input()):
                head = data.lstrip(b"\0")

    def _frame(self, kind: str, data: bytes) -> bool:
        """Decompress one stream that begins with ``data``; say whether anybody wants more."""
        work = _new(kind)
        while True:
            made = work.decompress(data, CHUNK)
            if made and not self._put(made):
                return False
            if work.eof:
                self._rest: bytes = work.unused_data
                return True
            data = self._input() if work.needs_input else b""
            if not data and work.needs_input:
                raise EOFError("it ends too soon")

    def _put(self, data: bytes) -> bool:
        self._made += len(data)
        limits = self._limits
        if self._made > limits.free and self._made > self._taken * limits.ratio:
            raise _refusal(f"grows to more than {limits.ratio} times its size")
        if self._made > self._most:
            raise _refusal(f"is larger than {limits.size:,} bytes")
        if self._sum is not None:
            self._sum.update(data)
        view = memoryview(data)
        while view and self._open:
            try:
                view = view[os.write(self._out, view) :]
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                self._open = False
        return self._open or self._sum is not None


def _refusal(why: str) -> ArchiveError:
    return ArchiveError(f"the archive {why}", hint="nothing of it was kept")


def _explained(error: Exception) -> Exception:
    if isinstance(error, EOFError | lzma.LZMAError | zlib.error | zstd.ZstdError | ValueError):
        if isinstance(error, ArchiveError):
            return error
        return ArchiveError(f"the archive is damaged: {error}")
    # bz2's way to say it has no errno.
    if isinstance(error, OSError) and error.errno is None:
        return ArchiveError(f"the archive is damaged: {error}")
    return error
