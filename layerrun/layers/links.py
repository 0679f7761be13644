"""Hard links of what is copied from frozen layers.

What the store has once is one inode, whoever has it: equal files of a base, of layers that were built or pulled. In an
upper, where files are written to, such names must not be names of one file. That they are one shows only in that the
inode has no names elsewhere.
"""

from __future__ import annotations

import os

from layerrun.native.trees import open_beneath

__all__ = ["Links"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


class Links:
    """Names in the tree ``target`` of copies of files with several names."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._found: dict[tuple[int, int], tuple[int, list[bytes]]] = {}

    def note(self, info: os.stat_result, path: bytes) -> None:
        """Note that ``path`` is a copy of the file with this status."""
        if info.st_nlink > 1:
            self._found.setdefault((info.st_dev, info.st_ino), (info.st_nlink, []))[1].append(path)

    def join(self) -> None:
        """Make one file of the copies of each file all of whose names were copied; folders keep their times."""
        for count, paths in self._found.values():
            if len(paths) == count:
                for path in paths[1:]:
                    self._link(paths[0], path)

    def _link(self, first: bytes, path: bytes) -> None:
        folder, _, name = path.rpartition(b"/")
        fd = open_beneath(self._target, folder, _FOLDER)
        try:
            info = os.fstat(fd)
            os.unlink(name, dir_fd=fd)
            os.link(first, name, src_dir_fd=self._target, dst_dir_fd=fd, follow_symlinks=False)
            os.utime(fd, ns=(info.st_atime_ns, info.st_mtime_ns))
        finally:
            os.close(fd)
