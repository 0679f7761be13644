"""What an app is and how much it holds, for the commands that show it or are about to destroy it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from layerrun.cli.output import plural, size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from layerrun.model import App
    from layerrun.native.trees import Usage
    from layerrun.store.store import Store

__all__ = ["kind_of", "measured", "sized"]


def kind_of(app: App) -> str:
    """Return what an app is, for people."""
    if app.profile is None:
        return app.kind.value
    return "ephemeral" if app.ephemeral else "profile"


def measured(store: Store, apps: Iterable[App]) -> tuple[list[tuple[App, Usage]], int, dict[str, int]]:
    """Return each app with what it takes, snapshots and all, without those that were removed meanwhile.

    Behind it is what they take together, layers that several of them stand on counted once; and by its id what each
    has on disk without its layers.
    """
    from layerrun.errors import NotFoundError
    from layerrun.runtime import data

    known: dict[str, Usage] = {}
    found, alone = [], {}
    for app in apps:
        with suppress(NotFoundError):
            own, layers = data.usages(store, app, known)
            known |= layers
            found.append((app, data.together([own, *layers.values()])))
            alone[app.id] = own.allocated
    return found, sum(alone.values()) + sum(usage.allocated for usage in known.values()), alone


def sized(store: Store, apps: Iterable[App]) -> list[str]:
    """Return a line for each app: its name, the space that a reset would clear, and in how many entries."""
    from layerrun.errors import NotFoundError
    from layerrun.runtime import data

    found = []
    for app in apps:
        with suppress(NotFoundError):
            usage = data.usage(store, app)
            entries = plural(usage.entries, "entry", "entries")
            found.append(f"{app.name}: {size(usage.allocated)} in {entries}")
    return found
