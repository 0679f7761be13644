"""What readers of file systems in files yield: see `layerrun.images.unpacking`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn, Protocol

import attrs

from layerrun.errors import ArchiveError

__all__ = ["Node", "Reader", "refuse"]


@attrs.frozen
class Node:
    """An inode: ``kind`` is a letter of csrc/stream.h or ``s`` for a socket; ``inner`` is the reader's own."""

    kind: str
    number: int
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int = 0
    links: int = 1
    target: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = attrs.field(factory=dict)
    inner: Any = None


class Reader(Protocol):
    """A file system in a file; it raises `ArchiveError`, `ValueError` or the like where that is damaged."""

    def root(self) -> Node:
        """Return the root folder."""

    def entries(self, folder: Node) -> Iterator[tuple[bytes, Node]]:
        """Yield what is in a folder."""

    def content(self, file: Node) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) of a file, holes left out."""


def refuse(why: str, path: bytes | None = None) -> NoReturn:
    """Raise `ArchiveError` about the image, or about an entry of it."""
    about = "the image" if path is None else f"the image's entry {os.fsdecode(path)!r}"
    raise ArchiveError(f"{about} {why}", hint="nothing of it was kept")
