"""``base update``, and what apps hide of it."""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import Verb, answer, ask_before, has_terminal, open_store
from layerrun.cli.options import base_argument, json_option, yes_option
from layerrun.cli.output import emit, line, lines, plural, printable, quoted, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from layerrun.model import App, Base
    from layerrun.store.store import Store
    from layerrun.updates.health import Outcome
    from layerrun.updates.shadows import Shadow
    from layerrun.updates.switching import Switched
    from layerrun.updates.update import Found

__all__ = [
    "say_hidden",
    "say_switched",
    "seconds",
    "shadow_record",
    "shadows",
    "show",
    "switched_record",
    "update",
]

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Return the seconds that ``90``, ``90s``, ``5m`` or ``1h`` mean."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", value)
    if found is None or not float(found[1]):
        raise click.BadParameter(f"{value!r}: write seconds, or 5m, or 1h", ctx, param)
    return float(found[1]) * _UNITS[found[2]]


@click.command(
    cls=Verb,
    examples=[
        ("layerrun base update debian --from /tmp/tree", "import it beside, look at it, ask, switch"),
        ("layerrun base update debian", "again from where it came from"),
        ("layerrun base update debian --from debian.delta", "the difference alone, of base delta"),
        (
            "layerrun base update debian --from d.tar.zst --check 'dpkg --audit' -y",
            "if this goes well over it, too",
        ),
        (
            "layerrun base update debian --from d.tar --dry-run",
            "what it would change, and who hides what of it",
        ),
        (
            "layerrun base update debian --from d.tar --shadows web --dry-run",
            "and which files in web these are",
        ),
        ("layerrun base update debian --from d.tar --stage -y", "switch at the next start of an app of it"),
    ],
)
@base_argument
@click.option(
    "--from",
    "source",
    metavar="SRC",
    help="A folder, an archive, - for a pipe, or a delta.  [default: as before]",
)
@click.option(
    "--check",
    "checks",
    multiple=True,
    metavar="CMD",
    help="A command line that must go well over it, too.",
)
@click.option(
    "--timeout",
    default="60",
    show_default=True,
    metavar="TIME",
    callback=seconds,
    help="How long each check may take: seconds, or 5m, or 1h.",
)
@click.option(
    "--check-network",
    "network",
    type=click.Choice(["none", "host", "private"]),
    default="none",
    show_default=True,
    help="What network the base's checks and --check have; an app's check has the app's.",
)
@click.option(
    "--tries",
    type=click.IntRange(1, 1000),
    default=3,
    show_default=True,
    metavar="N",
    help="An app goes back by itself once so many of its starts in a row have failed.",
)
@click.option("--shadows", "app", metavar="APP", help="List the files in APP that hide files that changed.")
@click.option("--max-size", metavar="SIZE", help="How much an archive may come to.  [default: 64G]")
@click.option("--stage", is_flag=True, help="Leave the switch to the next start of an app of this base.")
@click.option("--dry-run", is_flag=True, help="Import and look, and leave everything as it is.")
@json_option
@yes_option
def update(
    *,
    name: str,
    source: str | None,
    checks: tuple[str, ...],
    timeout: float,
    network: str,
    tries: int,
    app: str | None,
    max_size: str | None,
    stage: bool,
    dry_run: bool,
    as_json: bool,
    yes: bool,
) -> int:
    """Give the base NAME another version, once that has passed every check; what runs keeps what it has.

    The new version is imported beside the current one. The base's checks, those of its apps (`create --health`)
    and --check run over it in throwaways, an app's with its layers and a copy of its data. If one fails, or takes too
    long, everything stays as it was, and the exit status is 4. `base rollback` goes back.
    """
    asking = not dry_run and ask_before("base update changes what apps stand on", yes=yes)
    from layerrun.cli.progress import counter

    with open_store() as store, counter(f"importing {name}") as progress:
        from layerrun.bases.sources import source_of
        from layerrun.updates.sources import bring
        from layerrun.updates.update import Wanted, update

        if app is not None:
            store.app(app)
        place = source_of(store, name) if source is None else source
        brought = partial(bring, store, name, place, max_size=max_size, progress=progress, version=True)
        told: Callable[[str], None] = (lambda _text: None) if as_json else (lambda text: say(printable(text)))

        def agree(found: Found) -> bool:
            if not as_json:
                show(found, app)
            if not asking:
                return True
            word = "Stage" if stage else "Switch to"
            return answer(f"{word} {found.new.full_name}? [y/N] ") in ("y", "yes")

        wanted = Wanted(checks, timeout, network, tries, stage, dry_run)
        found, switched = update(
            store, name, brought, wanted, agree=progress.between(agree), told=progress.between(told)
        )
    if as_json:
        emit(_record(found, switched, staged=stage and not dry_run and found.new.id != found.old.id))
    elif found.new.id == found.old.id:
        say(f"{name} is up to date: {found.old.full_name} has the same content")
    elif dry_run:
        show(found, app)
        say(f"nothing was changed: {name} stays at {found.old.full_name}")
    elif switched is None:
        say(f"{found.new.full_name} is staged: the next start of an app of {name} switches to it")
    else:
        say_switched(switched)
    return 0


