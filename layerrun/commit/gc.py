"""What can be removed to make room, on request only: `layerrun gc`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from layerrun.bases import pulled, records, sharing, versions
from layerrun.commit import aging
from layerrun.runtime import old_builds, old_snapshots, step_caches
from layerrun.store.garbage import Garbage

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["DAYS", "SOURCES", "garbage"]

# How old undo data gets before `layerrun gc` takes it for garbage.
DAYS = 30

# Each gives what it would remove of what is older than so many seconds; whoever keeps something adds one.
SOURCES: tuple[Callable[[Store, float], list[Garbage]], ...] = (
    aging.garbage,
    old_snapshots.garbage,
    old_builds.garbage,
    step_caches.garbage,
    records.garbage,
    sharing.garbage,
    versions.garbage,
    pulled.garbage,
)


def garbage(store: Store, older_than: float = DAYS * 86400.0) -> list[Garbage]:
    """Return what can be removed that is older than ``older_than`` seconds; nothing is removed yet."""
    return [one for source in SOURCES for one in source(store, older_than)]
