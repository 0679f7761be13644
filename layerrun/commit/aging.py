"""Undo data that is old: what `layerrun gc` removes of commits."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from layerrun.changes import Commit, CommitState
from layerrun.commit import closed, journal, marker
from layerrun.commit.entries import Folders
from layerrun.commit.finishing import forget
from layerrun.commit.places import noted_places, remove_places
from layerrun.errors import DamagedError
from layerrun.native.trees import open_beneath
from layerrun.store.fs import DIR_FLAGS
from layerrun.store.garbage import Garbage

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["garbage"]


def garbage(store: Store, older_than: float) -> list[Garbage]:
    """Return the commits that ended more than ``older_than`` seconds ago; once gone they cannot be taken back."""
    found = []
    for commit in store.catalog.commits():
        ended = (commit.ended_ns or 0) / 1e9
        if commit.state in (CommitState.DONE, CommitState.UNDONE) and time.time() - ended >= older_than:
            found.append(Garbage(_words(commit), _size(store, commit), lambda c=commit: _remove(store, c)))  # type: ignore[misc]
    return found


def _words(commit: Commit) -> str:
    return f"commit {commit.number} ({commit.name}, {commit.state.value}, {commit.created})"


def _size(store: Store, commit: Commit) -> int:
    """Return what a commit takes on disk, in the store and elsewhere."""
    try:
        folder = journal.open_folder(store.fd, commit.id)
    except DamagedError:
        return 0
    root = os.open("/", DIR_FLAGS)
    try:
        total = closed.disk_use(folder)
        for path, _ in noted_places(folder):
            try:
                fd = open_beneath(root, path.strip(b"/"), DIR_FLAGS, cross_mounts=True)
            except OSError:
                continue
            try:
                total += closed.disk_use(fd)
            finally:
                os.close(fd)
        return total
    finally:
        os.close(root)
        os.close(folder)


def _remove(store: Store, commit: Commit) -> None:
    with marker.locked(store):
        current = store.catalog.commit_by_id(commit.id)
        if current is None or current.state not in (CommitState.DONE, CommitState.UNDONE):
            return
        try:
            folder = journal.open_folder(store.fd, commit.id)
        except DamagedError:
            forget(store, commit.id)
            return
        # Cut short from here on, the next command goes on: a commit without a row is removed.
        marker.write(store, commit.id, "commit")
        with store.catalog.transaction():
            store.catalog.delete_commit(commit.id)
        root = os.open("/", DIR_FLAGS)
        host = Folders(root, cross_mounts=True)
        try:
            remove_places(folder, host, restore=False)
        finally:
            host.clear()
            os.close(root)
            os.close(folder)
        forget(store, commit.id)
