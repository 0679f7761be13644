"""Data of a fixed size (``--max-size``): where it lies, how full it is, another size. See docs/limits.md."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import LaunchError, UsageError
from layerrun.model import App
from layerrun.policy import format_size
from layerrun.store.fs import present

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["Room", "check_size", "is_image", "resize", "room", "volume_of"]


@attrs.frozen
class Room:
    """Bytes: the size of the whole, its own bookkeeping included; what is used of it; what is left for files."""

    size: int
    used: int
    left: int


def is_image(store: Store, app: App) -> bool:
    """Say whether the data of an app lies in an image."""
    data = store.open_app_dir(app, "data")
    try:
        return present(data, "image")
    finally:
        os.close(data)


def volume_of(store: Store, app: App) -> tuple[str, str] | None:
    """Return the arguments of the plan's ``volume``: ``image`` and a path, or ``memory`` and bytes; ``None`` for none.

    Raises `LaunchError` where the size cannot be held.
    """
    size = app.config.policy.max_size
    if is_image(store, app):
        return "image", os.path.join(store.app_dir(app), "data", "image")
    if size is None:
        return None
    if app.ephemeral:
        return "memory", str(size)
    if store.rootless:
        raise LaunchError(
            f"{app.name!r} is to hold at most {format_size(size)}, which only root can see to for data that stays",
            hint=f"layerrun app {app.name} --ephemeral keeps it in memory for one start; or make it without --max-size",
        )
    raise LaunchError(
        f"{app.name!r} is to hold at most {format_size(size)}, and its data was made without a size",
        hint=f"layerrun reset {app.name} begins anew",
    )


def room(store: Store, app: App) -> Room | None:
    """Return how much room the data of an app has; ``None`` where its size has no limit."""
    if not is_image(store, app):
        return None
    from layerrun.native import volumes

    path = os.path.join(store.app_dir(app), "data", "image")
    data = store.open_data(app)
    try:
        used, left = volumes.room(data)
    finally:
        os.close(data)
    return Room(os.stat(path).st_size, used, left)


def check_size(store: Store, app: App, size: int | None) -> None:
    """Raise `UsageError` unless the data of an app can be given this size without a loss: it grows, or is empty."""
    from layerrun.runtime import data

    old = app.config.policy.max_size
    if size == old or store.rootless or (old is not None and size is not None and size > old):
        return
    for one in (app, *store.profiles(app)):
        if data.usage(store, one).entries:
            what = "made smaller" if size is not None and old is not None else "moved to another place"
            raise UsageError(
                f"what {one.name!r} holds cannot be {what}",
                hint=f"`layerrun reset {one.name}` first, or give a larger --max-size",
            )


def resize(store: Store, app: App) -> None:
    """Give the data of an app the size that its configuration says now, after `check_size` found that this can be."""
    size = app.config.policy.max_size
    if store.rootless:
        return
    found = room(store, app)
    if found is None if size is None else (found is not None and found.size == size):
        return
    if found is None or size is None or size < found.size:
        store.reset_app(app.name, only=app.id)
        return
    from layerrun.native import volumes

    with store.app_lock(app, "edit"):
        fd = store.open_app_dir(app, "data")
        try:
            volumes.grow_image(fd, size)
        finally:
            os.close(fd)
