"""``base switch``, ``rollback``, ``pin``, ``unpin``, ``history``, ``versions``, ``keep``, and ``status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import Verb, ask, ask_before, nothing, open_store
from layerrun.cli.options import base_argument, complete_from, json_option, version_argument, yes_option
from layerrun.cli.output import emit, line, plural, printable, size, table

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from layerrun.model import Base, Slot
    from layerrun.store.store import Store

__all__ = ["history", "keep", "pin", "rollback", "status", "switch", "unpin", "versions"]


def _complete_own(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the number of a version of the base that was named."""

    def numbers(store: Store) -> list[str]:
        return [str(base.version) for base in store.catalog.versions(ctx.params.get("name") or "")]

    return complete_from(ctx, numbers, incomplete)


@click.command(
    cls=Verb,
    examples=[
        ("layerrun base switch debian 3", "version 3 is the current one from now on"),
        ("layerrun base switch debian debian@3 -y", "the same, without asking"),
    ],
)
@base_argument
@click.argument("version", metavar="VERSION", shell_complete=_complete_own)
@click.option("--dry-run", is_flag=True, help="Say what would be switched, and do nothing.")
@json_option
@yes_option
def switch(*, name: str, version: str, dry_run: bool, as_json: bool, yes: bool) -> int:
    """Let the base NAME, and with it all its apps, stand on another VERSION that is kept; without any check.

    Each app moves at its next start. `base versions NAME` lists them.
    """
    return _switch(name, version, "switch", dry_run=dry_run, as_json=as_json, yes=yes)


@click.command(
    cls=Verb,
    examples=[
        ("layerrun base rollback debian", "to the version before; once more: back again"),
        ("layerrun base rollback debian 2 -y", "to version 2, without asking"),
    ],
)
@base_argument
@click.argument("version", required=False, metavar="[VERSION]", shell_complete=_complete_own)
@click.option("--dry-run", is_flag=True, help="Say what would be switched, and do nothing.")
@json_option
@yes_option
def rollback(*, name: str, version: str | None, dry_run: bool, as_json: bool, yes: bool) -> int:
    """Let the base NAME go back to the version that was current before, or to VERSION.

    It can be done again and again: back, and forth.
    """
    return _switch(name, version, "rollback", dry_run=dry_run, as_json=as_json, yes=yes)


def _switch(name: str, version: str | None, what: str, *, dry_run: bool, as_json: bool, yes: bool) -> int:
    asking = not dry_run and ask_before(f"base {what} changes what apps stand on", yes=yes)
    from layerrun.cli.updating import say_switched, switched_record

    with open_store() as store:
        from layerrun.updates import switching
        from layerrun.updates.guard import updating

        with updating(store, wait=10.0):
            target = (
                switching.back_to(store, name) if version is None else switching.find(store, name, version)
            )
            old = store.base(name)
            if dry_run or (asking and target.id != old.id):
                shown = [
                    f"{name}: from {old.full_name} of {old.created} to {target.full_name} of {target.created}"
                ]
                shown += [f"{app}, at its next start" for app, _ in store.catalog.apps_on(old.id)]
                if asking:
                    ask("Switch?", shown)
                elif not as_json:
                    for text in shown:
                        line(text)
            if dry_run:
                switched = switching.Switched(old, target)
            else:
                switched = switching.switch(
                    store, target, what=what, trial=False if what == "rollback" else None
                )
    if as_json:
        emit(switched_record(switched) | {"switched": switched.is_new and not dry_run})
    elif not dry_run:
        say_switched(switched)
    return 0


@click.command(
    cls=Verb, examples=[("layerrun base pin debian@3", "version 3 stays, however many come after it")]
)
@version_argument
def pin(version: str) -> int:
    """Keep a version of a base: neither an update nor `gc` removes it."""
    return _pin(version, pinned=True)


@click.command(cls=Verb, examples=[("layerrun base unpin debian@3", "version 3 goes when its time has come")])
@version_argument
def unpin(version: str) -> int:
    """Let a pinned version of a base go again."""
    return _pin(version, pinned=False)


def _pin(version: str, *, pinned: bool) -> int:
    if "@" not in version:
        raise click.UsageError(f"{version!r} names no version: write NAME@VERSION")
    with open_store() as store:
        from layerrun.updates import switching

        with store.catalog.transaction():
            found = switching.find(store, version.partition("@")[0], version)
            store.catalog.pin_base(found.id, pinned)
    return 0


@click.command(
    cls=Verb,
    examples=[
        ("layerrun base keep debian 5", "five versions are kept beside the current one"),
        ("layerrun base keep debian", "how many it is"),
    ],
)
@base_argument
@click.argument("count", required=False, type=click.IntRange(0, 1000), metavar="[NUMBER]")
@json_option
def keep(name: str, count: int | None, as_json: bool) -> int:
    """Set how many versions of the base NAME are kept beside the current one; the oldest go after an update.

    Those that are pinned, or that something stands on, are not counted, and stay.
    """
    with open_store() as store:
        with store.catalog.transaction():
            slot = _slot(store, name)
            if count is not None:
                store.catalog.set_slot(name, keep=count)
        number = slot.keep if count is None else count
    if as_json:
        emit({"name": name, "keep": number})
    elif count is None:
        line(str(number))
    return 0


