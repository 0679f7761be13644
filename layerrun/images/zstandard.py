"""The one way to zstd: Python's own from 3.14 on, its backport before."""

from __future__ import annotations

import importlib
import sys
from typing import Any

__all__ = ["compressor", "library"]


def library() -> Any:
    """Return the module: the same interface by either name."""
    return importlib.import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")


def compressor(level: int, *, threads: int = 2) -> Any:
    """Return a compressor with a checksum. The number of threads, if there are any, does not change what it writes."""
    zstd = library()
    options = {
        zstd.CompressionParameter.compression_level: level,
        zstd.CompressionParameter.checksum_flag: 1,
        zstd.CompressionParameter.nb_workers: threads,
    }
    return zstd.ZstdCompressor(options=options)
