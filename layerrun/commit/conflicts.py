"""What was changed on the host since a layer began, so that a commit of the layer would destroy it.

The kernel keeps a clock for files. An upper's entry was born when it was copied up, or made; a whiteout when the
name was removed. What lies beneath and has changed later, its time of change says so, was changed by somebody else.
overlayfs also notes whence it copied up: if another inode lies there now, it was replaced, whatever its times say.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs

from layerrun.commit.entries import Folders
from layerrun.commit.entry import CHANGES, Entry
from layerrun.errors import SystemError  # what native.trees raises
from layerrun.layers.delta import Delta, Stat
from layerrun.native import settle, trees

__all__ = ["Conflict", "Conflicts"]

CHANGED = "changed on the host since"
REPLACED = "replaced on the host since"
MADE = "made on the host since"
GONE = "gone from the host since"


@attrs.frozen
class Conflict:
    """What speaks against committing a path. ``may_force``: to overwrite what is there is possible.

    ``what`` goes on from the path: "changed on the host since".
    """

    path: str
    what: str
    may_force: bool = True


@attrs.define
class Conflicts:
    """Finds them.

    Attributes:
        host: the folders of the host.
        began: when the layer was made (ns), where a file system does not say when an entry was.
        settled: of files that a commit has changed and taken back, by inode number and time of change: when they were
            really changed last.
        melted: the upper was put together of layers: its folders do not say whether they were copied up.
    """

    host: Folders
    began: int
    settled: Mapping[tuple[int, int], int]
    melted: bool = False
    _known: dict[int, int] | None = None
    _alike: set[tuple[str, int, int]] = attrs.field(factory=set)
    _named: set[tuple[int, int]] = attrs.field(factory=set)

    def of(self, found: Sequence[Entry], taken: Callable[[Entry], bool]) -> Iterator[tuple[Entry, Conflict]]:
        """Yield each entry for which something speaks against what is to be done, with that."""
        lost: set[int] = set()
        for entry in found:
            if entry.delta.root and entry.delta.letter != "D":
                continue
            if entry.parent is not None and entry.parent.number in lost:
                lost.add(entry.number)
                continue
            if self._is_other_folder(entry) and self._acts(found, entry, taken):
                yield entry, Conflict(entry.text, REPLACED)
                continue
            if (
                entry.delta.letter not in CHANGES
                or not taken(entry)
                or (entry.delta.within and not entry.delta.origin)
            ):
                continue
            what = self._what(found, entry)
            if what == GONE:
                lost.add(entry.number)
            if what is not None:
                yield entry, Conflict(entry.text, what)

    @staticmethod
    def _acts(found: Sequence[Entry], entry: Entry, taken: Callable[[Entry], bool]) -> bool:
        """Say whether anything is to be done to a folder or in it."""
        return any(taken(other) for other in found[entry.number : entry.end])

    @staticmethod
    def _is_other_folder(entry: Entry) -> bool:
        """Say whether a folder was copied up from another than lies there now: a layer cannot move such a one."""
        new, old = entry.delta.new, entry.delta.old
        return entry.delta.origin_other and new is not None and new.is_dir and old is not None and old.is_dir

    def _came_later(self, entry: Entry) -> bool:
        """Say whether a folder around was made by the layer, and another has come to the host in its place since.

        What is in that may be older than the layer: to be moved there changes the folder's time alone.
        """
        above = None if self.melted else entry.parent
        while above is not None:
            new, old = above.delta.new, above.delta.old
            if (
                not (above.delta.origin or above.delta.root or new is None or old is None)
                and new.is_dir
                and self._effective(old.ino, old.ctime_ns) > (above.delta.since_ns or self.began)
            ):
                return True
            above = above.parent
        return False

    def _what(self, found: Sequence[Entry], entry: Entry) -> str | None:
        delta = entry.delta
        since = delta.since_ns or self.began
        if delta.old is None:
            return self._lost(found, delta)
        if delta.origin_other and self._lost(found, delta):
            return REPLACED  # else the layer has moved something else there
        if self._came_later(entry):
            return MADE
        changed = self._effective(delta.old.ino, delta.old.ctime_ns) > since
        if delta.old.is_dir and delta.letter in "DT":
            inside = self._newer(delta.path, since)
            if inside:
                return f"{CHANGED}: {os.fsdecode(inside)!r} in it"
        if not changed:
            return None
        born = delta.old.btime_ns
        return MADE if born > since and not delta.origin else CHANGED

    def _effective(self, ino: int, ctime_ns: int) -> int:
        seen = set()
        while (ino, ctime_ns) in self.settled and ctime_ns not in seen:
            seen.add(ctime_ns)
            ctime_ns = self.settled[ino, ctime_ns]
        return ctime_ns

    def _newer(self, path: bytes, since: int) -> bytes:
        """Return something in a folder that was changed later, ``b""`` for nothing."""
        fd, name = self.host.at(path)
        for inside, changed in settle.newer(fd, name, since, 1000):
            full = path + b"/" + inside
            there = self.host.look(full)
            if inside and there is not None and self._effective(there.ino, changed) > since:
                return inside
        return b""

    def _lost(self, found: Sequence[Entry], delta: Delta) -> str | None:
        """Say whether what was copied up is gone from the host, and it was not this layer that moved it."""
        if not delta.origin or delta.new is None:
            return None
        if self._known is None:
            self._note_known(found)
        assert self._known is not None
        if not delta.origin_ino:
            named = (delta.new.dev, delta.new.ino) in self._named
            return None if named or _likeness(delta.new) & self._alike else GONE
        born = self._known.get(delta.origin_ino)
        # A number is given again: what was born later is something else.
        return GONE if born is None or born > (delta.since_ns or self.began) else None

    def _note_known(self, found: Sequence[Entry]) -> None:
        """Note all on the host that the layer speaks of: inode numbers, with when each was born, and what is alike."""
        self._known = {}
        for entry in found:
            old = entry.delta.old
            if old is None:
                continue
            self._known[old.ino] = old.btime_ns
            if entry.delta.new is not None:  # a further name of this is not lost
                self._named.add((entry.delta.new.dev, entry.delta.new.ino))
            if entry.delta.letter != "=" and not old.is_dir:
                self._alike |= _likeness(old)
            if old.is_dir and entry.delta.letter in "DT":
                self._note_inside(entry.path, entry.delta.since_ns or self.began)

    def _note_inside(self, path: bytes, since: int) -> None:
        assert self._known is not None
        try:
            newer = {inside for inside, _ in settle.newer(*self.host.at(path), since, 100000)}
            for found in trees.list_tree(self.host.open(path), xattrs=False):
                if found.path not in newer:
                    self._known[found.ino] = 0
                    self._alike.add(("written", found.mtime_ns, found.size))
        except SystemError:
            return  # what we may not look into was not copied up from there


def _likeness(status: Stat) -> set[tuple[str, int, int]]:
    """Return what a copy has of its origin until it is written to, or read: a plain user is told no more."""
    if status.is_dir:
        return set()
    return {("written", status.mtime_ns, status.size), ("read", status.atime_ns, 0)}
