"""Commits that were taken back before their end: what they have touched is as before, though its time of change is not.

The time of change is what tells that the host was changed (see `conflicts`). Without a note a layer whose commit was
cut short would be in conflict with what that commit did itself.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from layerrun.commit.journal import read_json, write_json
from layerrun.commit.steps import Work
from layerrun.errors import LayerrunError
from layerrun.store.fs import open_dir

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["note", "noted"]

# In commits/, JSON: of each such commit when it began (ns) and [inode number, time of change now, and before].
_NAME = "taken-back"
# So many entries are kept, the latest.
_MOST = 200_000


def note(store: Store, work: Work) -> None:
    """Note what is as before a commit whose steps are all taken back; what else was changed meanwhile is left out."""
    began = os.stat("journal", dir_fd=work.folder).st_mtime_ns
    found = []
    for step in work.journal.steps:
        old = step.op.old
        if old is None:
            continue
        there = work.stat(step.op.path)
        if there is None or there.ino != old.ino or there.ctime_ns == old.ctime_ns:
            continue
        same_size = old.is_dir or there.size == old.size  # a folder's is not noted
        if same_size and (there.mtime_ns, there.mode) == (old.mtime_ns, old.mode):
            found.append([there.ino, there.ctime_ns, old.ctime_ns])
    if not found:
        return
    fd = open_dir(store.fd, "commits")
    try:
        batches = [(began, found[-_MOST:])]
        room = _MOST - len(found)
        for batch in _batches(fd):
            room -= len(batch[1])
            if room >= 0:
                batches.append(batch)
        write_json(fd, _NAME, batches)
    finally:
        os.close(fd)


def noted(store: Store, began: int | None) -> dict[tuple[int, int], int]:
    """Return by inode number and time of change when something was really changed last.

    ``began`` (ns): only by commits after that time, for a layer that began then.
    """
    fd = open_dir(store.fd, "commits")
    try:
        return {
            (ino, ctime): before
            for moment, entries in _batches(fd)
            if began is None or moment > began
            for ino, ctime, before in entries
        }
    finally:
        os.close(fd)


def _batches(fd: int) -> list[tuple[int, list[list[int]]]]:
    with contextlib.suppress(LayerrunError):
        return read_json(fd, _NAME) or []
    return []
