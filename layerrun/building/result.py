"""From what a recipe came to, to the app: its layers are the app's factory state from then on."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from layerrun.building.build import Built, Quiet, Watch, build, stack_over
from layerrun.building.recipe import Recipe
from layerrun.errors import BuildError, BusyError, NotFoundError, UsageError
from layerrun.model import App, AppConfig, AppKind, Base, Layer
from layerrun.runtime import apps
from layerrun.runtime.units import dress, is_touched, layer_folder
from layerrun.store import profiles
from layerrun.store.freezing import drop_unused
from layerrun.store.fs import open_dir
from layerrun.store.making import Beginning, now
from layerrun.store.plans import forget_plan

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = [
    "Recipe",
    "apply",
    "built_layers",
    "existing",
    "has_data",
    "is_current",
    "rebuild",
    "rebuild_all",
    "recipe_of",
]


def existing(store: Store, name: str) -> App | None:
    """Return the app that is to be built anew, ``None`` if it is to be made. `UsageError` if it is none that can be."""
    try:
        app = store.app(name)
    except NotFoundError:
        return None
    if app.kind is not AppKind.APP or app.parent is not None:
        what = "a profile" if app.parent is not None else "a throwaway"
        raise UsageError(f"{name!r} is {what}, and cannot be built", hint="build an app of another name")
    return app


def recipe_of(store: Store, app: App) -> Recipe | None:
    """Return the recipe that an app was built by."""
    found = store.catalog.recipe(app.id)
    return None if found is None else Recipe.from_json(found[0])


def built_layers(store: Store, app: App) -> list[Layer]:
    """Return the layers at the bottom of an app's factory state that steps of a build have come to."""
    found = []
    for id_ in app.config.layers:
        layer = store.catalog.layer(id_)
        if layer is None or "step" not in layer.origin:
            break
        found.append(layer)
    return found


def has_data(store: Store, app: App) -> bool:
    """Say whether an app has anything above its factory state. It must not run."""
    if app.frozen:
        return True
    with store.app_lock(app, "look"):
        return is_touched(store, store.app_again(app))


def is_current(store: Store, app: App, recipe: Recipe, built: Built) -> bool:
    """Say whether an app is what a recipe came to already."""
    known = store.catalog.recipe(app.id)
    wanted = recipe.configured(app.config, built.layers)
    return known is not None and known[0] == recipe.to_json() and wanted == app.config


def apply(
    store: Store, name: str, recipe: Recipe, built: Built, *, before: tuple[str, ...] | None = None
) -> App:
    """Make the app ``name``, or give the one that is there another factory state; what it has above that stays.

    Neither it nor a profile of it may run. ``before``: the layers that are to go; `BusyError` if it has others by now.
    Raises `BusyError`, `UsageError`.
    """
    app = existing(store, name)
    made = _make(store, name, recipe, built) if app is None else _change(store, app, recipe, built, before)
    drop_unused(store)
    return made


def _make(store: Store, name: str, recipe: Recipe, built: Built) -> App:
    config = recipe.configured(AppConfig(), built.layers)
    model = App("", name, AppKind.APP, config, built.ids, None, "", 1)

    def dressed(dir_fd: int, path: str) -> None:
        _dress(store, model, dir_fd, path)

    def recorded(app_id: str) -> None:
        _check_base(store, recipe, built)
        store.catalog.set_recipe(app_id, recipe.to_json(), now())

    return apps.create(store, name, config, ids=built.ids, begin=Beginning((), dressed, recorded))


def _dress(store: Store, model: App, dir_fd: int, path: str) -> None:
    with ExitStack() as opened:
        data = open_dir(dir_fd, path)
        opened.callback(os.close, data)
        for layer in model.stack[-1:]:
            dress(model, data, opened.enter_context(layer_folder(store, layer)))


def _check_base(store: Store, recipe: Recipe, built: Built) -> None:
    """Raise `BusyError` if the base is another version by now; within a transaction."""
    found = store.catalog.base(recipe.base)
    if found is None or found.id != built.base.id:
        raise BusyError(f"the base {recipe.base!r} was switched during the build", hint="build again")


def _change(store: Store, app: App, recipe: Recipe, built: Built, before: tuple[str, ...] | None) -> App:
    if app.ids is not built.ids:
        raise UsageError(
            f"the files of {app.name!r} have ids of the kind {app.ids.value}, what was built {built.ids.value}",
            hint="build an app of another name",
        )
    with profiles.locked(store, app, "build") as family:
        app = family[0]
        _check_unchanged(app, built, before)
        config = apps.checked(recipe.configured(app.config, built.layers), app)
        for one in family:
            forget_plan(store, one.name)
        with store.catalog.transaction():
            profiles.check_complete(store, family)
            _check_base(store, recipe, built)
            _check_unchanged(store.app_again(app), built, app.config.layers)
            store.catalog.configure_app(app.id, config, built.base.id)
            store.catalog.set_recipe(app.id, recipe.to_json(), now())
        return store.app_again(app)


def _check_unchanged(app: App, built: Built, before: tuple[str, ...] | None) -> None:
    """Raise `BusyError` if an app has neither the layers that it had before nor those that were built."""
    if before is not None and app.config.layers not in (before, built.layers):
        raise BusyError(f"{app.name!r} was changed during the build", hint="build again")


def rebuild(store: Store, app: App, base: Base, *, watch: Watch | None = None) -> tuple[str, ...] | None:
    """Run the recipe of an app over another base, and return the layers of its factory state there, the lowest first.

    What was frozen above what was built stays above it. The app stays as it is: giving it the layers is the caller's.
    Files that the recipe adds are those of the last build, whatever has become of the recipe's folder. ``None``: it
    has no recipe, or its layers are no more what that came to.

    Raises as `build`.
    """
    recipe = recipe_of(store, app)
    known = built_layers(store, app)
    if recipe is None or (not known and app.config.layers):
        return None
    built = build(store, recipe, stack_over(base, app.ids), built=known, watch=watch)
    return built.layers + app.config.layers[len(known) :]


def rebuild_all(
    store: Store, base: Base, told: Callable[[str], None] | None = None
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Rebuild all apps that stand on the base of which ``base`` is a version, and have a recipe.

    Returns by app's id the layers that it has, and those over it. ``told`` hears which app is built, and what a step
    that fails has said.
    Raises `BuildError`, naming the app.
    """
    found = {}
    standing = set(store.catalog.slot_apps(base.name))  # those that went back by themselves among them
    for app in store.apps(AppKind.APP):
        if app.id not in standing or app.parent is not None or store.catalog.recipe(app.id) is None:
            continue
        if told is not None:
            told(f"building {app.name} over {base.full_name}")
        watch = Quiet()
        try:
            layers = rebuild(store, app, base, watch=watch)
        except (BuildError, UsageError) as error:
            if told is not None:
                for line in watch.said:
                    told(f"  {line}")
            raise BuildError(f"{app.name!r} cannot be built over it: {error}", hint=error.hint) from error
        if layers is not None:
            found[app.id] = app.config.layers, layers
    return found
