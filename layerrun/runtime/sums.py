"""Sums by which the front door sees that something is as it was; csrc/current.c computes the same."""

from __future__ import annotations

import os

__all__ = ["fnv", "names"]

_MASK = (1 << 64) - 1


def fnv(data: bytes) -> str:
    """Return the 64-bit FNV-1a hash of ``data`` in hexadecimal."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & _MASK
    return f"{value:016x}"


def _type(entry: os.DirEntry[str]) -> str:
    if entry.is_dir(follow_symlinks=False):
        return "d"
    if entry.is_symlink():
        return "l"
    return "f" if entry.is_file(follow_symlinks=False) else "o"


def names(path: str) -> str:
    """Return the sum of a folder's entries, in any order: names, types, where links lead; ``-``: not to be had."""
    value = 0
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                kind = _type(entry)
                target = os.readlink(entry.path) if kind == "l" else ""
                value += int(fnv(os.fsencode(f"{entry.name}\0{kind}{target}")), 16)
    except OSError:
        return "-"
    return f"{value & _MASK:016x}"
