"""``build``: an app from a recipe, step by step."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import Verb, ask, ask_before, open_store
from layerrun.cli.options import app_argument, json_option, kill_option, yes_option
from layerrun.cli.output import emit, line, lines, plural, printable, quoted, say, size

if TYPE_CHECKING:
    from layerrun.building.build import Built, Done
    from layerrun.building.check import Unlike
    from layerrun.building.recipe import Recipe
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["build"]

_FILE = "build.toml"


@click.command(
    cls=Verb,
    examples=[
        ("layerrun build web", "the app web, by build.toml in this folder"),
        ("layerrun build -f site/build.toml", "by another recipe, which says the name"),
        ("layerrun build web --dry-run", "which steps are known, and which would run"),
        ("layerrun build web --check-reproducible", "run each step once more, and name what differs"),
        ("layerrun build web --debug", "a shell where a step has failed"),
    ],
)
@app_argument(required=False)
@click.option(
    "-f",
    "--file",
    "source",
    metavar="FILE",
    type=click.Path(readable=False),
    help=f"The recipe, or the folder that has it; - is standard input.  [default: {_FILE}]",
)
@click.option("--base", metavar="BASE", help="Another base than the recipe says.")
@click.option("--no-cache", is_flag=True, help="Run all steps, also those that are known.")
@click.option(
    "--check-reproducible",
    "check",
    is_flag=True,
    help="Run each step again; 1 if any comes to something else.",
)
@click.option("--debug", is_flag=True, help="If a step fails, open a shell where it ran.")
@click.option("-v", "--verbose", is_flag=True, help="Show what steps say, at once.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing unless it fails.")
@click.option("--dry-run", is_flag=True, help="Run nothing; say which steps would be run.")
@kill_option
@yes_option
@json_option
def build(
    *,
    name: str | None,
    source: str | None,
    base: str | None,
    no_cache: bool,
    check: bool,
    debug: bool,
    verbose: bool,
    quiet: bool,
    dry_run: bool,
    kill: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Build the app NAME by a recipe: each step runs over the base, and what it changes becomes a layer of the app.

    A step that is known already is not run again. The layers are the app's factory state, to which a reset goes back;
    what an app that is there has written since stays above them. If a step fails, the app stays as it is.
    """
    import attrs

    recipe = _read(source)
    if base is not None:
        recipe = attrs.evolve(recipe, base=base)
    name = _named(name, recipe)
    with open_store() as store:
        from layerrun.building.build import foresee, stack_over
        from layerrun.building.result import existing

        app = existing(store, name)
        on = stack_over(store.base(recipe.base), None if app is None else app.ids)
        known = [] if no_cache else foresee(store, recipe, on)
        if dry_run:
            return _foretell(recipe, known, as_json=as_json)
        if app is not None:
            _may_change(store, app, recipe, known, yes=yes, kill=kill)
        before = () if app is None else app.config.layers
        began = time.monotonic()
        built = _built(
            store, recipe, on, no_cache=no_cache, debug=debug, verbose=verbose, quiet=quiet or as_json
        )
        unlike = _checked(store, recipe, built, quiet=quiet or as_json) if check else None
        changed = _apply(store, name, recipe, built, before, kill=kill)
    if as_json:
        emit(_record(name, built, unlike) | {"changed": changed})
    else:
        _tell(name, built, unlike, time.monotonic() - began, changed=changed, quiet=quiet)
    return 1 if unlike else 0


def _read(source: str | None) -> Recipe:
    """Return the recipe in a file, in a folder, or on standard input."""
    from layerrun.config import recipe

    if source == "-":
        text = sys.stdin.buffer.read(recipe.MOST).decode(errors="replace")
        return recipe.recipe_from(text, "the recipe")
    return recipe.read_recipe(source or _FILE)


def _named(name: str | None, recipe: Recipe) -> str:
    from layerrun.model import check_name

    if name is None and recipe.name is None:
        raise click.UsageError("what is it called? The recipe does not say its name: layerrun build NAME")
    return check_name(name or recipe.name or "")


def _may_change(store: Store, app: App, recipe: Recipe, known: list[Done], *, yes: bool, kill: bool) -> None:
    """See to it that an app that is there may be changed: that it does not run, and that somebody wants it."""
    from layerrun.building.result import built_layers, has_data
    from layerrun.errors import BusyError

    layers = tuple(done.layer.id for done in known if done.layer is not None)
    if len(known) == len(recipe.steps) and layers == app.config.layers:
        return  # nothing becomes of its layers
    try:
        data = has_data(store, app)
    except BusyError:
        if not kill:
            raise
        data = True
    others = len(app.config.layers) - len(built_layers(store, app))
    if not data and not others:
        return
    if ask_before(f"build gives {app.name} another factory state", yes=yes):
        told = []
        if data:
            told.append(f"{app.name}: what it has written stays, above what is built; `reset` drops it")
        if others:
            told.append(
                f"{app.name}: {plural(others, 'layer')} of its factory state will be gone, which no build has made"
            )
        ask("Build it?", told)


