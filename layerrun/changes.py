"""What an upper changes, and what was committed of it, as values: pure data, no input or output.

Paths and times are as in `layerrun.model`.
"""

from __future__ import annotations

import enum

import attrs

__all__ = ["Change", "Commit", "CommitState", "FileType"]


class CommitState(enum.StrEnum):
    """How far a commit to the host is. Those that end in ``ing`` are under way, or were cut short."""

    APPLYING = "applying"
    DONE = "done"
    UNDOING = "undoing"
    UNDONE = "undone"
    REDOING = "redoing"


@attrs.frozen
class Commit:
    """A commit to the host as the catalog has it; its journal is in the store's ``commits/<id>/``.

    ``number`` counts from 1 and is what people call it. ``counts`` has the number of changes by letter.
    ``ended_ns`` is when it was done, last time, by the clock that the kernel gives files (ns since the epoch).
    """

    id: str
    number: int
    name: str
    state: CommitState
    created: str
    counts: dict[str, int]
    ended_ns: int | None = None
    command: tuple[str, ...] = ()


class FileType(enum.StrEnum):
    """The type of an entry, by the names of inode(7)."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHAR = "char"
    BLOCK = "block"


@attrs.frozen
class Change:
    """One difference between an upper and what lies beneath it.

    ``change`` is A added, M modified, D deleted, T another type, P metadata only. ``type`` and
    ``size`` are of what is there now, ``old_type`` and ``old_size`` of what lay beneath; ``None``
    where there is none. Sizes are those of regular files, else 0.
    """

    change: str
    path: str
    type: FileType | None
    size: int | None
    old_type: FileType | None
    old_size: int | None
