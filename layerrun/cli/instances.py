"""``enter``, ``ps``, ``stop`` and ``kill``: apps that run."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

import click

from layerrun.cli.common import RunVerb, Verb, chosen, front_door, nothing, open_store, settings
from layerrun.cli.options import F, app_argument, json_option
from layerrun.cli.output import emit, printable, say, table
from layerrun.cli.run import run_options, variables

if TYPE_CHECKING:
    from layerrun.model import App
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
        app = store.app(name, AppKind.APP)
        return launch.enter(
            store, app, argv, cwd=cwd, env=given, door=front_door(), status_fd=settings().status_fd
        )


@click.command(
    cls=Verb,
    examples=[
        ("layerrun ps", "the apps that run, and what runs in them"),
        ("layerrun ps web --json", "one of them, for a program"),
    ],
)
@app_argument("names", many=True, required=False)
@json_option
def ps(names: tuple[str, ...], as_json: bool) -> int:
    """List the apps that run, or those of the apps NAME that do, with their processes. Pids are the host's."""
    from layerrun.runtime import instances

    with open_store() as store:
        found = instances.instances(store, chosen(store, names, every=False) if names else None)
        records = [_record(store, one) for one in found] if as_json else []
    if as_json:
        emit({"instances": records})
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
        nothing("none of them runs" if names else "no app runs")
    return 0


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _record(store: Store, one: Instance) -> dict[str, object]:
    from layerrun.policy import NetworkKind
    from layerrun.runtime.names import own_address

    grants = one.app.config.policy.grants()
    private = grants.network.kind is NetworkKind.PRIVATE
    processes = [{"pid": process.pid, "command": process.command} for process in one.processes]
    return {
        "name": one.app.name,
        "pid": one.pid,
        "started": _time(one.started),
        "network": str(grants.network),
        "address": own_address(store, one.app) if private else None,
        "publish": [str(port) for port in grants.publish],
        "processes": processes,
    }


def _all_option(function: F) -> F:
    return click.option("--all", "every", is_flag=True, help="All that run.")(function)


def _meant(store: Store, names: tuple[str, ...], *, every: bool) -> list[App]:
    """Return the apps that are named, or with ``every`` those that run."""
    if every == bool(names):
        raise click.UsageError(
            "name the apps, or say --all" if not names else "names and --all exclude each other"
        )
    if not every:
        return chosen(store, names, every=False)
    from layerrun.runtime import instances

    return [one.app for one in instances.instances(store)]


@click.command(
    cls=Verb,
    examples=[
        ("layerrun stop web", "ask its processes to end, after 10 seconds end them"),
        ("layerrun stop web db -t 60", "two apps, a minute each"),
        ("layerrun stop --all", "everything that runs"),
    ],
)
@app_argument("names", many=True, required=False)
@_all_option
@click.option(
    "-t",
    "--timeout",
    type=click.FloatRange(min=0, max=86400),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait between SIGTERM and SIGKILL.",
)
def stop(names: tuple[str, ...], every: bool, timeout: float) -> int:
    """End the apps NAME: SIGTERM to every process, then SIGKILL. Their data stays.

    An app that does not run is passed over, with a word about it.
    """
    from layerrun.runtime import instances

    with open_store() as store:
        for app in _meant(store, names, every=every):
            if not instances.end(store, app, grace=timeout) and not every:
                say(f"{app.name} was not running")
    return 0


def _signal(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Return the number of a signal given by name, with or without SIG, or by number."""
    word = value.upper().removeprefix("SIG")
    if word.isascii() and word.isdigit() and 1 <= int(word) <= signal.SIGRTMAX:
        return int(word)
    found = getattr(signal, f"SIG{word}", None)
    if not isinstance(found, signal.Signals):
        raise click.BadParameter(f"{value!r} is not a signal", ctx, param)
    return int(found)


@click.command(
    cls=Verb,
    examples=[
        ("layerrun kill web", "end it at once, with SIGKILL"),
        (
            "layerrun kill -s HUP web",
            "have its processes read their configuration again, if they are made so",
        ),
    ],
)
@app_argument("names", many=True, required=False)
@_all_option
@click.option(
    "-s",
    "--signal",
    "number",
    callback=_signal,
    default="KILL",
    show_default=True,
    metavar="SIGNAL",
    help="What to send: HUP, SIGHUP or 1.",
)
def kill(names: tuple[str, ...], every: bool, number: int) -> int:
    """Send SIGKILL, or another signal, to every process of the apps NAME. Their data stays.

    An app that does not run is an error, after the others have had theirs.
    """
    from layerrun.errors import NotRunningError
    from layerrun.runtime import instances

    missed: NotRunningError | None = None
    with open_store() as store:
        for app in _meant(store, names, every=every):
            try:
                if number != signal.SIGKILL:
                    instances.send(store, app, number)
                elif not instances.end(store, app, grace=0):
                    raise NotRunningError(
                        f"{app.name!r} is not running", hint="`layerrun ps` lists what runs"
                    )
            except NotRunningError as error:
                if missed is not None:
                    say(str(missed))
                missed = error
    if missed is not None and not every:
        raise missed
    return 0
