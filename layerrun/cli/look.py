"""``list``, ``show``, ``plan`` and ``which``: read what there is."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import RunVerb, Verb, nothing, open_store
from layerrun.cli.options import app_argument, json_option, nul_option
from layerrun.cli.output import emit, fields, line, lines, nul, plural, printable, quoted, size, table
from layerrun.cli.sizes import kind_of, measured

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerrun.model import App
    from layerrun.native.trees import Usage
    from layerrun.runtime.plan import Plan
    from layerrun.runtime.reach import Reach
    from layerrun.store.store import Store

__all__ = ["list_apps", "plan", "show", "which"]


def _record(app: App) -> dict[str, Any]:
    return {
        "name": app.name,
        "kind": app.kind.value,
        "id": app.id,
        "base": app.config.base,
        "ids": app.ids.value,
        "generation": app.generation,
        "created": app.created,
        "parent": app.parent_name,
        "profile": app.profile,
        "ephemeral": app.ephemeral,
    }


@click.command(
    "list",
    cls=Verb,
    examples=[
        ("layerrun list", "names, kinds, bases, ages"),
        ("layerrun list --size", "also measure what each holds (walks it)"),
        ("layerrun list --json", "the same for a program"),
    ],
)
@click.option("--size", "sizes", is_flag=True, help="Measure each one's data.")
@json_option
def list_apps(sizes: bool, as_json: bool) -> int:
    """List the apps, each with its profiles behind it, and the throwaways that were kept."""
    with open_store() as store:
        apps = sorted(store.apps(), key=lambda app: app.kind.value)
        used = measured(store, apps)[0] if sizes else [(app, None) for app in apps]
    if as_json:
        emit({"apps": [_record(app) | (_sizes(usage) if usage else {}) for app, usage in used]})
        return 0
    head = ["NAME", "KIND", "BASE", "CREATED"] + ([">SIZE"] if sizes else [])
    table(
        head,
        (
            [app.name, kind_of(app), app.config.base, app.created]
            + ([size(usage.allocated)] if usage else [])
            for app, usage in used
        ),
    )
    if not apps:
        nothing("no apps yet; layerrun app NAME -- CMD makes one")
    return 0


def _sizes(usage: Usage) -> dict[str, int]:
    return {"entries": usage.entries, "apparent": usage.apparent, "allocated": usage.allocated}


@click.command(
    cls=Verb,
    examples=[
        ("layerrun show web", "its stack, its policy, and what becomes of each mount of the base"),
        ("layerrun show web --explain", "also why: which option or preset each thing comes from"),
        ("layerrun show web --toml", "its configuration, for `create --from` and `edit --from`"),
        ("layerrun show web --json", "all of it for a program"),
    ],
)
@app_argument()
@click.option("--explain", is_flag=True, help="Say where each thing that it can reach comes from.")
@click.option("--toml", "as_toml", is_flag=True, help="Print the configuration as TOML, and nothing else.")
@json_option
def show(name: str, explain: bool, as_toml: bool, as_json: bool) -> int:
    """Show what NAME is made of and what it can reach: base, ids, size, files, network, limits, every mount."""
    if as_toml and (as_json or explain):
        raise click.UsageError("--toml excludes --json and --explain")
    with open_store() as store:
        app = store.app(name)
        if as_toml:
            from layerrun.config.manifest import to_toml

            click.echo(to_toml(app.config), nl=False)
            return 0
        from layerrun.runtime import data, launch
        from layerrun.runtime.reach import reach

        own, layers = data.usages(store, app, {})
        used = _sizes(data.together([own, *layers.values()]))
        reached = reach(app, store.app_dir(app))
        profiles = [profile.name for profile in store.profiles(app)]
        # The mounts do not depend on the command, and an app need not have one.
        compiled = launch.compile_plan(store, app, app.config.command or ("true",))
        steps = [_step_of(store, layer) for layer in app.config.layers]
        recipe, pull = _recipe(store, app), store.catalog.pull(app.id)
        mounts = compiled.mounts
    if as_json:
        emit(
            _record(app)
            | {"uid_start": app.uid_start, "profiles": profiles, "recipe": recipe}
            | {"pulled": pull and {"reference": pull.reference, "digest": pull.digest, "at": pull.pulled}}
            | {"config": app.config.to_json()}
            | used
            | {
                "reach": [
                    {"kind": r.kind, "value": r.value, "text": r.text, "origin": r.origin} for r in reached
                ],
                "not_there": [
                    {"kind": lack.kind, "value": lack.value, "why": lack.why} for lack in compiled.lacks
                ],
                "mounts": [
                    {"path": m.path, "fstype": m.fstype, "policy": m.policy, "why": m.why} for m in mounts
                ],
            }
        )
        return 0
    config = app.config
    fields(
        {
            "name": app.name,
            "kind": kind_of(app),
            "profile of": app.parent_name or "",
            "profiles": profiles,
            "base": config.base,
            "layers": [f"{id_} {step}".rstrip() for id_, step in zip(config.layers, steps, strict=True)],
            "built": f"{recipe['built']} by {quoted(recipe['folder'] or '-')}" if recipe else "",
            "pulled": f"{pull.pulled} from {pull.reference}, {pull.digest}" if pull else "",
            "command": shlex_join(config.command),
            "env": [quoted(word) for word in config.env],
            "health": [printable(command) for command in config.health],
            "caches": [quoted(path) for path in config.caches],
            "preset": config.policy.preset,
            "not there": [quoted(str(lack)) for lack in compiled.lacks],
            "ids": _ids(app),
            "created": app.created,
            "data": f"{size(used['allocated'])} in {plural(used['entries'], 'entry', 'entries')},"
            f" generation {app.generation}",
        }
    )
    line()
    if explain:
        table(
            ["", "REACHES", "BECAUSE OF"],
            ([r.kind, printable(r.text), printable(r.origin)] for r in reached),
        )
    else:
        fields(_by_kind(reached))
    if mounts:
        line()
        table(
            ["MOUNT", "TYPE", "POLICY", "WHY"], ([quoted(m.path), m.fstype, m.policy, m.why] for m in mounts)
        )
    return 0


def _step_of(store: Store, layer: str) -> str:
    """Return what step of a build a layer comes from, ``""`` if none."""
    found = store.catalog.layer(layer)
    return "" if found is None else printable(str(found.origin.get("step", "")))


def _recipe(store: Store, app: App) -> dict[str, Any] | None:
    """Return what the recipe says that an app was built by."""
    found = store.catalog.recipe(app.id)
    if found is None:
        return None
    from layerrun.building.recipe import Recipe

    recipe = Recipe.from_json(found[0])
    steps = [step.title for step in recipe.steps]
    return {"base": recipe.base, "steps": steps, "folder": recipe.folder, "built": found[1]}


def _by_kind(reached: Sequence[Reach]) -> dict[str, list[str]]:
    shown: dict[str, list[str]] = {}
    for one in reached:
        shown.setdefault(one.kind, []).append(printable(one.text))
    return shown


def shlex_join(words: Sequence[str]) -> str:
    """Return an argv as one could type it; odd bytes are quoted."""
    import shlex

    return " ".join(quoted(w) if not w.isprintable() else shlex.quote(w) for w in words)


def _ids(app: App) -> str:
    meaning = {
        "range": f"a range of its own, host ids {app.uid_start} to {(app.uid_start or 0) + 65535}",
        "subids": "0 is you, the others are your subordinate ids",
        "single": "0 is you, and there is no other",
        "self": "your own, and no other",
        "none": "the machine's own: an undo, not a jail",
    }
    return f"{app.ids.value} ({meaning[app.ids.value]})"


@click.command(
    cls=RunVerb,
    runs=False,
    examples=[
        ("layerrun plan web", "what a start of web does, an operation a line"),
        ("layerrun plan web -- id", "the same for another command"),
        ("layerrun plan -0 web | tr '\\0' ' '", "the plan as the core gets it"),
    ],
)
@app_argument()
@json_option
@nul_option
def plan(name: str, as_json: bool, as_nul: bool, argv: tuple[str, ...] | None) -> int:
    """Print the plan that a start of NAME executes: every mount, id and limit, in order."""
    if as_json and as_nul:
        raise click.UsageError("--json and -0 exclude each other")
    with open_store() as store:
        from layerrun.runtime import launch

        app = store.app(name)
        compiled: Plan = launch.compile_plan(store, app, argv or app.config.command or ("true",))
    if as_nul:
        sys.stdout.flush()
        sys.stdout.buffer.write(compiled.to_bytes())
    elif as_json:
        emit({"name": app.name, "operations": list(compiled.lines())})
    else:
        lines(quoted(text) for text in compiled.lines())
    return 0


@click.command(
    cls=Verb,
    examples=[
        ("layerrun which web /etc/hosts", "whether web changed it, or it is the base's"),
        ("layerrun which web /etc/hosts --json", "the same for a program"),
    ],
)
@app_argument()
@click.argument("path", metavar="PATH")
@json_option
@nul_option
def which(name: str, path: str, as_json: bool, as_nul: bool) -> int:
    """Say which layer of NAME the PATH, as seen inside, comes from: upper, base, share or other.

    The exit status is 6 if there is nothing at PATH.
    """
    from layerrun.model import check_path

    wanted = check_path(path)
    with open_store() as store:
        from layerrun.runtime import data

        where = data.which(store, store.app(name), wanted)
    if as_json:
        emit({"path": where.path, "layer": where.layer, "whiteout": where.whiteout, "detail": where.detail})
    elif as_nul:
        nul([where.layer, where.path])
    else:
        deleted = " (deleted)" if where.whiteout else ""
        line(
            f"{where.layer}{deleted}  {quoted(where.path)}"
            + (f"  {quoted(where.detail)}" if where.detail else "")
        )
    return 0
