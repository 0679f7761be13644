"""Kinds of compression, told by the first bytes; nothing is decompressed here."""

from __future__ import annotations

__all__ = ["MAGIC", "kind_of"]

# Bytes that say it.
MAGIC = 6
_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\0", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstd"))
# RFC 8878: frames to be skipped, with any last four bits.
_SKIPPED = b"\x2a\x4d\x18"


def kind_of(head: bytes) -> str:
    """Return the kind of compression that these bytes, `MAGIC` of them at least, begin; "" for none."""
    if head[1:4] == _SKIPPED and 0x50 <= head[0] <= 0x5F:
        return "zstd"
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")
