"""How much an app holds, for the commands that show it or are about to destroy it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerrun.cli.output import plural, size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["sized"]


def sized(store: Store, apps: Iterable[App]) -> list[str]:
    """Return a line for each app: its name, the space its data takes, and in how many entries."""
    from layerrun.runtime import data

    lines = []
    for app in apps:
        usage = data.usage(store, app)
        lines.append(f"{app.name}: {size(usage.allocated)} in {plural(usage.entries, 'entry', 'entries')}")
    return lines
