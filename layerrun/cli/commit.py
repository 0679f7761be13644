"""``commit``: the changes of a throwaway for this machine, or of an app for its factory state."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

import attrs
import click

from layerrun.cli import completing
from layerrun.cli.changes import records
from layerrun.cli.committing import (
    changes_of,
    commit_record,
    lines_of,
    name_merged,
    name_privileged,
    picked_plan,
    plan_record,
    refuse_conflicts,
    say_done,
)
from layerrun.cli.common import Verb, ask, ask_before, has_terminal, open_store
from layerrun.cli.options import app_argument, json_option, yes_option
from layerrun.cli.output import emit, lines, plural, quoted, say
from layerrun.cli.sizes import sized

if TYPE_CHECKING:
    from layerrun.changes import Commit
    from layerrun.commit.plan import Planned, Selection
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["commit"]


@attrs.frozen
class _Wish:
    """What ``commit`` was asked for, beside the selection."""

    asking: bool
    picks: bool
    by_hunk: bool
    dry_run: bool
    keep: bool
    force: bool
    keep_privileged: bool
    as_json: bool


@click.command(
    cls=Verb,
    examples=[
        ("layerrun commit try-3f2a", "list its changes, ask, then make them on this machine"),
        ("layerrun commit -y try-3f2a /etc -E '*.bak'", "some of them; the rest stays in the layer"),
        ("layerrun commit try-3f2a -p", "ask about each hunk of each file"),
        ("layerrun commit try-3f2a --dry-run", "say what would be done, and what speaks against it"),
        ("layerrun commit -y web", "an app: what it holds becomes what a reset brings back"),
    ],
)
@app_argument()
@click.argument("paths", metavar="[PATH]...", nargs=-1, shell_complete=completing.paths)
@click.option(
    "-I",
    "--include",
    "include",
    multiple=True,
    metavar="GLOB",
    help="Only what matches: * within a name, ** across /; without / a name anywhere.",
)
@click.option("-E", "--exclude", "exclude", multiple=True, metavar="GLOB", help="Not what matches.")
@click.option("--pick", "picks", is_flag=True, help="Ask about each path.")
@click.option("-p", "--patch", "by_hunk", is_flag=True, help="Ask about each hunk of text files.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--keep", is_flag=True, help="Keep the layer too, as it is.")
@click.option("--force", is_flag=True, help="Overwrite what is in conflict.")
@click.option(
    "--keep-privileged/--drop-privileged",
    default=True,
    show_default=True,
    help="Whether setuid, setgid, capabilities and devices come along.",
)
@json_option
@yes_option
def commit(
    *,
    name: str,
    paths: tuple[str, ...],
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    picks: bool,
    by_hunk: bool,
    dry_run: bool,
    keep: bool,
    force: bool,
    keep_privileged: bool,
    as_json: bool,
    yes: bool,
) -> int:
    """Make the changes of the throwaway NAME on this machine, all of them or those at or below each PATH.

    The machine is afterwards as if the command had run on it directly. It is all done or nothing, also if the power
    goes; `layerrun undo` takes it back. What has changed on this machine since the throwaway began is a conflict: the
    list is printed, nothing is done, and the exit status is 3. Text files are merged where the changes don't touch.
    What is not committed stays in the layer. Of an app, what it holds becomes its factory state instead.
    """
    if (picks or by_hunk) and not has_terminal():
        from layerrun.errors import UsageError

        raise UsageError("there is no terminal to pick on", hint=f"layerrun commit -y {name} PATH…")
    if (picks or by_hunk) and yes:
        raise click.UsageError("-y says yes to all: it and --pick or -p exclude each other")
    asking = not (dry_run or picks or by_hunk) and ask_before("commit changes this machine", yes=yes)
    wish = _Wish(
        asking=asking,
        picks=picks or by_hunk,
        by_hunk=by_hunk,
        dry_run=dry_run,
        keep=keep,
        force=force,
        keep_privileged=keep_privileged,
        as_json=as_json,
    )
    with open_store() as store:
        from layerrun.commit.plan import Selection
        from layerrun.model import AppKind

        app = store.app(name)
        selection = Selection(tuple(map(_path, paths)), include, exclude)
        if app.kind is AppKind.APP:
            return _factory(store, app, wish, everything=selection == Selection())
        return _commit(store, app, selection, wish)


def _path(path: str) -> str:
    """Return a path of this machine in full: a relative one is meant from here, with ``..`` in front too.

    Elsewhere ``..`` is refused: the kernel would go on from where a link leads.
    """
    from layerrun.model import check_path

    here = os.getcwd()
    while path == ".." or path.startswith("../"):
        here, path = posixpath.dirname(here), path[3:]
    return check_path(posixpath.join(here, path))


def _factory(store: Store, app: App, wish: _Wish, *, everything: bool) -> int:
    """Commit an app: what it holds becomes its factory state."""
    from layerrun.errors import UsageError
    from layerrun.runtime import snapshots

    if not everything or wish.picks or wish.keep or wish.dry_run:
        raise UsageError(
            f"{app.name} is an app: it is committed as a whole, to its own factory state",
            hint=f"layerrun commit {app.name}",
        )
    if wish.asking:
        ask("Make this its factory state, which a reset brings back?", sized(store, [app]))
    snapshots.factory(store, app)
    if wish.as_json:
        emit({"name": app.name, "factory": True})
    say(f"what {app.name} has now is its factory state: layerrun reset {app.name} goes back to it")
    return 0


def _commit(store: Store, app: App, selection: Selection, wish: _Wish) -> int:
    """Plan, ask, commit, say what was done."""
    from layerrun.commit import engine
    from layerrun.commit.plan import plan

    planned = plan(store, app, selection, force=wish.force, keep_privileged=wish.keep_privileged)
    if wish.picks:
        from layerrun.commit.selection import Matcher
        from layerrun.runtime.data import diff

        matcher = Matcher(selection)
        changes = [change for change in diff(store, app) if matcher.has(change.path.strip("/"))]
        planned = picked_plan(
            store,
            app,
            changes,
            selection,
            by_hunk=wish.by_hunk,
            force=wish.force,
            keep_privileged=wish.keep_privileged,
        )
    else:
        name_privileged(planned, kept=wish.keep_privileged)
    if planned.conflicts and not wish.dry_run:
        if wish.as_json:
            _emit(app, planned, None, wish)
        refuse_conflicts(app, planned)
    if wish.asking and planned.ops:
        ask("Make these changes on this machine?", lines_of(planned))
    done = None
    if planned.ops and not wish.dry_run:
        done = engine.commit(store, app, planned, keep=wish.keep)
    if wish.as_json:
        _emit(app, planned, done, wish)
    elif wish.dry_run:
        lines(lines_of(planned))
    if done is not None:
        name_merged(planned)
        say_done(done)
        if wish.keep:
            say(f"{app.name} is kept as it is")
        elif planned.left:
            say(f"{plural(planned.left, 'change')} left in {app.name}")
    elif not wish.dry_run:
        where = ", ".join(map(quoted, selection.paths))
        say(f"there is nothing to commit in {app.name}" + (f" at or below {where}" if where else ""))
    if wish.dry_run:
        refuse_conflicts(app, planned)
    return 0


def _emit(app: App, planned: Planned, done: Commit | None, wish: _Wish) -> None:
    emit(
        {
            "name": app.name,
            "dry_run": wish.dry_run,
            "commit": None if done is None else commit_record(done),
            "kept": done is None or planned.left > 0 or wish.keep,
            "left": planned.left,
            "merged": list(planned.merged),
            **plan_record(planned),
            "changes": records(changes_of(planned)),
        }
    )
