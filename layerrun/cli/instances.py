"""``enter``, ``ps``, ``stop`` and ``kill``: apps that run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from layerrun.cli.common import (
    RunVerb,
    Verb,
    app_argument,
    json_option,
    nothing,
    open_store,
)
from layerrun.cli.output import emit, printable, say, table
from layerrun.cli.run import run_options, variables

if TYPE_CHECKING:
    from layerrun.runtime.instances import Instance
    from layerrun.store.store import Store

__all__ = ["enter", "kill", "ps", "stop"]


@click.command(
    cls=RunVerb,
    examples=[
        ("layerrun enter web -- ps ax", "a command beside what runs in web"),
        ("layerrun enter db -- psql -U postgres", "talk to a server that runs in db"),
    ],
)
@app_argument()
@run_options
def enter(name: str, cwd: str | None, env: tuple[str, ...], argv: tuple[str, ...] | None) -> int:
    """Run CMD in the app NAME, which must be running; `app` starts it if it is not.

    The exit status is CMD's own; 125: the app does not run, or CMD could not be started.
    """
    from layerrun.model import AppKind
    from layerrun.runtime import launch

    if argv is None:
        raise click.UsageError(f"there is no command: layerrun enter {name} -- CMD...")
    given = variables(env)
    with open_store() as store:
        return launch.enter(store, store.app(name, AppKind.APP), argv, cwd=cwd, env=given)


@click.command(
    cls=Verb,
    examples=[
        ("layerrun ps", "the apps that run, and what runs in them"),
        ("layerrun ps --json", "the same for a program"),
    ],
)
@json_option
def ps(as_json: bool) -> int:
    """List the apps that run, with their processes. Pids are the host's."""
    from layerrun.runtime import instances

    with open_store() as store:
        found = instances.instances(store)
    if as_json:
        emit({"instances": [_record(one) for one in found]})
        return 0
    table(
        ["NAME", ">PID", "STARTED", "COMMAND"],
        (
            row
            for one in found
            for row in [
                [one.app.name, str(one.pid), _time(one.started), ""],
                *(["", str(p.pid), "", printable(p.command)] for p in one.processes),
            ]
        ),
    )
    if not found:
        nothing("no app runs")
    return 0


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _record(one: Instance) -> dict[str, object]:
    processes = [{"pid": process.pid, "command": process.command} for process in one.processes]
    return {"name": one.app.name, "pid": one.pid, "started": _time(one.started), "processes": processes}


@click.command(
    cls=Verb,
    examples=[
        ("layerrun stop web", "ask its processes to end, after 10 seconds end them"),
        ("layerrun stop web db --grace 60", "two apps, a minute each"),
    ],
)
@app_argument("names", many=True)
@click.option(
    "--grace",
    type=click.FloatRange(min=0, max=86400),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait after SIGTERM.",
)
def stop(names: tuple[str, ...], grace: float) -> int:
    """End the apps NAME: SIGTERM to every process, then SIGKILL. Their data stays."""
    with open_store() as store:
        _end(store, names, grace)
    return 0


@click.command(cls=Verb, examples=[("layerrun kill web", "end it at once, with SIGKILL")])
@app_argument("names", many=True)
def kill(names: tuple[str, ...]) -> int:
    """End the apps NAME at once. Their data stays as it is at this moment."""
    with open_store() as store:
        _end(store, names, 0.0)
    return 0


def _end(store: Store, names: tuple[str, ...], grace: float) -> None:
    from layerrun.runtime import instances

    for app in [store.app(name) for name in names]:
        if not instances.end(store, app, grace=grace):
            say(f"{app.name} was not running")
