"""A base as deltas look at it: its manifest, and what the manifest does not say."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import NoReturn

from layerrun.bases.manifest import unescape
from layerrun.errors import DamagedError
from layerrun.native import trees
from layerrun.store.fs import DIR_FLAGS

__all__ = ["Side", "damaged", "read_at", "write_all"]

_CHUNK = 1 << 20


class Side:
    """A base's folder, opened by a descriptor that the caller keeps; ``digest`` is what its manifest must have.

    ``manifest`` are its bytes, ``disk`` what lies in the tree, by path. Paths that are read must be of files.
    """

    def __init__(self, folder: int, digest: str) -> None:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open("manifest", flags, dir_fd=folder), "rb") as file:
            self.manifest = file.read()
        if "sha256:" + hashlib.sha256(self.manifest).hexdigest() != digest:
            raise DamagedError(f"the manifest of base {digest} was altered", hint="layerrun base verify NAME")
        self._tree = os.open("tree", DIR_FLAGS, dir_fd=folder)
        self.disk = {entry.path: entry for entry in trees.list_tree(self._tree, xattrs=False)}
        self._root = os.fstat(self._tree).st_mtime_ns
        self._groups: dict[bytes, bytes] = {}  # what each further name of a file is a name of
        self._absent: dict[bytes, int] = {}  # when what is not in the tree was modified
        self._read_links(folder)

    def close(self) -> None:
        """Close what was opened."""
        os.close(self._tree)

    def _read_links(self, folder: int) -> None:
        """Read what neither tree nor manifest says (docs/store.md, links); bases of before have only their tree."""
        try:
            fd = os.open("links", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        except FileNotFoundError:
            first: dict[tuple[int, int], bytes] = {}
            for path, entry in self.disk.items():
                if entry.nlink > 1 and stat.S_ISREG(entry.mode):
                    self._groups[path] = first.setdefault((entry.dev, entry.ino), path)
            return
        with os.fdopen(fd, "rb") as file:
            for line in file:
                kind, value, path = (unescape(word) for word in line.rstrip(b"\n").split(b" "))
                if kind == b"h":
                    self._groups[value] = path
                else:
                    seconds, _, rest = value.partition(b".")
                    self._absent[path] = int(seconds) * 10**9 + int(rest)

    def group(self, path: bytes) -> bytes:
        """Return the name that all names of a file are further names of; most are their own."""
        seen = {path}
        while (path := self._groups.get(path, path)) not in seen:
            seen.add(path)
        return path

    def inodes(self, *paths: bytes) -> set[int]:
        """Return the numbers of the inodes of those paths that are there."""
        return {self.disk[path].ino for path in paths if path in self.disk}

    def size(self, path: bytes) -> int:
        """Return the size of a file, in bytes. Raises `DamagedError` where none is."""
        found = self.disk.get(path)
        if found is None or not stat.S_ISREG(found.mode):
            damaged(path)
        return found.size

    def mtime(self, path: bytes) -> int | None:
        """Return when an entry was modified, in ns; nothing if that is not known."""
        if not path:
            return self._root
        found = self.disk.get(path)
        return self._absent.get(path) if found is None else found.mtime_ns

    def open(self, path: bytes) -> int:
        """Open a file."""
        try:
            return trees.open_beneath(self._tree, path, os.O_RDONLY)
        except FileNotFoundError:
            damaged(path)

    def read(self, path: bytes, start: int, length: int) -> bytes:
        """Return a part of a file."""
        fd = self.open(path)
        try:
            data = read_at(fd, start, length)
        finally:
            os.close(fd)
        if len(data) != length:
            damaged(path)
        return data

    def verify(self, path: bytes, digest: bytes) -> None:
        """Read a file whole, and compare it with the manifest."""
        found = hashlib.sha256()
        size = self.size(path)
        for at in range(0, size, _CHUNK):
            found.update(self.read(path, at, min(_CHUNK, size - at)))
        if found.hexdigest().encode() != digest:
            damaged(path)


def read_at(fd: int, start: int, length: int) -> bytes:
    """Return ``length`` bytes of a file from ``start``, fewer only at its end."""
    parts = []
    while length:
        data = os.pread(fd, min(length, _CHUNK), start)
        if not data:
            break
        parts.append(data)
        start += len(data)
        length -= len(data)
    return b"".join(parts)


def write_all(fd: int, data: bytes) -> None:
    """Write all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def damaged(path: bytes) -> NoReturn:
    """Raise `DamagedError`: a file of a base is not as it was imported."""
    raise DamagedError(
        f"a base was altered in the store: {os.fsdecode(path)!r} is not as it was imported",
        hint="layerrun base verify NAME",
    )
