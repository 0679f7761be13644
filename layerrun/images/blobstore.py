"""Blobs of registries in a folder of ours for as long as they are wanted; what was cut short goes on at the next try.

``HEX`` is a blob that is whole, ``partial/HEX`` the beginning of one; HEX is its SHA-256. Whoever writes one holds its
flock(2). A blob that is whole was verified when it came, and is verified again when it is used.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from layerrun.errors import RegistryError
from layerrun.images.blobs import Piece

if TYPE_CHECKING:
    from io import BufferedRandom

    from layerrun.images.documents import Descriptor

__all__ = ["BlobFolder"]

_PARTIAL = "partial"
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class BlobFolder:
    """The folder, by a descriptor that the caller keeps open."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        with suppress(FileExistsError):
            os.mkdir(_PARTIAL, 0o700, dir_fd=fd)

    def has(self, digest: str) -> bool:
        """Say whether a blob is whole."""
        piece = self._whole(_name(digest))
        if piece is None:
            return False
        os.close(piece.fd)
        return True

    def have(self, digest: str) -> int:
        """Return how many bytes of a blob are here."""
        for place in ("", f"{_PARTIAL}/"):
            with suppress(FileNotFoundError):
                return os.stat(place + _name(digest), dir_fd=self._fd, follow_symlinks=False).st_size
        return 0

    def get(self, descriptor: Descriptor, fetch: Callable[[BufferedRandom], None]) -> Piece:
        """Return a blob, which ``fetch`` completes if it is not whole, in a file that may have its beginning.

        Somebody else who reads the same is waited for.
        """
        name = _name(descriptor.digest)
        while (piece := self._whole(name)) is None:
            fd = os.open(f"{_PARTIAL}/{name}", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600, dir_fd=self._fd)
            with os.fdopen(fd, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not self._is(file.fileno(), name):
                    continue  # whoever had it has completed it, or given it up
                fetch(file)
                file.flush()
                os.fsync(file.fileno())  # after a power loss its name says that it is whole
                os.rename(f"{_PARTIAL}/{name}", name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
                return Piece(os.dup(file.fileno()), 0, os.fstat(file.fileno()).st_size)
        return piece

    def _whole(self, name: str) -> Piece | None:
        try:
            fd = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        return Piece(fd, 0, os.fstat(fd).st_size)

    def _is(self, fd: int, name: str) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(f"{_PARTIAL}/{name}", dir_fd=self._fd))
        except FileNotFoundError:
            return False

    def drop(self, digests: Iterable[str]) -> None:
        """Let blobs go; who reads one has it open."""
        for digest in digests:
            with suppress(FileNotFoundError):
                os.unlink(_name(digest), dir_fd=self._fd)

    def old(self, older_than: float) -> list[tuple[str, int]]:
        """Return the names of blobs, whole or not, that nobody has touched for so many seconds, with their bytes."""
        found: list[tuple[str, int]] = []
        for folder in ("", f"{_PARTIAL}/"):
            fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | _FLAGS, dir_fd=self._fd)
            try:
                for name in os.listdir(fd):
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if name != _PARTIAL and status.st_mtime + older_than <= time.time():
                        found.append((folder + name, status.st_size))
            finally:
                os.close(fd)
        return sorted(found)

    def remove(self, name: str) -> None:
        """Remove a blob that `old` named, unless somebody is reading it right now."""
        with suppress(FileNotFoundError):
            fd = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=self._fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(name, dir_fd=self._fd)
            except BlockingIOError:
                pass
            finally:
                os.close(fd)


def _name(digest: str) -> str:
    kind, _, name = digest.partition(":")
    if kind != "sha256":
        raise RegistryError(f"{digest:.80} is no SHA-256, by which alone blobs of registries are taken")
    return name
