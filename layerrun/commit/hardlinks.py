"""Names of one inode in a layer: on the host they are to be names of one inode as well."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from layerrun.commit.entry import Entry, is_copy

__all__ = ["changed_apart", "find_anchors", "stays"]


def stays(entry: Entry) -> bool:
    """Say whether the host's inode stays what the path names, changed in place or not at all."""
    new, old = entry.delta.new, entry.delta.old
    if new is None or old is None or entry.delta.letter in "TD":
        return False
    if entry.delta.letter == "M":
        return entry.taken and old.nlink > 1 and is_copy(new, old)
    return True


def find_anchors(found: Sequence[Entry]) -> None:
    """Set the anchors: of each inode with several names the entry that has it first, or already has it on the host."""
    groups: dict[tuple[int, int], list[Entry]] = defaultdict(list)
    for entry in found:
        new = entry.delta.new
        if new is not None and new.nlink > 1 and not new.is_dir and (entry.taken or stays(entry)):
            groups[new.dev, new.ino].append(entry)
    for group in groups.values():
        if len(group) == 1:
            continue
        anchor = next(filter(stays, group), group[0])
        for entry in group:
            if not _is_already(entry, anchor):
                entry.anchor = anchor


def _is_already(entry: Entry, anchor: Entry) -> bool:
    """Say whether the host's two names are those of one inode, which stays."""
    if entry is anchor or not (stays(entry) and stays(anchor)):
        return False
    one, two = entry.delta.old, anchor.delta.old
    return one is not None and two is not None and (one.dev, one.ino) == (two.dev, two.ino)


def changed_apart(found: Sequence[Entry]) -> Iterator[tuple[Entry, str]]:
    """Yield files of the host whose names a layer has changed apart: one file cannot have both contents.

    An upper keeps the names of one file only together if they were made in it.
    """
    first: dict[tuple[int, int], Entry] = {}
    for entry in found:
        old = entry.delta.old
        if entry.delta.letter != "M" or old is None or old.nlink < 2 or not stays(entry) or entry.is_link:
            continue
        other = first.setdefault((old.dev, old.ino), entry)
        if other is not entry:
            yield entry, f"is one file with {other.text!r}, and the layer has changed them apart"
