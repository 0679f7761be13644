"""``try`` and ``discard``: run something in a throwaway; read, commit, keep or drop what it changed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from layerrun.cli import completing, exits, spares
from layerrun.cli.common import RunVerb, Verb, ask, ask_before, front_door, open_store, settings
from layerrun.cli.judging import Judge, OnExit, check_report
from layerrun.cli.options import base_option, yes_option
from layerrun.cli.output import say
from layerrun.cli.run import run_options, variables
from layerrun.cli.sizes import sized
from layerrun.cli.userns import check_mode, id_mode, no_userns_option, warn_of

if TYPE_CHECKING:
    from layerrun.model import App, IdMode
    from layerrun.runtime.handoff import Ended
    from layerrun.store.locks import AppLock
    from layerrun.store.store import Store

__all__ = ["discard", "try_"]

# What is left to do after the end of a command in a throwaway that was made for it.
_NEW = "new throwaway"


@click.command(
    "try",
    cls=RunVerb,
    examples=[
        ("layerrun try -- apt-get install -y nginx", "run it, list what it changed, ask what to do with it"),
        ("layerrun try -y -- apt-get install -y nginx", "the same, and commit it if the command succeeds"),
        ("layerrun try -n --json -- make install | jq .changes", "keep it, and read the list with a program"),
        ("layerrun try --name T -- cmd", "start T, or go on with it"),
        ("layerrun try --base debian --hide /home -- cmd", "over an imported base, without a path"),
    ],
)
@click.option("--name", metavar="NAME", help="Its name, to go on with it later.  [default: one is made up]")
@base_option
@click.option("--hide", "hides", multiple=True, metavar="PATH", help="Make a path empty inside.")
@click.option("-y", "--yes", is_flag=True, help="Commit it without asking if CMD succeeds.")
@click.option("-n", "--keep", is_flag=True, help="Keep it without asking.")
@click.option(
    "--on-exit",
    type=click.Choice([word.value for word in OnExit]),
    metavar="commit|keep|discard",
    help="What to do without asking; commit only if CMD succeeds, else keep.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON document; does not ask.")
@click.option(
    "--report", metavar="FILE", type=click.Path(dir_okay=False), help="Write the report as JSON to FILE."
)
@no_userns_option
@run_options
def try_(
    *,
    name: str | None,
    base: str,
    hides: tuple[str, ...],
    no_userns: bool,
    yes: bool,
    keep: bool,
    on_exit: str | None,
    as_json: bool,
    report: str | None,
    cwd: str | None,
    env: tuple[str, ...],
    argv: tuple[str, ...] | None,
) -> int:
    """Run CMD in a throwaway layer over the live machine, list what it changed; then commit, keep or discard it.

    It sees the host's own /tmp and /home as a direct run would, and writes to none of them. The list has a
    line for each change: A added, M modified, D deleted, T another type, P metadata only. Without a terminal
    it is kept and its name is said. One that changed nothing goes without a word. The exit status is CMD's, unless
    that is 0 and a commit was asked for and failed: 3 if it was for conflicts.
    """
    from layerrun.model import check_name, check_path
    from layerrun.runtime import handoff

    if argv is None:
        raise click.UsageError("there is no command: layerrun try -- CMD...")
    wanted = _on_exit(on_exit, yes=yes, keep=keep)
    if wanted is OnExit.COMMIT:
        _check_committable(base)
    given = variables(env)
    if name is not None:
        check_name(name)
    hidden = tuple(check_path(path, "--hide") for path in hides)
    check_report(report)
    judge = Judge(on_exit=wanted, as_json=as_json, report=report, argv=argv)
    done = handoff.ended()
    with open_store(recover=done is None) as store:
        if done is not None:
            return _go_on(store, done, judge)
        # Nobody has asked for anything that only a throwaway of its own has: a name, for one.
        if not (name or hidden or no_userns or as_json or report):
            status = _try_in_spare(store, base, argv, judge, cwd=cwd, env=given)
            if status is not None:
                return status
        mode = id_mode(no_userns)
        return _try_in_new(
            store, argv, judge, name=name, base=base, hides=hidden, mode=mode, cwd=cwd, env=given
        )


def _on_exit(on_exit: str | None, *, yes: bool, keep: bool) -> OnExit | None:
    """Return what is to be done without asking; -y and -n are short for two of the words."""
    given = {"--on-exit": on_exit, "-y": OnExit.COMMIT if yes else None, "-n": OnExit.KEEP if keep else None}
    words = {option: word for option, word in given.items() if word is not None}
    if len(words) > 1:
        raise click.UsageError(" and ".join(words) + " exclude each other")
    return OnExit(*words.values()) if words else None


def _check_committable(base: str) -> None:
    """Refuse, before anything runs, to commit what will not stand on this machine; a known name has this base too."""
    from layerrun.errors import UsageError
    from layerrun.model import HOST_BASE

    if base != HOST_BASE:
        raise UsageError(
            f"what runs over the base {base!r} cannot be committed to this machine",
            hint="layerrun try -n … keeps it, and `layerrun branch NAME NEW` makes another of it",
        )


def _try_in_spare(
    store: Store, base: str, argv: tuple[str, ...], judge: Judge, *, cwd: str | None, env: dict[str, str]
) -> int | None:
    """Run the command in a spare; ``None`` if there is none to be had."""
    from layerrun.runtime.spares import find
    from layerrun.store.spares import is_touched

    found = find(store, base)
    if found is None:
        return None
    app, lock = found
    try:
        status = spares.run(store, app, lock, argv, cwd=cwd, env=env)
        if status is None:
            return None
        settings().runs = False
        if not is_touched(store, app):
            return status
        return _adopt(store, app, lock, status, judge)
    finally:
        lock.release()


def _go_on(store: Store, end: Ended, judge: Judge) -> int:
    """Go on after the end of a command that the front door has run."""
    settings().runs = False
    app, lock = spares.resume(store, end)
    if end.after == spares.SPARE:
        return _adopt(store, app, lock, end.status, judge)
    lock.release()
    return judge.safely(store, app, end.status, new=end.after == _NEW)


def _adopt(store: Store, app: App, lock: AppLock, status: int, judge: Judge) -> int:
    """Go on with a spare in which a command has ended as with any throwaway."""
    from layerrun.runtime.spares import replenish
    from layerrun.store.spares import adopt

    try:
        app = adopt(store, app)
    except Exception as error:  # noqa: BLE001  (the command's own status must not be lost)
        exits.report(error)
        say("what it changed is kept, and the next command of layerrun will say where")
        return status or exits.status_of(error)
    finally:
        lock.release()
    # Once the store is closed: it is done by another process.
    click.get_current_context().call_on_close(partial(replenish, store.path, app.config.base))
    return judge.safely(store, app, status, new=True)


def _try_in_new(
    store: Store,
    argv: tuple[str, ...],
    judge: Judge,
    *,
    name: str | None,
    base: str,
    hides: tuple[str, ...],
    mode: IdMode | None,
    cwd: str | None,
    env: dict[str, str],
) -> int:
    """Run the command in a throwaway of its own, or in the one called ``name``."""
    from layerrun.runtime import handoff, launch, throwaway

    made = handoff.passed()
    app = store.catalog.app_by_id(made[1]) if made is not None and made[0] == "created" else None
    new = app is not None
    if app is None:
        known = {app.name for app in store.apps()}
        app = throwaway.start(store, name, base, hides, ids=mode)
        check_mode(app, mode)
        new = app.name not in known
        warn_of(app)
    if name is None:
        env = {"LAYERRUN_APP": "try", **env}  # as in a spare, which has no name
    door = front_door(created=app.id if new else None, after=_NEW if new else "throwaway")
    try:
        status = launch.run(store, app, argv, cwd=cwd, env=env, door=door, status_fd=settings().status_fd)
    except KeyboardInterrupt:
        say(f"kept as {app.name}")
        raise
    except Exception:
        # The command never ran: there is nothing to read and nothing to keep.
        if new:
            store.remove_app(app.name, only=app.id)
        raise
    settings().runs = False
    return judge.safely(store, app, status, new=new)


@click.command(
    cls=Verb,
    examples=[
        ("layerrun discard try-3f2a", "ask, naming its size, then drop it"),
        ("layerrun discard -y try-3f2a try-90b1", "drop two, without asking"),
    ],
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completing.throwaways)
@yes_option
def discard(names: tuple[str, ...], yes: bool) -> int:
    """Drop throwaways, with everything in them. Apps are not dropped: remove does that."""
    from layerrun.errors import UsageError
    from layerrun.model import AppKind

    asking = ask_before("discard destroys data", yes=yes)
    with open_store() as store:
        from layerrun.runtime import data

        found = {name: store.app(name) for name in names}
        for name, app in found.items():
            if app.kind is not AppKind.THROWAWAY:
                raise UsageError(
                    f"{name} is an app, not a throwaway",
                    hint=f"layerrun reset {name}  (clear its data)\nlayerrun remove {name}",
                )
        if asking:
            ask("Discard?", sized(store, found.values()))
        for app in found.values():
            data.discard(store, app)
    return 0
