"""LZ4 and LZO, by csrc/expand.c: no library that we need has them. It runs in the jail."""

from __future__ import annotations

from layerrun.images.nodes import refuse
from layerrun.native import ffi, lib

__all__ = ["unlz4", "unlzo"]


def unlz4(data: bytes, most: int, *, part: bool = False) -> bytes:
    """Return what an LZ4 block makes, ``most`` bytes at most; with ``part`` what makes more ends there."""
    out = ffi.new("uint8_t[]", most or 1)
    return _made(out, lib.lr_unlz4(data, len(data), out, most, part))


def unlzo(data: bytes, most: int) -> bytes:
    """Return what an LZO1X stream makes, ``most`` bytes at most."""
    out = ffi.new("uint8_t[]", most or 1)
    return _made(out, lib.lr_unlzo(data, len(data), out, most))


def _made(out: object, size: int) -> bytes:
    if size < 0:
        refuse("is damaged: a block cannot be unpacked")
    return bytes(ffi.buffer(out, size))
