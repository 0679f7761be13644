"""zstd as deltas need it: frames with old bytes as their prefix (``zstd --patch-from`` makes the same)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Error", "pack", "patch", "stream", "unpatch"]

Error = zstd.ZstdError

# A shorter prefix is none: zstd takes no shorter ones.
_PREFIX = 8
# From here on the lower levels forget what lies far back, unless they are told to look for it apart.
_FAR = 10 << 20
# log2 of bytes: what a decoder must hold of what it has made. Frames name less where less does.
_LEAST, _FRAME, _STREAM = 10, 26, 26


def patch(data: bytes, prefix: bytes, level: int) -> bytes:
    """Return a frame that makes ``data`` where ``prefix`` is at hand; without one where that is too short."""
    options = _options(level, len(data) + len(prefix), _FRAME)
    if len(prefix) < _PREFIX:
        return zstd.compress(data, options=options)
    return zstd.compress(data, options=options, zstd_dict=zstd.ZstdDict(prefix, is_raw=True).as_prefix)


def unpatch(frame: bytes, prefix: bytes, size: int) -> bytes:
    """Return what `patch` was given. Raises `Error` where the frame makes anything but ``size`` bytes."""
    options: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _FRAME}
    with_prefix = zstd.ZstdDict(prefix, is_raw=True).as_prefix if len(prefix) >= _PREFIX else None
    work = zstd.ZstdDecompressor(with_prefix, options)
    data = work.decompress(frame, size + 1)
    if len(data) != size or not work.eof or work.unused_data:
        raise Error("a frame makes another number of bytes than it should")
    return data


def pack(chunks: Iterable[bytes], out: int, level: int, size: int) -> None:
    """Compress a long stream of ``size`` bytes into a file."""
    options = _options(level, size, _STREAM)
    work = zstd.ZstdCompressor(options=options)
    with os.fdopen(os.dup(out), "wb") as file:
        for data in chunks:
            file.write(work.compress(data))
        file.write(work.flush())


def stream() -> zstd.ZstdDecompressor:
    """Return what takes a long stream apart again; it has the face of `lzma.LZMADecompressor`."""
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _STREAM})


def _options(level: int, reach: int, most: int) -> dict[int, int]:
    window = max(_LEAST, min(most, max(reach - 1, 1).bit_length()))
    parameter = zstd.CompressionParameter
    return {
        parameter.compression_level: level,
        parameter.window_log: window,
        parameter.enable_long_distance_matching: int(reach > _FAR),
    }
