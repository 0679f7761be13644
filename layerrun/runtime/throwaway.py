"""Throwaways: layers without a name to keep, over the host or a base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerrun.errors import NotFoundError, UsageError
from layerrun.model import App, AppConfig, AppKind, IdMode
from layerrun.runtime import apps

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["start"]


def start(
    store: Store, name: str | None, base: str, hides: Sequence[str], *, ids: IdMode | None = None
) -> App:
    """Return the throwaway called ``name`` to go on with, or a new one (``None``: with a name made up).

    Raises `UsageError` when ``name`` is an app, or a throwaway over another base.
    """
    if name is not None:
        try:
            found = store.app(name)
        except NotFoundError:
            found = None
        if found is not None:
            if found.kind is not AppKind.THROWAWAY:
                raise UsageError(f"{name!r} is an app, not a throwaway", hint=f"layerrun app {name} -- CMD…")
            if found.config.base != base:
                raise UsageError(
                    f"{name!r} stands on {found.config.base}, not on {base}",
                    hint=f"--base {found.config.base}",
                )
            return found
    return apps.create(store, name, AppConfig(base=base, hides=tuple(hides)), ids=ids, kind=AppKind.THROWAWAY)
