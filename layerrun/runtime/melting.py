"""Frozen layers made an upper again: for what can do with an upper alone, such as a commit to the host."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from layerrun.errors import NotFoundError
from layerrun.model import App
from layerrun.runtime import jobs, snapshots
from layerrun.runtime.units import layer_folder, note_since, since
from layerrun.runtime.uppers import read_roots, write_roots
from layerrun.store import making
from layerrun.store.freezing import Restack, drop_unused, restack
from layerrun.store.fs import explain, open_dir
from layerrun.store.pair import make_data
from layerrun.store.plans import forget_plan

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["melt"]


def melt(store: Store, app: App) -> App:
    """Put all that an app over the host has frozen into its upper, and return it as it is then; it must not run.

    It shows the same as before, and its snapshots stay: what they hold is copied, since what an upper has is written
    to. Raises `BusyError`, and `UsageError` where an app has no frozen layers because it cannot have any.
    """
    with snapshots.locked(store, app, "commit") as now:
        if not now.stack:
            return now
        forget_plan(store, now.name)
        with store.ticket(now.ids) as ticket:
            with explain("put the layers together of", now.name):
                make_data(
                    ticket.fd,
                    "next",
                    home=now.config.home,
                    root=making.root_status(store, store.base(now.config.base)),
                )
                data = open_dir(ticket.fd, "next")
                try:
                    _fill(store, now, data)
                finally:
                    os.close(data)
            restack(store, now, Restack(melted=True), ticket, freeze=False)
    drop_unused(store)
    found = store.catalog.app_by_id(app.id)
    if found is None:
        raise NotFoundError(f"{app.name!r} was removed meanwhile")
    return found


def _fill(store: Store, app: App, data: int) -> None:
    """Fill the upper of a new data unit with what the app's upper and its layers hold."""
    old = store.open_data(app)
    layers = open_dir(store.fd, "layers")
    try:
        roots, begun = set(read_roots(old)), [since(old)]
        for name in app.stack:
            with layer_folder(store, name) as layer:
                roots.update(read_roots(layer))
                begun.append(since(layer))
        jobs.on_files(app, jobs.melt_job, [layers, old, data], list(reversed(app.stack)), app.ids.userxattr)
        write_roots(data, sorted(roots))
        note_since(data, begun)
        from layerrun.native.syscalls import syncfs

        syncfs(data)
    finally:
        os.close(old)
        os.close(layers)
