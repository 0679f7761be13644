"""Apps from recipes, for programs: what `Store.build` does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.api.app import App

if TYPE_CHECKING:
    from layerrun.api.store import Store
    from layerrun.building.build import Done
    from layerrun.building.recipe import Recipe

__all__ = ["Built", "build"]


@attrs.frozen
class Built:
    """An app that was built.

    Attributes:
        app: the app.
        digest: of the base and all layers: the same for the same recipe and base, on every machine.
        steps: each with ``step.title``, ``cached``, ``layer`` (``None``: it changed nothing) and ``seconds``.
        changed: whether the app is another than before.
    """

    app: App
    digest: str
    steps: tuple[Done, ...]
    changed: bool


def build(
    to: Store,
    recipe: str | os.PathLike[str] | Mapping[str, Any],
    name: str | None,
    base: str | None,
    *,
    fresh: bool,
    kill: bool,
) -> Built:
    """Build an app: see `Store.build`."""
    from layerrun.building import build as library
    from layerrun.building import result
    from layerrun.errors import UsageError
    from layerrun.model import check_name
    from layerrun.runtime import instances

    wanted = _read(recipe)
    if base is not None:
        wanted = attrs.evolve(wanted, base=base)
    called = name or wanted.name
    if called is None:
        raise UsageError("the recipe does not say what the app is called", hint="give a name")
    check_name(called)
    with to.opened() as store:
        app = result.existing(store, called)
        on = library.stack_over(store.base(wanted.base), None if app is None else app.ids)
        before = () if app is None else app.config.layers
        built = library.build(store, wanted, on, fresh=fresh)
        app = result.existing(store, called)
        changed = app is None or not result.is_current(store, app, wanted, built)
        if changed:
            going = [] if app is None else [app, *store.profiles(app)]
            instances.ended_first(
                store, going, lambda: result.apply(store, called, wanted, built, before=before), kill=kill
            )
        return Built(App(to, store.app(called)), built.digest, built.steps, changed)


def _read(recipe: str | os.PathLike[str] | Mapping[str, Any]) -> Recipe:
    from layerrun.config.recipe import read_recipe, recipe_of

    return recipe_of(recipe) if isinstance(recipe, Mapping) else read_recipe(os.fspath(recipe))