def show(found: Found, app: str | None) -> None:
    """Say what an update would change, and what hides what of it."""
    say(f"{found.new.full_name} differs from {found.old.full_name} in {plural(found.changed, 'path')}")
    for outcome in found.outcomes:
        say(f"passed for {outcome.check.of}: {printable(outcome.check.command)} ({outcome.seconds:.1f} s)")
    for name in found.rebuilt:
        say(f"the layers of {name} were built anew")
    for name, hidden in found.hidden.items():
        say_hidden(name, hidden)
    if app is not None:
        lines(_rows(found.hidden.get(app, ())))


def say_hidden(name: str, hidden: Sequence[Shadow]) -> None:
    """Say how many files of an app hide files that changed beneath it, if any do."""
    if hidden:
        files = plural(len(hidden), "file")
        verb = "hides a file that changed" if len(hidden) == 1 else "hide files that changed"
        say(f"{files} in {name} {verb}" + _states(hidden))


def _states(hidden: Sequence[Shadow]) -> str:
    same = sum(one.state != "changed" for one in hidden)
    return f" ({same} of them as the base had or has them)" if same else ""


def _rows(hidden: Sequence[Shadow]) -> list[str]:
    return [f"{one.change} {one.state:<7} {one.where:<5} {quoted(one.path)}" for one in hidden]


def say_switched(switched: Switched) -> None:
    """Say what a switch has come to."""
    if not switched.is_new:
        say(f"{switched.new.full_name} is the current version already")
        return
    say(f"{switched.new.name} is at {switched.new.full_name} now; it was at {switched.old.full_name}")
    for name in switched.running:
        say(f"{name} runs, and keeps {switched.old.full_name} until its next start")


def switched_record(switched: Switched) -> dict[str, Any]:
    """Return what a switch has come to as JSON."""
    return {
        "name": switched.new.name,
        "version": switched.new.version,
        "earlier": switched.old.version,
        "switched": switched.is_new,
        "apps": list(switched.apps),
        "running": list(switched.running),
    }


def _record(found: Found, switched: Switched | None, *, staged: bool) -> dict[str, Any]:
    return {
        "name": found.new.name,
        "old": _version(found.old),
        "new": _version(found.new),
        "switched": switched is not None,
        "staged": staged,
        "apps": [] if switched is None else list(switched.apps),
        "running": [] if switched is None else list(switched.running),
        "changed": found.changed,
        "checks": [_outcome(one) for one in found.outcomes],
        "hidden": [shadow_record(one) for hidden in found.hidden.values() for one in hidden],
        "rebuilt": list(found.rebuilt),
    }


def _version(base: Base) -> dict[str, Any]:
    return {"version": base.version, "digest": base.digest, "source": base.source}


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "command": outcome.check.command,
        "app": outcome.check.app.name if outcome.check.app else None,
        "passed": outcome.is_well,
        "seconds": round(outcome.seconds, 3),
    }


def shadow_record(one: Shadow) -> dict[str, Any]:
    """Return a file that hides one of the base as JSON."""
    return {
        "app": one.app,
        "path": one.path,
        "change": one.change,
        "state": one.state,
        "where": one.where,
    }


