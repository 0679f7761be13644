"""From what was decided of each entry of a layer to the steps of a commit, in their order."""

from __future__ import annotations

import os
import stat
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

import attrs

from layerrun.commit.entry import CHANGES, Entry
from layerrun.commit.hardlinks import stays
from layerrun.commit.ops import Kind, Op
from layerrun.layers.delta import Stat

__all__ = ["Builder"]

_DROPPED = frozenset({"setid", "caps"})


@attrs.define
class Builder:
    """Makes the steps.

    Attributes:
        found: all entries.
        keep_privileged: setuid and setgid bits and capabilities are taken over.
        merged: paths of files whose content was merged, with the names of the prepared contents.
    """

    found: Sequence[Entry]
    keep_privileged: bool
    merged: Mapping[bytes, str]
    _links: list[int] = attrs.field(factory=list)
    _refused: list[int] = attrs.field(factory=list)
    _counts: list[int] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self._links = [entry.number for entry in self.found if entry.is_link]
        self._refused = [
            entry.number for entry in self.found if entry.delta.letter in CHANGES and not entry.taken
        ]
        takens = 0
        for entry in self.found:
            self._counts.append(takens)
            takens += entry.taken
        self._counts.append(takens)

    def build(self) -> list[Op]:
        """Return the steps: entries first, in the order of the walk, then links, then what folders are like."""
        ops, links = [], []
        made: set[int] = set()
        number = 0
        while number < len(self.found):
            entry = self.found[number]
            number += 1
            if entry.brings_folder:
                if entry.taken and self._is_whole(entry):
                    ops.append(self._put(entry))
                    number = entry.end
                elif self._takes_beneath(entry):
                    ops.append(self._make_folder(entry))
                    made.add(entry.number)
                else:
                    number = entry.end
            elif entry.is_link:
                links.append(self._link(entry))
            elif entry.taken:
                ops += self._change(entry)
        touched = self._touched([*ops, *links])
        closed = [entry for entry in self.found if entry.path in touched and _is_closed(entry)]
        return [*map(self._opening, closed), *ops, *links, *self._folders(made, touched)]

    def _opening(self, entry: Entry) -> Op:
        return self._op(Kind.META, entry, source=None, letter="", drop=frozenset())

    def _is_whole(self, entry: Entry) -> bool:
        """Say whether a new folder goes with all in it, and nothing in it is a further name of what lies elsewhere."""
        at = bisect_left(self._refused, entry.number)
        if at < len(self._refused) and self._refused[at] < entry.end:
            return False
        for number in self._links[bisect_left(self._links, entry.number) :]:
            if number >= entry.end:
                break
            anchor = self.found[number].anchor
            assert anchor is not None
            if not entry.number < anchor.number < entry.end:
                return False
        return True

    def _takes_beneath(self, entry: Entry) -> bool:
        return self._counts[entry.end] - self._counts[entry.number] > 0

    # Single steps

    def _drop(self) -> frozenset[str]:
        return frozenset() if self.keep_privileged else _DROPPED

    def _op(self, kind: Kind, entry: Entry, **more: object) -> Op:
        values: dict[str, object] = {
            "source": entry.path,
            "new": entry.delta.new,
            "old": entry.delta.old,
            "letter": entry.delta.letter if entry.taken else "",
            "drop": self._drop(),
            **more,
        }
        return Op(kind=kind, path=entry.path, **values)  # type: ignore[arg-type]

    def _put(self, entry: Entry, *, prepared: str | None = None) -> Op:
        kind = Kind.ADD if entry.delta.old is None else Kind.REPLACE
        return self._op(kind, entry, prepared=prepared)

    def _make_folder(self, entry: Entry) -> Op:
        return self._op(Kind.MKDIR, entry)

    def _link(self, entry: Entry) -> Op:
        assert entry.anchor is not None
        return self._op(Kind.LINK, entry, link_to=entry.anchor.path, drop=frozenset())

    def _change(self, entry: Entry) -> Iterator[Op]:
        letter = entry.delta.letter
        prepared = self.merged.get(entry.path)
        if letter == "D":
            yield self._op(Kind.REMOVE, entry, source=None, drop=frozenset())
        elif letter == "P":
            if not _is_folder(entry.delta.new):
                yield self._op(Kind.META, entry)
        elif letter == "M" and stays(entry):
            yield self._op(Kind.WRITE, entry, prepared=prepared)
        else:
            yield self._put(entry, prepared=prepared)

    # Folders, once all in them is done

    def _touched(self, ops: Sequence[Op]) -> dict[bytes, bool]:
        """Return the folders whose entries change, each with whether any comes or goes."""
        touched: dict[bytes, bool] = {}
        for op in ops:
            if op.kind in (Kind.META, Kind.WRITE):
                continue
            folder = op.path.rpartition(b"/")[0]
            comes = op.kind is not Kind.REPLACE or op.letter != "M"
            touched[folder] = touched.get(folder, False) or comes
        return touched

    def _folders(self, made: set[int], touched: Mapping[bytes, bool]) -> Iterator[Op]:
        left = self._left_folders()
        for entry in reversed(self.found):
            new, old = entry.delta.new, entry.delta.old
            if new is None or not new.is_dir:
                continue
            if entry.number in made:
                if entry.number not in left:
                    yield self._op(Kind.META, entry, times_only=True, letter="")
            elif old is not None and old.is_dir:
                yield from self._merged_folder(entry, new, old, touched, entry.number in left)

    def _left_folders(self) -> set[int]:
        """Return the folders of which some entry that came or went is not taken."""
        return {
            entry.parent.number
            for entry in self.found
            if entry.parent is not None and entry.delta.letter in "ADT" and not entry.taken
        }

    def _merged_folder(
        self, entry: Entry, new: Stat, old: Stat, touched: Mapping[bytes, bool], left: bool
    ) -> Iterator[Op]:
        if entry.taken and entry.delta.letter == "P":
            yield self._op(Kind.META, entry)
            return
        if entry.path in touched and _is_closed(entry):
            yield self._op(Kind.META, entry, letter="", drop=frozenset())
            return
        comes = touched.get(entry.path)
        if left:
            if comes is False:
                yield self._time(entry, old.mtime_ns)
            return
        if entry.delta.root:
            if comes is not None:
                yield self._time(entry, max(new.mtime_ns, old.mtime_ns) if comes else old.mtime_ns)
            return
        wanted = new.mtime_ns
        if old.ctime_ns > entry.delta.since_ns:
            wanted = max(wanted, old.mtime_ns)  # the host has had its own reasons since
        if comes is not None or (entry.selected and wanted != old.mtime_ns):
            yield self._time(entry, wanted)

    def _time(self, entry: Entry, mtime_ns: int) -> Op:
        new = entry.delta.new
        assert new is not None
        return self._op(
            Kind.META,
            entry,
            new=new._replace(mtime_ns=mtime_ns),
            times_only=True,
            letter="",
            drop=frozenset(),
        )


def _is_closed(entry: Entry) -> bool:
    """Say whether it is a folder of the host that its owner, who commits, may not write to."""
    old = entry.delta.old
    if old is None or not old.is_dir or entry.delta.letter not in "=P":
        return False
    return old.uid == os.geteuid() != 0 and not old.mode & stat.S_IWUSR


def _is_folder(status: Stat | None) -> bool:
    return status is not None and stat.S_ISDIR(status.mode)