def _slot(store: Store, name: str) -> Slot:
    from layerrun.errors import UsageError

    slot = store.catalog.slot(name)
    if slot is None:
        store.base(name)  # says which there are
        raise UsageError(f"{name!r} has no versions: it is the machine's own /, or one version itself")
    return slot


@click.command(
    cls=Verb,
    examples=[
        ("layerrun base versions debian", "those that are kept, and which is current"),
        ("layerrun base versions", "of all bases"),
    ],
)
@click.argument("name", required=False, metavar="[NAME]")
@json_option
def versions(name: str | None, as_json: bool) -> int:
    """List the versions of the base NAME, or of all bases: * is the current one, + the one staged."""
    with open_store() as store:
        from layerrun.updates import guard

        guard.settle(store)
        slots = {slot.name: slot for slot in store.catalog.slots()}
        if name is not None:
            _slot(store, name)
        found = store.catalog.versions(name)
        standing = {base.id: [app for app, _ in _shown_apps(store, base)] for base in found}
    if as_json:
        records = [_version(base, slots[base.name]) | {"used_by": standing[base.id]} for base in found]
        emit({"versions": records})
        return 0
    table(
        ["", "VERSION", ">ENTRIES", ">SIZE", "CREATED", "PINNED", "APPS", "SOURCE"],
        (
            [
                _mark(base, slots[base.name]),
                base.full_name,
                f"{base.entries:,}",
                size(base.size),
                base.created,
                "pinned" if base.pinned else "-",
                str(len(standing[base.id])),
                printable(base.source),
            ]
            for base in found
        ),
    )
    return 0


def _shown_apps(store: Store, base: Base) -> list[tuple[str, Any]]:
    from layerrun.model import AppKind

    return [(app, kind) for app, kind in store.catalog.apps_on(base.id) if kind is not AppKind.SPARE]


def _mark(base: Base, slot: Slot) -> str:
    return "*" if base.id == slot.current else "+" if base.id == slot.staged else " "


def _version(base: Base, slot: Slot) -> dict[str, Any]:
    return {
        "name": base.name,
        "version": base.version,
        "current": base.id == slot.current,
        "staged": base.id == slot.staged,
        "pinned": base.pinned,
        "digest": base.digest,
        "source": base.source,
        "created": base.created,
        "entries": base.entries,
        "size": base.size,
    }


@click.command(
    cls=Verb, examples=[("layerrun base history debian", "what became of it: updates, switches, failures")]
)
@base_argument
@json_option
def history(name: str, as_json: bool) -> int:
    """List what happened to the base NAME, the last thing last."""
    with open_store() as store:
        _slot(store, name)
        moves = store.catalog.moves(name)
    if as_json:
        keys = ("number", "at", "what", "version", "earlier", "note")
        emit({"name": name, "moves": [{key: getattr(move, key) for key in keys} for move in moves]})
        return 0
    table(
        ["AT", "WHAT", "VERSION", "BEFORE", "NOTE"],
        (
            [
                move.at,
                move.what,
                f"{name}@{move.version}",
                "-" if move.earlier is None else f"{name}@{move.earlier}",
                printable(move.note),
            ]
            for move in moves
        ),
    )
    if not moves:
        nothing(f"{name} is as it was imported")
    return 0


@click.command(
    cls=Verb,
    examples=[
        ("layerrun status", "bases: what is current, staged, failed; apps on trial, or fallen back"),
        ("layerrun status --json", "the same for a program"),
    ],
)
@json_option
def status(as_json: bool) -> int:
    """Say how the bases stand: current and staged versions, updates that failed, apps that went back by themselves."""
    with open_store() as store:
        from layerrun.updates import guard, standing

        guard.settle(store)
        found = standing.standing(store)
    if as_json:
        emit(found)
        return 0
    table(
        ["BASE", "CURRENT", "STAGED", ">KEPT", ">APPS", "CHANNEL"],
        (
            [
                slot["name"],
                f"{slot['name']}@{slot['version']}",
                "-" if slot["staged"] is None else f"{slot['name']}@{slot['staged']}",
                str(slot["versions"] - 1),
                str(len(slot["apps"])),
                printable(slot["channel"] or "-"),
            ]
            for slot in found["bases"]
        ),
    )
    for slot in found["bases"]:
        if slot["failed"]:
            line(f"{slot['name']}: the last update failed: {printable(slot['failed'])}")
        if slot["refused"]:
            line(f"{slot['name']}: its channel was not believed: {printable(slot['refused'])}")
    for app in found["apps"]:
        if app["state"] == "fallen":
            line(f"{app['name']} fell back to {app['base']}: it did not start on {app['tried']}")
        else:
            often = f"{app['failures']} of {plural(app['tries'], 'start')} failed"
            line(f"{app['name']} is on trial over {app['tried']} since {app['since']}: {often}")
    if not found["bases"]:
        nothing("no bases yet; layerrun base import NAME SRC makes one")
    return 0