def _built(
    store: Store, recipe: Recipe, on: Any, *, no_cache: bool, debug: bool, verbose: bool, quiet: bool
) -> Built:
    from layerrun.building.build import build as run
    from layerrun.cli.buildlog import BuildLog
    from layerrun.errors import BuildError

    with closing(BuildLog(recipe.steps, verbose=verbose, quiet=quiet, debug=debug)) as log:
        try:
            return run(store, recipe, on, fresh=no_cache, shell=debug, watch=log)
        except BuildError as error:
            hint = error.hint or (None if debug else "layerrun build --debug opens a shell there")
            raise BuildError(f"the build has failed: {error}", hint=hint, status=error.status) from None


def _checked(store: Store, recipe: Recipe, built: Built, *, quiet: bool) -> list[Unlike]:
    from layerrun.building.check import check
    from layerrun.cli.buildlog import BuildLog

    if not quiet:
        say("running each step again, to compare")
    with closing(BuildLog(recipe.steps, quiet=quiet)) as log:
        return check(store, recipe, built, log)


def _apply(
    store: Store, name: str, recipe: Recipe, built: Built, before: tuple[str, ...], *, kill: bool
) -> bool:
    """Give the app what was built; say whether that changed anything."""
    from layerrun.building.result import apply, existing, is_current
    from layerrun.runtime import instances

    app = existing(store, name)
    if app is not None and is_current(store, app, recipe, built):
        return False
    if app is None:
        apply(store, name, recipe, built, before=before)
    else:
        going = [app, *store.profiles(app)]
        instances.ended_first(
            store, going, lambda: apply(store, name, recipe, built, before=before), kill=kill
        )
    return True


def _foretell(recipe: Recipe, known: list[Done], *, as_json: bool) -> int:
    """Tell which steps are known; of those behind the first that is not, nothing is."""
    count = len(known)
    if as_json:
        steps = [
            {
                "step": step.title,
                "cached": number < count,
                "key": known[number].key if number < count else None,
            }
            for number, step in enumerate(recipe.steps)
        ]
        emit({"base": recipe.base, "steps": steps})
        return 0
    lines(
        f"{'cached' if number < count else 'run' if number == count else 'then':<7} {printable(step.title)}"
        for number, step in enumerate(recipe.steps)
    )
    return 0


def _record(name: str, built: Built, unlike: list[Unlike] | None) -> dict[str, Any]:
    steps = [
        {
            "step": done.step.title,
            "cached": done.cached,
            "seconds": round(done.seconds, 3),
            "layer": None if done.layer is None else done.layer.id,
            "digest": None if done.layer is None else done.layer.digest,
            "entries": 0 if done.layer is None else done.layer.entries,
            "size": 0 if done.layer is None else done.layer.size,
        }
        for done in built.steps
    ]
    found: dict[str, Any] = {
        "name": name,
        "base": built.base.full_name,
        "base_digest": built.base.digest,
        "digest": built.digest,
        "steps": steps,
    }
    if unlike is not None:
        found["reproducible"] = not unlike
        found["differences"] = [{"step": one.step, "path": one.path, "how": one.how} for one in unlike]
    return found


def _tell(
    name: str, built: Built, unlike: list[Unlike] | None, seconds: float, *, changed: bool, quiet: bool
) -> None:
    if unlike:
        for number in sorted({one.step for one in unlike}):
            line(
                f"step {number} comes to something else each time: {printable(built.steps[number - 1].step.title)}"
            )
            lines(f"  {quoted(one.path)}: {one.how}" for one in unlike if one.step == number)
    if quiet:
        return
    total = sum(done.layer.size or 0 for done in built.steps if done.layer is not None)
    known = sum(done.cached for done in built.steps)
    what = f"{plural(len(built.layers), 'layer')}, {size(total)}, {built.digest[:19]}"
    how = "is built" if changed else "is as it was"
    say(f"{name} {how}: {what}; {plural(known, 'step')} of {len(built.steps)} cached, {seconds:.1f} s")
    if unlike is not None and not unlike:
        say("each step has come to the same again")
