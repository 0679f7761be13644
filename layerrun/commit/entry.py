"""The changes of a layer as a commit looks at them: in a list, each with what belongs to it and where that ends."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

import attrs

from layerrun.layers.delta import Delta, Stat

__all__ = ["CHANGES", "Entry", "entries", "is_copy"]

CHANGES = "AMDTP"


@attrs.define
class Entry:
    """A delta and what was decided of it.

    Attributes:
        number: its place in the list. end: behind the last of those beneath it. parent: the folder it lies in.
        selected: it is a change that is meant. taken: and it is not left out for the rights that it would give.
        anchor: the entry of whose inode it is a further name, itself if it is the first; ``None``: it has one name.
    """

    delta: Delta
    number: int
    parent: Entry | None
    end: int = 0
    selected: bool = False
    taken: bool = False
    anchor: Entry | None = None

    @property
    def path(self) -> bytes:
        """The path relative to the root."""
        return self.delta.path

    @property
    def text(self) -> str:
        """The path as people know it."""
        return "/" + os.fsdecode(self.delta.path)

    @property
    def brings_folder(self) -> bool:
        """Whether there is to be a folder where none is."""
        return self.delta.new is not None and self.delta.new.is_dir and self.delta.letter in "AT"

    @property
    def is_link(self) -> bool:
        """Whether it is to be made a further name of another entry."""
        return self.anchor is not None and self.anchor is not self


def entries(deltas: Iterable[Delta]) -> list[Entry]:
    """Return them with their folders; the order is that of a walk, folders before what is in them."""
    found: list[Entry] = []
    above: list[Entry] = []
    for delta in deltas:
        while above and not _is_beneath(delta.path, above[-1].path):
            above.pop().end = len(found)
        entry = Entry(delta, len(found), above[-1] if above else None)
        found.append(entry)
        above.append(entry)
    for entry in above:
        entry.end = len(found)
    return found


def _is_beneath(path: bytes, folder: bytes) -> bool:
    return not folder or path.startswith(folder + b"/")


def is_copy(new: Stat, old: Stat) -> bool:
    """Say whether an upper's file is the one beneath, changed, rather than another one put in its place.

    overlayfs notes nothing where the file has several names. But a copy keeps the time of access, which nothing
    inside changes (overlays are mounted noatime); a new file has that of its birth or, if it was given old times
    (``cp -p``), has both so.
    """
    if not (stat.S_ISREG(new.mode) and stat.S_ISREG(old.mode)):
        return False
    if new.atime_ns == old.atime_ns:
        return True
    return new.btime_ns > 0 and new.atime_ns < new.btime_ns <= new.mtime_ns
