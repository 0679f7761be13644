"""``reset``, ``clear-cache`` and ``du``: an app's data."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from layerrun.cli.changes import shown
from layerrun.cli.common import Verb, ask, ask_before, chosen, nothing, open_store
from layerrun.cli.options import app_argument, json_option, kill_option, yes_option
from layerrun.cli.output import emit, lines, quoted, size, table
from layerrun.cli.sizes import kind_of, measured, sized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerrun.model import App
    from layerrun.native.trees import Usage
    from layerrun.store.store import Store

__all__ = ["clear_cache", "du", "reset"]


@click.command(
    cls=Verb,
    examples=[
        ("layerrun reset web", "ask, naming the size, then clear web's data"),
        ("layerrun reset -y web db", "clear two, without asking"),
        ("layerrun reset --all --dry-run", "what clearing all apps would clear"),
        ("layerrun reset -y --kill web", "end web if it runs, then clear its data"),
        ("layerrun reset web --path '/etc/nginx/**'", "let the base show through again there alone"),
    ],
)
@app_argument("names", many=True, required=False)
@click.option(
    "--all", "every", is_flag=True, help="All apps and profiles (throwaways are discarded, not reset)."
)
@click.option(
    "--path", "globs", multiple=True, metavar="GLOB", help="Only here: * within a name, ** across /."
)
@click.option("--dry-run", is_flag=True, help="Say what would be cleared, and do nothing.")
@kill_option
@yes_option
def reset(
    *, names: tuple[str, ...], every: bool, globs: tuple[str, ...], dry_run: bool, kill: bool, yes: bool
) -> int:
    """Clear the data of the apps NAME, which must not be running: the next start sees the base again.

    Shares, other apps, profiles and the configuration stay; a profile is named as NAME@PROFILE. It takes no longer
    for a large app than for an empty one.
    """
    if every == bool(names):
        raise click.UsageError(
            "name the apps, or say --all" if not names else "names and --all exclude each other"
        )
    asking = not dry_run and ask_before("reset destroys data", yes=yes)
    with open_store() as store:
        from layerrun.runtime import data, instances

        apps = chosen(store, names, every=every)
        if globs:
            return _reset_paths(store, apps, globs, dry_run=dry_run, asking=asking, kill=kill)
        if dry_run:
            lines(sized(store, apps))
            return 0
        if asking and apps:
            ask("Clear all of this data?", sized(store, apps))
        for app in apps:
            instances.ended_first(store, [app], partial(data.reset, store, [app]), kill=kill)
        if every:
            from layerrun.store.spares import drop_idle

            drop_idle(store)
    return 0


def _reset_paths(
    store: Store, apps: Sequence[App], globs: Sequence[str], *, dry_run: bool, asking: bool, kill: bool
) -> int:
    from layerrun.runtime import data, instances

    if asking or dry_run:
        found = [(app, data.matching(store, app, globs)) for app in apps]
        rows = [f"{app.name}: {shown(change)}" for app, changes in found for change in changes]
        if dry_run:
            lines(rows)
            return 0
        if rows:
            ask("Let the base show through again at these paths?", rows)
    for app in apps:
        reset = partial(data.reset_paths, store, app, list(globs))
        back = instances.ended_first(store, [app], reset, kill=kill)
        lines(quoted(path) for path in back)
    return 0


@click.command(
    "clear-cache",
    cls=Verb,
    examples=[
        ("layerrun clear-cache web", "ask, then drop ~/.cache, /var/cache and the paths web names"),
        ("layerrun clear-cache -y web db", "drop those of two, without asking"),
    ],
)
@app_argument("names", many=True)
@yes_option
def clear_cache(names: tuple[str, ...], yes: bool) -> int:
    """Drop the cache paths of the apps NAME alone: ~/.cache, /var/cache and those made with create --cache.

    Prints the paths that were dropped; the base shows through there again.
    """
    asking = ask_before("clear-cache destroys data", yes=yes)
    with open_store() as store:
        from layerrun.runtime import data

        apps = chosen(store, names, every=False)
        if asking:
            ask("Drop these caches?", _cached(store, apps))
        for app in apps:
            lines(quoted(path) for path in data.clear_cache(store, app))
    return 0


def _of(app: App, usage: Usage) -> str:
    most = app.config.policy.max_size
    return size(usage.allocated) + ("" if most is None else f" of {size(most)}")


def _cached(store: Store, apps: Sequence[App]) -> list[str]:
    from layerrun.runtime import data

    return [
        f"{app.name}: {quoted(path)} {size(usage.allocated)}"
        for app in apps
        for path, usage in data.cache_usage(store, app)
    ]


@click.command(
    cls=Verb,
    examples=[
        ("layerrun du", "the space each app and base takes"),
        ("layerrun du web --json", "of one, for a program"),
    ],
)
@app_argument("names", many=True, required=False)
@json_option
def du(names: tuple[str, ...], as_json: bool) -> int:
    """Show how much space each app, profile and throwaway takes, with its snapshots, and each version of a base.

    Folders that steps of builds keep are told as BASE:PATH; `gc` removes them.

    What several of them have in common since a branch is counted for each, and once in the total; so are files that
    several bases share. FREES is what removing an app or a base would give back: of its layers, what nothing else has.
    """
    with open_store() as store:
        from layerrun.bases import sharing

        apps = chosen(store, names, every=False) if names else store.apps()
        used, total, frees = measured(store, apps)
        for id_, more in sharing.frees_of_layers(store, [app for app, _ in used]).items():
            frees[id_] += more
        from layerrun.runtime import step_caches

        bases, shared = ([], 0) if names else sharing.uses(store)
        caches = [] if names else list(step_caches.kept(store))
    total += shared + sum(cache.allocated for cache in caches)
    rows = [
        {
            "name": app.name,
            "kind": app.kind.value,
            "parent": app.parent_name,
            "profile": app.profile,
            "entries": usage.entries,
            "apparent": usage.apparent,
            "allocated": usage.allocated,
            "frees": frees[app.id],
            "max_size": app.config.policy.max_size,
        }
        for app, usage in used
    ]
    if as_json:
        stored = [
            {
                "name": use.base.name,
                "version": use.base.version,
                "entries": use.base.entries,
                "size": use.base.size,
                "allocated": use.all,
                "frees": use.frees,
            }
            for use in bases
        ]
        folders = [{"base": one.base, "path": one.path, "allocated": one.allocated} for one in caches]
        emit({"apps": rows, "bases": stored, "caches": folders, "total": total})
        return 0
    shown = [
        [a.name, kind_of(a), f"{u.entries:,}", size(u.apparent), _of(a, u), size(frees[a.id])]
        for a, u in used
    ]
    for use in bases:
        b = use.base
        shown.append([b.full_name, "base", f"{b.entries:,}", size(b.size), size(use.all), size(use.frees)])
    shown += [[f"{one.base}:{one.path}", "cache", "", "", *2 * [size(one.allocated)]] for one in caches]
    if not shown:
        nothing("nothing in the store")
        return 0
    shown.append(["total", "", "", "", size(total), ""])
    table(["NAME", "KIND", ">ENTRIES", ">APPARENT", ">ON DISK", ">FREES"], shown)
    return 0
