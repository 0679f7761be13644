"""``snapshot``, ``rollback``, ``history``, ``pin``, ``unpin``, ``forget``, ``branch`` and ``clone``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from layerrun.cli import completing
from layerrun.cli.common import Verb, nothing, open_store
from layerrun.cli.options import app_argument, json_option, kill_option
from layerrun.cli.output import emit, plural, say, table

if TYPE_CHECKING:
    from layerrun.model import App, Snapshot
    from layerrun.store.store import Store

__all__ = [
    "branch",
    "clone",
    "forget",
    "history",
    "pin",
    "restore",
    "rollback",
    "snapshot",
    "squash",
    "unpin",
]


@click.command(
    cls=Verb,
    examples=[
        ("layerrun snapshot web", "remember what web has now, by a number"),
        ("layerrun snapshot web before-upgrade", "the same by a name: web:before-upgrade"),
        ("layerrun snapshot --kill web", "end web first if it runs"),
    ],
)
@app_argument()
@click.argument("tag", required=False, metavar="[TAG]")
@kill_option
def snapshot(name: str, tag: str | None, kill: bool) -> int:
    """Remember all that the app or throwaway NAME has written, to go back to it later.

    It must not be running. Nothing is copied, so it takes no longer for much data than for little.
    """
    with open_store() as store:
        from layerrun.runtime import instances, snapshots

        app = store.app(name)
        made = instances.ended_first(store, [app], partial(snapshots.snapshot, store, app, tag), kill=kill)
        say(f"snapshot {app.name}:{snapshots.shown(made)}")
    return 0


@click.command(
    cls=Verb,
    examples=[
        ("layerrun rollback web", "to its last snapshot"),
        ("layerrun rollback web before-upgrade", "to the one of that name; web:before-upgrade is the same"),
        ("layerrun rollback web 3", "to the one of that number, as history lists them"),
    ],
)
@click.argument("reference", metavar="NAME[:SNAPSHOT]", shell_complete=completing.references)
@click.argument("which", required=False, metavar="[SNAPSHOT]", shell_complete=completing.snapshots)
@kill_option
def rollback(reference: str, which: str | None, kill: bool) -> int:
    """Let the app or throwaway NAME be as it was at a snapshot, which stays.

    What it has now becomes a snapshot first, so that this can be taken back.
    """
    with open_store() as store:
        app, wanted = _meant(store, reference, which)
        return _roll_back(store, app, wanted, kill=kill)


def _roll_back(store: Store, app: App, wanted: str | None, *, kill: bool) -> int:
    from layerrun.runtime import instances, snapshots

    back = partial(snapshots.rollback, store, app, wanted)
    target, kept = instances.ended_first(store, [app, *store.profiles(app)], back, kill=kill)
    say(f"{app.name} is as it was at {app.name}:{snapshots.shown(target)}")
    if kept is not None:
        say(f"what it had is {app.name}:{kept.number}")
    return 0


@click.command(
    cls=Verb,
    examples=[
        ("layerrun restore web before-upgrade /etc/nginx", "that folder as it was then; all else stays"),
        ("layerrun restore web:3 /root/notes /etc/hosts", "two paths, as they were at snapshot 3"),
        ("layerrun restore web 3", "everything, as rollback does"),
    ],
)
@click.argument("reference", metavar="NAME[:SNAPSHOT]", shell_complete=completing.references)
@click.argument("words", nargs=-1, metavar="[SNAPSHOT] [PATH]...", shell_complete=completing.words)
@kill_option
def restore(reference: str, words: tuple[str, ...], kill: bool) -> int:
    """Let the app or throwaway NAME have at each PATH, as seen inside, what it had there at a snapshot.

    What it has now becomes a snapshot first, so that this can be taken back. Without a PATH it is a rollback.
    """
    which, paths = (None, words) if ":" in reference else ((words or (None,))[0], words[1:])
    with open_store() as store:
        from layerrun.runtime import instances, restoring

        app, wanted = _must(store, reference, which)
        if not paths:
            return _roll_back(store, app, wanted, kill=kill)
        back = partial(restoring.restore, store, app, wanted, paths)
        kept = instances.ended_first(store, [app], back, kill=kill)
        if kept is not None:
            say(f"what it had is {app.name}:{kept.number}")
    return 0


def _meant(store: Store, reference: str, which: str | None = None) -> tuple[App, str | None]:
    """Return the app and the snapshot of it that ``NAME``, ``NAME:SNAPSHOT`` or ``NAME SNAPSHOT`` name."""
    from layerrun.runtime import snapshots

    name, found = snapshots.parse(reference)
    if which is not None:
        if found is not None:
            raise click.UsageError("the snapshot is named twice")
        found = snapshots.parse(f"{name}:{which}")[1]
    return store.app(name), found


def _must(store: Store, reference: str, which: str | None = None) -> tuple[App, str]:
    app, found = _meant(store, reference, which)
    if found is None:
        raise click.UsageError(f"name a snapshot: {app.name}:TAG or {app.name}:NUMBER")
    return app, found


@click.command(
    cls=Verb,
    examples=[
        ("layerrun history web", "its snapshots, the last made last"),
        ("layerrun history web --json", "for a program"),
    ],
)
@app_argument()
@json_option
def history(name: str, as_json: bool) -> int:
    """List the snapshots of the app or throwaway NAME; * is the one that it stands on now."""
    with open_store() as store:
        from layerrun.runtime import snapshots

        app = store.app(name)
        found = snapshots.history(store, app)
        if as_json:
            emit({"name": app.name, "snapshots": [_as_json(app, one) for one in found]})
            return 0
        if not found:
            nothing(f"{app.name} has no snapshots")
            return 0
        rows = [
            [
                f"{'*' if snapshots.is_current(app, one) else ''}{one.number}",
                one.tag or "",
                one.created,
                str(len(one.stack)),
                " ".join(_notes(one)),
            ]
            for one in found
        ]
    table([">NUMBER", "TAG", "CREATED", ">LAYERS", ""], rows)
    return 0


def _notes(snapshot: Snapshot) -> list[str]:
    return ["automatic"] * snapshot.automatic + ["pinned"] * snapshot.pinned


def _as_json(app: App, snapshot: Snapshot) -> dict[str, Any]:
    from layerrun.runtime.snapshots import is_current

    return {
        "number": snapshot.number,
        "tag": snapshot.tag,
        "created": snapshot.created,
        "layers": len(snapshot.stack),
        "pinned": snapshot.pinned,
        "automatic": snapshot.automatic,
        "current": is_current(app, snapshot),
    }


def _change(reference: str, which: str | None, what: str) -> int:
    with open_store() as store:
        from layerrun.runtime import snapshots

        app, found = _must(store, reference, which)
        if what == "forget":
            snapshots.forget(store, app, found)
        else:
            snapshots.pin(store, app, found, pinned=what == "pin")
    return 0


@click.command(
    cls=Verb, examples=[("layerrun pin web:before-upgrade", "neither gc nor forget takes it from now on")]
)
@click.argument("reference", metavar="NAME:SNAPSHOT", shell_complete=completing.references)
@click.argument("which", required=False, metavar="[SNAPSHOT]", shell_complete=completing.snapshots)
def pin(reference: str, which: str | None) -> int:
    """Keep a snapshot until it is unpinned, or its app removed."""
    return _change(reference, which, "pin")


@click.command(cls=Verb, examples=[("layerrun unpin web:before-upgrade", "it may go again")])
@click.argument("reference", metavar="NAME:SNAPSHOT", shell_complete=completing.references)
@click.argument("which", required=False, metavar="[SNAPSHOT]", shell_complete=completing.snapshots)
def unpin(reference: str, which: str | None) -> int:
    """Let a pinned snapshot go again."""
    return _change(reference, which, "unpin")


@click.command(
    cls=Verb, examples=[("layerrun forget web:3", "nobody can go back there; what only it had is deleted")]
)
@click.argument("reference", metavar="NAME:SNAPSHOT", shell_complete=completing.references)
@click.argument("which", required=False, metavar="[SNAPSHOT]", shell_complete=completing.snapshots)
def forget(reference: str, which: str | None) -> int:
    """Forget a snapshot; what the app has now stays as it is."""
    return _change(reference, which, "forget")


@click.command(
    cls=Verb,
    examples=[
        ("layerrun branch web test", "another app, test, that begins with what web has"),
        ("layerrun branch web:before-upgrade old", "with what web had then"),
        ("layerrun branch web web@test", "a profile of web"),
        ("layerrun branch try-3f2a web --app", "make an app of what was tried"),
    ],
)
@click.argument("reference", metavar="NAME[:SNAPSHOT]", shell_complete=completing.references)
@click.argument("new", metavar="NEW")
@click.option("--app", "as_app", is_flag=True, help="NEW is an app, though NAME is a throwaway.")
@kill_option
def branch(reference: str, new: str, as_app: bool, kill: bool) -> int:
    """Make NEW, which begins with what NAME has now, or had at a snapshot; each then goes its own way.

    Nothing is copied: what NAME has now is frozen beneath both, so it must not be running.
    """
    from layerrun.model import AppKind, check_app_name

    check_app_name(new)
    with open_store() as store:
        from layerrun.runtime import instances, snapshots

        app, found = _meant(store, reference)
        kind = AppKind.APP if as_app else None
        made = instances.ended_first(
            store, [app], partial(snapshots.branch, store, app, new, found, kind=kind), kill=kill
        )
        say(f"created {made.kind.value} {made.name}")
    return 0


@click.command(
    cls=Verb, examples=[("layerrun clone web shop", "another app with web's data and all of its snapshots")]
)
@app_argument()
@click.argument("new", metavar="NEW")
@kill_option
def clone(name: str, new: str, kill: bool) -> int:
    """Make NEW with all that NAME has: its configuration, its data, its snapshots. Nothing is copied.

    NAME must not be running. Its profiles are not taken along.
    """
    from layerrun.model import check_name

    check_name(new)
    with open_store() as store:
        from layerrun.runtime import instances, snapshots

        app = store.app(name)
        made = instances.ended_first(store, [app], partial(snapshots.clone, store, app, new), kill=kill)
        say(f"created {made.kind.value} {made.name}")
    return 0


@click.command(
    cls=Verb,
    examples=[("layerrun squash web", "one layer of all that its snapshots have piled up, while it runs")],
)
@app_argument()
@click.option("--idle", is_flag=True, hidden=True, help="At low priority, and only if nobody else is at it.")
def squash(name: str, idle: bool) -> int:
    """Make one layer of those of the app or throwaway NAME, which may be running; what it has stays the same.

    It is done by itself, in the background, where there are more than 20.
    """
    import os

    with open_store() as store:
        from layerrun.runtime.squash import squash as work

        if idle:
            os.nice(10)
        fewer = work(store, store.app(name), wait=not idle)
        say(f"{name} has {plural(fewer, 'layer')} fewer")
    return 0
