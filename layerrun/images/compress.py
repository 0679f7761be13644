"""Compressing, by the name of a file; the same bytes for the same input, as far as the library stays the same."""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import Protocol, cast

from layerrun.errors import UsageError
from layerrun.images.zstandard import compressor

__all__ = ["Compressor", "compressor_for"]

_ENDINGS = {
    ".tar": "",
    ".tar.gz": "gzip",
    ".tgz": "gzip",
    ".tar.xz": "xz",
    ".txz": "xz",
    ".tar.bz2": "bzip2",
    ".tbz2": "bzip2",
    ".tar.zst": "zstd",
    ".tar.zstd": "zstd",
    ".tzst": "zstd",
}


class Compressor(Protocol):
    """What zlib, lzma, bz2 and zstd have in common."""

    def compress(self, data: bytes, /) -> bytes:
        """Return what can be written by now."""

    def flush(self) -> bytes:
        """Return the rest."""


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def compressor_for(name: str) -> Compressor:
    """Return a compressor for a file of this name; raises `UsageError` for one that says no kind. ``-``: none."""
    found = next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), None)
    if name == "-":
        found = ""
    if found is None:
        raise UsageError(f"{name!r} says no kind of archive", hint=f"let it end in {', '.join(_ENDINGS)}")
    if found == "gzip":
        return cast("Compressor", zlib.compressobj(6, zlib.DEFLATED, 31))  # 31: gzip, without name and time
    if found == "xz":
        return lzma.LZMACompressor(preset=6)
    if found == "bzip2":
        return bz2.BZ2Compressor(9)
    return cast("Compressor", compressor(3)) if found else _Plain()
