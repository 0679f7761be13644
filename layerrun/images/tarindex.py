"""What lies where in a tar that holds an image (docker archives, layouts in a tar). Only headers are read."""

from __future__ import annotations

import os
import posixpath
import tarfile
from typing import IO, cast

from layerrun.errors import ArchiveError
from layerrun.images.blobs import Piece, blob_path, check_size
from layerrun.images.documents import Descriptor, refuse

__all__ = ["TarBlobs"]

_MAX_ENTRIES = 10_000
_MAX_HEADER = 1 << 20
_MAX_HOPS = 8


class _Headers:
    """A file as `tarfile` reads headers from it: no read is large, and all lie within the file."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        self._position = position
        return position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            refuse(f"lies in a tar with a header of {size:,} bytes")
        data = os.pread(self._fd, size, self._position) if self._position < self._size else b""
        self._position += len(data)
        return data


class TarBlobs:
    """The files of a tar by name, and the blobs of a layout that is in it. The descriptor stays the caller's."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            self._read(_Headers(fd))
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            if isinstance(error, ArchiveError):
                raise
            raise ArchiveError(f"the archive is damaged, or no tar archive: {error}") from None

    def _read(self, headers: _Headers) -> None:
        tar = tarfile.TarFile(
            fileobj=cast("IO[bytes]", headers), mode="r", encoding="utf-8", errors="surrogateescape"
        )
        end = os.fstat(self._fd).st_size
        for count, member in enumerate(tar, 1):
            if count > _MAX_ENTRIES:
                refuse(f"lies in a tar of more than {_MAX_ENTRIES:,} entries")
            name = _clean(member.name)
            self._files.pop(name, None)
            self._links.pop(name, None)
            if member.isreg() and not member.issparse():
                if member.offset_data + member.size > end:
                    refuse(f"lies in a tar that is cut short, in {name!r:.100}")
                self._files[name] = member.offset_data, member.size
            elif member.issym():
                self._links[name] = _clean(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.islnk():
                self._links[name] = _clean(member.linkname)

    def __contains__(self, name: str) -> bool:
        return self._find(name) is not None

    def _find(self, name: str) -> tuple[int, int] | None:
        """Return where a file lies; links are followed within the archive, by name."""
        name = _clean(name)
        for _ in range(_MAX_HOPS):
            if (target := self._links.get(name)) is None:
                break
            name = target
        return self._files.get(name)

    def file(self, name: str) -> Piece:
        """Return a file of the tar. Raises `FileNotFoundError`."""
        found = self._find(name)
        if found is None:
            raise FileNotFoundError(name)
        return Piece(os.dup(self._fd), *found)

    def open(self, descriptor: Descriptor) -> Piece:
        """Return a blob of the layout; see `layerrun.images.blobs.Blobs`."""
        found = self._find(blob_path(descriptor.digest))
        if found is None:
            refuse(f"is incomplete: {descriptor.digest} is missing")
        check_size(descriptor, found[1])
        return Piece(os.dup(self._fd), *found)


def _clean(name: str) -> str:
    return posixpath.normpath("/" + name).lstrip("/")
