"""Where the documents and the layers of an image lie: in a folder, in a tar, or, once fetched, in files."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Protocol

import attrs

from layerrun.errors import ArchiveError
from layerrun.images.documents import MAX_DOCUMENT, Descriptor, check_document, refuse

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["Blobs", "FolderBlobs", "Piece", "read_document", "read_piece"]


@attrs.define
class Piece:
    """A part of a file: ``size`` bytes from ``offset``; whoever asked for it closes it."""

    fd: int
    offset: int
    size: int

    def __enter__(self) -> Piece:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self.fd)


class Blobs(Protocol):
    """A place that has blobs by digest."""

    def open(self, descriptor: Descriptor) -> Piece:
        """Return a blob, which nobody has verified; ``size`` of the descriptor is -1 if it is not known.

        Raises `ArchiveError` if it is not there or not so long.
        """


def read_document(blobs: Blobs, descriptor: Descriptor, what: str) -> bytes:
    """Return an index, a manifest or a configuration, verified by its digest."""
    with blobs.open(descriptor) as piece:
        return check_document(read_piece(piece, what), descriptor.digest, what)


def read_piece(piece: Piece, what: str) -> bytes:
    """Return the whole of a small piece."""
    if piece.size > MAX_DOCUMENT:
        refuse(f"has {what} of {piece.size:,} bytes, and no more than {MAX_DOCUMENT:,} are read")
    data = bytearray()
    while len(data) < piece.size:
        more = os.pread(piece.fd, piece.size - len(data), piece.offset + len(data))
        if not more:
            refuse(f"is cut short within {what}")
        data += more
    return bytes(data)


def check_size(descriptor: Descriptor, size: int) -> None:
    """Raise `ArchiveError` if a blob is not as long as its descriptor says."""
    if descriptor.size not in (-1, size):
        refuse(f"is damaged: {descriptor.digest} has {size:,} bytes, and {descriptor.size:,} were expected")


def blob_path(digest: str) -> str:
    """Return where a layout has a blob."""
    kind, _, number = digest.partition(":")
    return f"blobs/{kind}/{number}"


class FolderBlobs:
    """The blobs of an OCI image layout in a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def file(self, name: str) -> Piece:
        """Return a file of the layout. Raises `FileNotFoundError`, and `ArchiveError` if it is no regular file."""
        # Not one that makes us wait, such as a pipe. Links are followed: whose layout it is may place blobs anywhere,
        # and only what has the right digest is taken.
        fd = os.open(os.path.join(self.path, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise ArchiveError(f"{name!r} of the image layout is no regular file")
        return Piece(fd, 0, found.st_size)

    def open(self, descriptor: Descriptor) -> Piece:
        """Return a blob; see `Blobs`."""
        try:
            piece = self.file(blob_path(descriptor.digest))
        except FileNotFoundError:
            refuse(f"is incomplete: {descriptor.digest} is missing")
        try:
            check_size(descriptor, piece.size)
        except ArchiveError:
            os.close(piece.fd)
            raise
        return piece
