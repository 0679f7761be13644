"""Differences with what is in them: lines, patches, metadata, renames; as plain data, for people and programs."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from layerrun.layers.between import Difference, Stacks, differences
from layerrun.layers.contents import Reader
from layerrun.layers.delta import Stat
from layerrun.layers.metadata import metadata
from layerrun.layers.patches import contents, counted, patch
from layerrun.layers.renames import Rename, renames
from layerrun.native.trees import type_name

__all__ = ["details"]


def details(
    stacks: Stacks, *, wanted: Iterable[str], userxattr: bool, cross_mounts: bool, **options: Any
) -> list[dict[str, Any]]:
    """Return a record for each difference.

    Args:
        stacks: the layers to compare.
        wanted: ``lines``, ``patch`` (either finds renames, and looks into folders that are gone), ``meta``.
        userxattr: as for `differences`; cross_mounts and the other options likewise.
        cross_mounts: see there.
        options: see there.

    Returns:
        Plain data: ``change``, ``path`` (absolute), ``type``, ``size``, ``old_type``, ``old_size`` as of
        `layerrun.changes.Change`; with ``lines``: ``added`` and ``removed``, in lines, ``None`` for what is no text;
        with ``patch``: that, a string with surrogate escapes; with either ``renamed_from`` and ``similarity``, and what
        was renamed is one record, of letter ``R``, and not an A and a D; with ``meta``: a list, see `metadata`.
    """
    wanted = set(wanted)
    deep = bool(wanted & {"lines", "patch"})
    flags = {"userxattr": userxattr, "cross_mounts": cross_mounts}
    reader = Reader(stacks.all, **flags)
    found = list(differences(stacks, deep=deep, **flags, **options))
    moved = {id(rename.new): rename for rename in renames(found, reader)} if deep else {}
    gone = {id(rename.old) for rename in moved.values()}
    return [
        _record(difference, moved.get(id(difference)), wanted, reader)
        for difference in _ordered(found)
        if id(difference) not in gone
    ]


def _ordered(found: Sequence[Difference]) -> Iterator[Difference]:
    """Yield a folder that became something else after what was in it: a patch is followed from top to bottom."""
    waiting: list[Difference] = []
    for difference in found:
        while waiting and not difference.path.startswith(waiting[-1].path + b"/"):
            yield waiting.pop()
        if difference.letter == "T" and difference.old is not None and difference.old.is_dir:
            waiting.append(difference)
        else:
            yield difference
    yield from reversed(waiting)


def _record(
    difference: Difference, rename: Rename | None, wanted: set[str], reader: Reader
) -> dict[str, Any]:
    before = rename.old if rename else difference
    old, new = before.old, difference.new
    record: dict[str, Any] = {
        "change": "R" if rename else difference.letter,
        "path": "/" + os.fsdecode(difference.path),
        "type": type_name(new.mode) if new else None,
        "size": _size(new),
        "old_type": type_name(old.mode) if old else None,
        "old_size": _size(old),
    }
    if wanted & {"lines", "patch"}:
        read = contents(before if old else None, difference if new else None, reader)
        record["renamed_from"] = "/" + os.fsdecode(before.path) if rename else None
        record["similarity"] = rename.similarity if rename else None
        if "lines" in wanted:
            record["added"], record["removed"] = counted(read) or (None, None)
        if "patch" in wanted:
            record["patch"] = patch(difference, read, rename).decode("utf-8", "surrogateescape")
    if "meta" in wanted:
        whole = difference._replace(old=before.old, old_layer=before.old_layer)
        record["meta"] = metadata(whole, reader) if rename is None else []
    return record


def _size(seen: Stat | None) -> int | None:
    if seen is None:
        return None
    return seen.size if stat.S_ISREG(seen.mode) else 0
