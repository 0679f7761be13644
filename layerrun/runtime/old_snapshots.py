"""Snapshots that layerrun made by itself, so that something could be taken back: what ``gc`` removes of them."""

from __future__ import annotations

import calendar
import os
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from layerrun.errors import LayerrunError, NotFoundError
from layerrun.model import Snapshot
from layerrun.runtime import jobs, snapshots
from layerrun.store.garbage import Garbage

if TYPE_CHECKING:
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["garbage"]


def garbage(store: Store, older_than: float) -> list[Garbage]:
    """Return the automatic snapshots older than so many seconds, with what only each of them holds; not pinned ones."""
    found = store.catalog.snapshots()
    held: Counter[str] = Counter()
    for _, _, layers, frozen in store.catalog.layer_lists():
        held.update({*layers, *frozen})
    for one in found:
        held.update(set(one.stack))
    old = []
    for one in found:
        app = store.catalog.app_by_id(one.app_id)
        if app is None or not one.automatic or one.pinned or _age(one) < older_than:
            continue
        own = [layer for layer in one.stack if held[layer] == 1]
        what = f"{app.name}:{one.number}, what it had before it was rolled back or restored {one.created}"
        old.append(Garbage(what, _size(store, app, own), partial(_forget, store, app, one)))
    return old


def _age(snapshot: Snapshot) -> float:
    return time.time() - calendar.timegm(time.strptime(snapshot.created, "%Y-%m-%dT%H:%M:%SZ"))


def _size(store: Store, app: App, layers: list[str]) -> int:
    total = 0
    for layer in layers:
        with suppress(OSError, LayerrunError):  # it went meanwhile
            fd = os.open(f"layers/{layer}", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=store.fd)
            try:
                total += jobs.on_files(app, jobs.usage_job, [fd])[0][2]
            finally:
                os.close(fd)
    return total


def _forget(store: Store, app: App, snapshot: Snapshot) -> None:
    with suppress(NotFoundError):
        snapshots.forget(store, app, str(snapshot.number))
