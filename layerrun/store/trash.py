"""The trash: what was renamed away in no time and is deleted at leisure.

``trash/<name>`` holds files of the store's owner alone, ``trash/<name>.subids`` may hold files of
the owner's subordinate ids, which only a process in a user namespace that maps them can delete.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from layerrun.errors import LayerrunError
from layerrun.model import IdMode
from layerrun.store.fs import explain

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["empty", "in_foreground", "sweep", "to_trash"]

_SUBIDS = ".subids"
_LINKED = ".linked"  # csrc/tree.h has it, too
_STALE_SECONDS = 60.0
# Deleters started at once; the rest of a large trash is for later sweeps.
_DELETERS = 8


def in_foreground() -> bool:
    """Say whether deletions are to be waited for, as tests ask by ``$LAYERRUN_SWEEP=foreground``."""
    return os.environ.get("LAYERRUN_SWEEP") == "foreground"


def to_trash(
    store: Store, dir_fd: int, name: str, ids: IdMode | None = None, *, linked: bool = False
) -> None:
    """Take ``name`` beneath ``dir_fd`` away in one step and have it deleted in the background.

    ``ids`` says whose files it may hold; ``linked``: names of objects, which go with their last. Nothing there is fine.
    """
    try:
        os.rmdir(name, dir_fd=dir_fd)  # an empty folder needs neither trash nor deleter
        return
    except FileNotFoundError:
        return
    except OSError:
        pass
    fresh = os.urandom(8).hex() + (_LINKED if linked else "") + (_SUBIDS if ids is IdMode.SUBIDS else "")
    with explain("move to the trash", name):
        os.rename(name, fresh, src_dir_fd=dir_fd, dst_dir_fd=store.trash_fd)
    # A deletion that cannot be had now (no processes, no memory) is left to the next sweep.
    with suppress(LayerrunError, OSError):
        _delete(store, fresh, background=not in_foreground())


def empty(store: Store, *, background: bool) -> list[str]:
    """Delete everything in the trash; return the names that could not be (when not in the background)."""
    names = os.listdir(store.trash_fd)
    if background and len(names) > _DELETERS:
        first = time.time_ns() % len(names)  # not always the same: some may never go
        names = (names[first:] + names[:first])[:_DELETERS]
    if names:
        os.utime(store.trash_fd)
    left = []
    for name in names:
        try:
            _delete(store, name, background=background)
        except (LayerrunError, OSError):
            left.append(name)
    return left


def sweep(store: Store, background: bool = True) -> list[str]:
    """Finish changes cut short and empty the trash; return the trash entries that could not be deleted.

    In the background it is cheap and waits for nobody: what others are busy with is left alone, and a
    deleter that somebody started within the last minute is given its time.
    """
    from layerrun.store.staging import recover

    if os.listdir(store.staging_fd):
        recover(store, wait=0.0 if background else 10.0)
    if background and not in_foreground():
        age = time.time() - os.fstat(store.trash_fd).st_mtime
        if 0 <= age < _STALE_SECONDS:
            return []
    return empty(store, background=background and not in_foreground())


def _delete(store: Store, name: str, *, background: bool) -> None:
    if name.endswith(_SUBIDS):
        from layerrun.native import worker

        function = "layerrun.store.trash:delete_here"
        if background:
            worker.start_in_userns(function, store.trash_fd, name, pass_fds=(store.trash_fd,))
        else:
            worker.run_in_userns(function, store.trash_fd, name, pass_fds=(store.trash_fd,))
        return
    from layerrun.native import trees

    if background:
        trees.remove_in_background(store.trash_fd, os.fsencode(name))
    else:
        delete_here(store.trash_fd, name)


def delete_here(trash_fd: int, name: str) -> None:
    """Delete one entry of the trash in this process; what the worker calls within the user namespace."""
    from layerrun.native import trees

    trees.remove_tree(trash_fd, os.fsencode(name))
    if _LINKED in name:
        from layerrun.native import intake

        objects = os.open("../objects", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=trash_fd)
        try:
            intake.sweep_objects(objects)
        finally:
            os.close(objects)
