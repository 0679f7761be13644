"""The reader of tar archives that are not compressed, csrc/tar.h, as the jail calls it; it imports next to nothing."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from layerrun.errors import ArchiveError
from layerrun.native import error_text, ffi, lib, new_error, raise_error

__all__ = ["Parser", "read_file_here"]


class Parser:
    """Reads archives one after the other; ``limits`` (`layerrun.images.limits.Limits`) are of all together.

    ``layer``: they are of images; ``direct``: they are files, and contents are told by their places, csrc/stream.h.
    """

    def __init__(self, limits: Mapping[str, int], *, layer: bool = False, direct: bool = False) -> None:
        names = ("size", "entries", "header", "depth", "ids")
        values = {**{name: limits[name] for name in names}, "layer": layer, "direct": direct}
        self._limits = ffi.new("struct lr_tar_limits *", values)
        self._found = ffi.new("struct lr_tar_found *")

    def parse(self, fd: int, out: int) -> None:
        """Write the records of the plain archive ``fd`` to ``out``; raise `ArchiveError` where it is refused."""
        record = new_error()
        if lib.lr_tar(fd, out, self._limits, self._found, record) == 0:
            return
        code, _, why, path = error_text(record)
        if code != errno.EBADMSG:
            raise_error(record)
        about = f"the archive's entry {path!r}" if path else "the archive"
        raise ArchiveError(f"{about} {why}", hint="nothing of it was kept")

    def found(self) -> dict[str, int]:
        """Return what the archives held: entries, bytes of files, attributes left out."""
        return {name: getattr(self._found, name) for name in ("entries", "size", "xattrs")}


def read_file_here(out: int, fd: int, limits: Mapping[str, int]) -> dict[str, Any]:
    """Write the records of the archive in the file ``fd`` to ``out``; as `layerrun.images.jailed.read_here`."""
    parser = Parser(limits, direct=True)
    parser.parse(fd, out)
    return {**parser.found(), "digests": [None]}
