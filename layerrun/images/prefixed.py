"""zstd as deltas need it: frames with old bytes as their prefix (``zstd --patch-from`` makes the same)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from layerrun.images.zstandard import library

__all__ = ["FrameError", "Stream", "pack", "patch", "preload", "unpatch"]

# A shorter prefix is none: zstd takes no shorter ones.
_PREFIX = 8
# From here on the lower levels forget what lies far back, unless they are told to look for it apart.
_FAR = 10 << 20
# Below this level they forget what lies but a few hundred KiB back, as prefixes do.
_FINDS = 7
# log2 of bytes: what a decoder must hold of what it has made. Frames name less where less does.
_LEAST, _FRAME, _STREAM = 10, 26, 26


class FrameError(ValueError):
    """What was to be decompressed is damaged."""


def preload() -> None:
    """Import what the others need: in a jail there is nothing left to import from."""
    library()


def patch(data: bytes, prefix: bytes, level: int) -> bytes:
    """Return a frame that makes ``data`` where ``prefix`` is at hand; without one where that is too short."""
    zstd = library()
    options = _options(level, len(data) + len(prefix), _FRAME)
    frame: bytes = zstd.compress(data, options=options, zstd_dict=_as_prefix(prefix))
    return frame


def unpatch(frame: bytes, prefix: bytes, size: int) -> bytes:
    """Return what `patch` was given. Raises `FrameError` where the frame makes anything but ``size`` bytes."""
    zstd = library()
    work = zstd.ZstdDecompressor(_as_prefix(prefix), {zstd.DecompressionParameter.window_log_max: _FRAME})
    try:
        data: bytes = work.decompress(frame, size + 1)
    except zstd.ZstdError as error:
        raise FrameError(str(error)) from None
    if len(data) != size or not work.eof or work.unused_data:
        raise FrameError("a frame makes another number of bytes than it should")
    return data


def pack(chunks: Iterable[bytes], out: int, level: int, size: int) -> None:
    """Compress a long stream of ``size`` bytes into a file."""
    work = library().ZstdCompressor(options=_options(level, size, _STREAM))
    with os.fdopen(os.dup(out), "wb") as file:
        for data in chunks:
            file.write(work.compress(data))
        file.write(work.flush())


class Stream:
    """What takes a long stream apart again, with the face of `lzma.LZMADecompressor`."""

    def __init__(self) -> None:
        zstd = library()
        self._error = zstd.ZstdError
        self._work = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _STREAM})

    @property
    def eof(self) -> bool:
        """Whether the stream has come to its end."""
        return bool(self._work.eof)

    @property
    def needs_input(self) -> bool:
        """Whether there is nothing to be made of what it was given."""
        return bool(self._work.needs_input)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return the next bytes, at most ``max_length``. Raises `FrameError`."""
        try:
            made: bytes = self._work.decompress(data, max_length)
        except self._error as error:
            raise FrameError(str(error)) from None
        return made


def _as_prefix(prefix: bytes) -> Any:
    return library().ZstdDict(prefix, is_raw=True).as_prefix if len(prefix) >= _PREFIX else None


def _options(level: int, reach: int, most: int) -> dict[int, int]:
    parameter = library().CompressionParameter
    return {
        parameter.compression_level: level,
        parameter.window_log: max(_LEAST, min(most, max(reach - 1, 1).bit_length())),
        parameter.enable_long_distance_matching: int(reach > _FAR or level < _FINDS),
    }
