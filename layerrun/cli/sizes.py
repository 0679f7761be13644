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


def measured(store: Store, apps: Iterable[App]) -> list[tuple[App, Usage]]:
    """Return each app with what its data takes, without those that were removed meanwhile."""
    from layerrun.errors import NotFoundError
    from layerrun.runtime import data

    found = []
    for app in apps:
        with suppress(NotFoundError):
            found.append((app, data.usage(store, app)))
    return found


def sized(store: Store, apps: Iterable[App]) -> list[str]:
    """Return a line for each app: its name, the space its data takes, and in how many entries."""
    return [
        f"{app.name}: {size(usage.allocated)} in {plural(usage.entries, 'entry', 'entries')}"
        for app, usage in measured(store, apps)
    ]
