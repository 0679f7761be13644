"""Changing apps: another name, another configuration, empty data; `making` and `removing` do the rest."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import ExistsError, UsageError
from layerrun.model import HOST_BASE, App, AppConfig, Home, check_name
from layerrun.store import freezing, making, profiles
from layerrun.store.fs import explain, make_dir, present
from layerrun.store.pair import make_data
from layerrun.store.plans import forget_plan

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["configure", "rename", "reset"]


def rename(store: Store, old: str, new: str) -> App:
    """See `Store.rename_app`."""
    with store.catalog.transaction():
        app = store.app(old)
        profile = None if app.profile is None else profiles.renamed(app, new)
        if profile is None:
            check_name(new)
        for one in (app, *store.catalog.profiles(app.id)):
            forget_plan(store, one.name)
        if new != old and store.catalog.app(new) is not None:
            raise ExistsError(f"the name {new!r} is taken", hint="choose another, or remove that one first")
        if profile is None:
            store.catalog.rename_app(app.id, new)
        else:
            store.catalog.rename_profile(app.id, new, profile)
    return store.app_again(app)


def configure(store: Store, name: str, config: AppConfig) -> App:
    """See `Store.update_app`."""
    app = store.app(name)
    if app.parent is not None:
        raise UsageError(
            f"{name!r} is a profile: its configuration is that of {app.parent_name!r}",
            hint=f"change {app.parent_name}",
        )
    with profiles.locked(store, app, "edit") as family:
        store.base(config.base)
        for one in family:
            if config.home is Home.FRESH:
                _ensure_home(store, one)
            forget_plan(store, one.name)
        with store.catalog.transaction():
            profiles.check_complete(store, family)
            # Its layers are its factory state, which is data.
            layers = store.app_again(app).config.layers
            base = None if config.base == HOST_BASE else store.base(config.base).id
            store.catalog.configure_app(app.id, attrs.evolve(config, layers=layers), base)
        from layerrun.native import cgroups  # loads the C core, which looking does not need

        for one in family:
            cgroups.remove(store.app_dir(one), one.id)  # with limits that may not be meant any more
        return store.app_again(app)


def _ensure_home(store: Store, app: App) -> None:
    data = store.open_data(app)
    try:
        with explain("make the home of", app.name):
            if not present(data, "home"):
                make_dir(data, "home")
                os.fsync(data)
    finally:
        os.close(data)


def reset(store: Store, app: App) -> None:
    """Clear the data of an app; see `Store.reset_app`."""
    from layerrun.native.syscalls import RENAME_EXCHANGE, renameat2

    with store.app_lock(app, "reset"), store.ticket(app.ids) as ticket:
        app = store.app_again(app)
        base = store.base(app.config.base)
        forget_plan(store, app.name)
        fd = store.open_app_dir(app)
        try:
            with explain("clear the data of", app.name):
                make_data(
                    ticket.fd,
                    "data",
                    home=app.config.home,
                    root=making.root_status(store, base),
                    max_size=making.image_size(store, app.config),
                )
                inode = os.stat("data", dir_fd=ticket.fd).st_ino
                ticket.note({"what": "reset", "app": app.id, "inode": inode, "generation": app.generation})
                if present(fd, "data"):
                    renameat2(ticket.fd, "data", fd, "data", RENAME_EXCHANGE)
                else:
                    os.rename("data", "data", src_dir_fd=ticket.fd, dst_dir_fd=fd)
                _forget_log(fd)
                os.fsync(fd)
        finally:
            os.close(fd)
        with store.catalog.transaction():
            store.catalog.advance_app(app.id, app.generation)
    if app.frozen:
        freezing.drop_unused(store)


def _forget_log(fd: int) -> None:
    """Remove what detached commands have written (csrc/log.c); ``fd`` is the app's folder."""
    for name in ("log", "log.1", "log.new"):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=fd)