@click.command(
    cls=Verb,
    examples=[
        ("layerrun base shadows debian", "what apps hide of what the last update changed"),
        ("layerrun base shadows debian web --take '/etc/**'", "let web show the base's files there"),
        ("layerrun base shadows debian web --ask", "file by file: keep web's, or take the base's"),
        ("layerrun base shadows debian --since 3 --json", "since version 3, for a program"),
    ],
)
@base_argument
@click.argument("app", required=False, metavar="[APP]")
@click.option(
    "--since", type=click.IntRange(min=1), metavar="N", help="Since this version.  [default: the one before]"
)
@click.option(
    "--take", "globs", multiple=True, metavar="GLOB", help="Let APP show the base's files that match."
)
@click.option(
    "--ask", "asking", is_flag=True, help="Ask for each file whether to keep APP's or take the base's."
)
@json_option
@yes_option
def shadows(
    *,
    name: str,
    app: str | None,
    since: int | None,
    globs: tuple[str, ...],
    asking: bool,
    as_json: bool,
    yes: bool,
) -> int:
    """List what apps hide of what changed in the base NAME, and take the base's files where that is wanted.

    A line has the change of the base (A, M, D, T, P), what the app's file is like (changed by the app; copy of what the
    base had; same as it has now), whether it lies in the upper or in a layer, and the path. What APP has
    changed and gives up becomes a snapshot first, whose number is said: `layerrun rollback APP NUMBER` brings it back.
    """
    if (globs or asking) and app is None:
        raise click.UsageError("--take and --ask need an APP")
    if globs and asking:
        raise click.UsageError("--take and --ask exclude each other")
    if asking and not has_terminal():
        raise click.UsageError("--ask needs a terminal; --take GLOB does without")
    if globs:
        ask_before("--take drops what the app has there", yes=yes)
    with open_store() as store:
        from layerrun.updates import shadows as library
        from layerrun.updates import switching

        new = store.base(name)
        old = switching.back_to(store, name) if since is None else switching.find(store, name, since)
        changed = library.changes(store, old, new)
        hidden = library.all_shadows(store, old, new, changed)
        hidden = {one: group for one, group in hidden.items() if not _fell(store, store.app(one))}
        if app is not None:
            _refuse_fallen(store, store.app(app))
            hidden = {app: hidden.get(store.app(app).name, [])}
        chosen = _chosen(app, hidden, globs) if globs else _asked(hidden.get(app or "", ())) if asking else []
        taken, kept = library.take(store, store.app(app), chosen) if app and chosen else ([], None)
    found = [one for group in hidden.values() for one in group]
    if as_json:
        emit(
            {
                "name": name,
                "since": old.version,
                "hidden": [shadow_record(one) for one in found],
                "taken": taken,
                "kept": None if kept is None else kept.number,
            }
        )
    elif globs or asking:
        say(f"{plural(len(taken), 'path')} in {app} {'is' if len(taken) == 1 else 'are'} the base's again")
        if kept is not None:
            say(f"what it had is {app}:{kept.number}")
    else:
        for owner, group in hidden.items():
            if len(hidden) > 1:
                line(f"{owner}:")
            lines(_rows(group))
    return 0


def _fell(store: Store, app: App) -> bool:
    """Say whether an app went back by itself: it stands on another version than the current one."""
    trial = store.catalog.trial(app.id)
    return trial is not None and trial.fallen


def _refuse_fallen(store: Store, app: App) -> None:
    if _fell(store, app):
        from layerrun.errors import UsageError

        stands = store.base_of(app).full_name
        raise UsageError(
            f"{app.name} went back by itself and stands on {stands}: it hides nothing of the current version",
            hint="the next `layerrun base update` moves it on",
        )


def _chosen(app: str | None, hidden: dict[str, list[Shadow]], globs: tuple[str, ...]) -> list[Shadow]:
    from layerrun.layers.globs import Globs

    patterns = Globs(globs)
    return [one for one in hidden.get(app or "", []) if patterns.matches_within(one.path)]


def _asked(hidden: Sequence[Shadow]) -> list[Shadow]:
    """Ask for each file; an empty answer keeps it."""
    chosen = []
    for one in hidden:
        question = f"{one.change} {one.state} {quoted(one.path)}: keep it, or take the base's? [K/t/q] "
        said = answer(question, at_end=None)
        if said is None or said.startswith("q"):
            break
        if said.startswith("t"):
            chosen.append(one)
    return chosen
