"""``base health``: what every new version of a base must pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from layerrun.cli.common import Verb, open_store
from layerrun.cli.options import base_argument, json_option
from layerrun.cli.output import emit, lines, printable

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["health"]


@click.command(
    cls=Verb,
    examples=[
        ("layerrun base health debian", "the checks that a new version must pass"),
        ("layerrun base health debian --add 'dpkg --audit'", "one more"),
        ("layerrun base health debian --drop 'dpkg --audit'", "one less"),
    ],
)
@base_argument
@click.option(
    "--add", "added", multiple=True, metavar="CMD", help="A command line of /bin/sh that must go well."
)
@click.option("--drop", "dropped", multiple=True, metavar="CMD", help="One that need not any more.")
@json_option
def health(name: str, added: tuple[str, ...], dropped: tuple[str, ...], as_json: bool) -> int:
    """List, add or drop the checks of the base NAME: what every new version of it must pass."""
    with open_store() as store:
        commands = _changed_health(store, name, added, dropped)
    if as_json:
        emit({"name": name, "health": list(commands)})
    elif not added and not dropped:
        lines(printable(command) for command in commands)
    return 0


def _changed_health(
    store: Store, name: str, added: tuple[str, ...], dropped: tuple[str, ...]
) -> tuple[str, ...]:
    from layerrun.errors import NotFoundError, UsageError

    with store.catalog.transaction():
        slot = store.catalog.slot(name)
        if slot is None:
            store.base(name)  # says which there are
            raise UsageError(f"{name!r} has no checks of its own", hint="layerrun base list")
        for command in dropped:
            if command not in slot.health:
                raise NotFoundError(f"{name!r} has no check {command!r}", hint=f"layerrun base health {name}")
        kept = [command for command in slot.health if command not in dropped]
        health = tuple(dict.fromkeys([*kept, *added]))
        if any(not command.strip() for command in added):
            raise UsageError("a check is empty")
        store.catalog.set_slot(name, health=health)
    return health
