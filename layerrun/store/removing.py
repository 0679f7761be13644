"""Removing apps: the rows go in one transaction, then the files."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from layerrun.errors import BusyError, LayerrunError
from layerrun.model import App, IdMode
from layerrun.store import profiles
from layerrun.store.freezing import drop_unused, is_gathered
from layerrun.store.fs import explain, fsync_dir, present
from layerrun.store.plans import forget_plan
from layerrun.store.staging import finish_keep

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["kept_of", "make_lockable", "remove", "remove_locked", "sweep"]

# As many ephemeral apps are swept at once; each holds a descriptor meanwhile. The rest is for later sweeps.
_MANY = 64


def remove(store: Store, app: App, *, keep_data: bool, along: Collection[str] | None) -> list[str]:
    """Remove an app and its profiles; see `Store.remove_app`."""
    for one in (app, *store.catalog.profiles(app.id)):
        make_lockable(store, one)
    with profiles.locked(store, app, "remove") as family:
        for profile in family[1:]:
            if along is not None and profile.id not in along:
                raise BusyError(f"{profile.name!r} was made meanwhile", hint="look at it, then try again")
        return remove_locked(store, family, keep_data=keep_data)


def make_lockable(store: Store, app: App) -> None:
    """Give an app whose folder is missing a folder to lock, so that it can be removed."""
    if not present(store.fd, f"apps/{app.id}"):
        with explain("remove", app.name):
            os.makedirs(os.path.join(store.path, "apps", app.id), mode=0o700, exist_ok=True)


def remove_locked(store: Store, apps: Sequence[App], *, keep_data: bool = False) -> list[str]:
    """Remove apps, each with all its profiles among them, in one step. The caller holds their locks.

    Returns the paths of the data that was kept. Raises `BusyError` when one has got another profile.
    """
    ids = IdMode.SUBIDS if any(app.ids is IdMode.SUBIDS for app in apps) else None
    with store.ticket(ids) as ticket:
        apps = [store.app_again(app) for app in apps]
        kept = {app.id: f"{app.name}-{app.id}" for app in apps if keep_data and not app.ephemeral}
        for app in apps:
            if app.id in kept and not is_gathered(store, app):
                raise BusyError(f"{app.name!r} has layers that were frozen meanwhile", hint="try again")
            forget_plan(store, app.name)
        if kept:
            ticket.note({"what": "keep", "apps": [{"app": app, "as": name} for app, name in kept.items()]})
        with store.catalog.transaction():
            profiles.check_complete(store, apps)
            for app in sorted(apps, key=lambda app: app.parent is None):  # what refers to others goes first
                store.catalog.delete_app(app.id)
        with explain("remove the files of", apps[0].name):
            for id_, name in kept.items():
                finish_keep(store, id_, name)
            for app in apps:
                from layerrun.native import cgroups  # loads the C core, which looking does not need

                cgroups.remove(store.app_dir(app), app.id)
                if present(store.fd, f"apps/{app.id}"):
                    os.rename(f"apps/{app.id}", app.id, src_dir_fd=store.fd, dst_dir_fd=ticket.fd)
            fsync_dir(store.fd, "apps")
    if any(app.stack or app.generation > 1 for app in apps):
        drop_unused(store)
    return [os.path.join(store.path, "kept", name) for name in kept.values()]


def kept_of(store: Store, name: str) -> list[str]:
    """Return the paths of data that was kept of apps of this name."""
    try:
        found = os.listdir(os.path.join(store.path, "kept"))
    except FileNotFoundError:
        return []
    return [os.path.join(store.path, "kept", k) for k in sorted(found) if k.rpartition("-")[0] == name]


def sweep(store: Store) -> None:
    """Remove the ephemeral apps whose start was cut short: those whose lock can be had. Waits for nobody."""
    found = store.catalog.ephemeral()
    if not found:
        return
    with ExitStack() as held, suppress(LayerrunError, OSError):
        doomed: list[App] = []
        for id_ in found:
            with suppress(LayerrunError, OSError):
                app = store.catalog.app_by_id(id_)
                if app is not None:
                    held.enter_context(store.app_lock(app, "remove", patience=0.0))
                    doomed.append(app)
            if len(doomed) == _MANY:
                break
        if doomed:
            remove_locked(store, doomed)
