"""``diff`` and ``tidy``: what was changed, what differs between two, and dropping what is as beneath."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import click

from layerrun.cli import completing
from layerrun.cli.changes import print_paths, print_rows, records
from layerrun.cli.common import Verb, open_store
from layerrun.cli.difftext import print_meta, print_patch, print_stat, print_tree
from layerrun.cli.options import app_argument, json_option, nul_option
from layerrun.cli.output import emit, plural, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerrun.runtime.comparing import Side
    from layerrun.store.store import Store

__all__ = ["diff", "tidy"]


@attrs.frozen
class _Form:
    """What is to be shown, and how."""

    stat: bool
    patch: bool
    meta: bool
    tree: bool
    as_json: bool
    as_nul: bool

    def check(self) -> None:
        """Raise `click.UsageError` where options contradict each other."""
        if self.as_nul + self.as_json + self.tree > 1:
            raise click.UsageError("--json, --tree and -0 exclude each other")
        if (self.as_nul or self.tree) and self.wanted:
            raise click.UsageError("--tree and -0 show the list alone: no --stat, --patch or --meta")

    @property
    def wanted(self) -> list[str]:
        """What must be read of each difference; see `layerrun.layers.details`."""
        asked = (("lines", self.stat), ("patch", self.patch), ("meta", self.meta))
        return [word for word, is_asked in asked if is_asked]


@click.command(
    cls=Verb,
    examples=[
        ("layerrun diff web", "a line for each change: letter, size, path as seen inside"),
        (
            "layerrun diff web /etc --patch",
            "what was changed in the texts below /etc, for patch or git apply",
        ),
        ("layerrun diff web --stat", "lines added and removed, sizes, and how many of each letter"),
        ("layerrun diff web:before web --meta", "what differs from a snapshot, with owners, modes and times"),
        ("layerrun diff web --tree", "a picture of it"),
        ("layerrun diff web -0 | grep -z '^D'", "raw paths, each ended by a NUL"),
        ("layerrun diff web --exit-code >/dev/null || echo changed", "1 if there is any difference"),
    ],
)
@app_argument()
@click.argument("others", nargs=-1, metavar="[OTHER] [PATH]...", shell_complete=completing.sides)
@json_option
@nul_option
@click.option(
    "--stat", is_flag=True, help="Count the lines added and removed, and the changes of each letter."
)
@click.option("-p", "--patch", is_flag=True, help="Print what differs in texts, as diff -u and git do.")
@click.option("--meta", is_flag=True, help="Print what of the metadata is another.")
@click.option("--tree", is_flag=True, help="Print it as a tree of folders.")
@click.option("--exit-code", is_flag=True, help="End with 1 if there are differences.")
def diff(name: str, others: tuple[str, ...], exit_code: bool, **options: bool) -> int:
    """List what the app or throwaway NAME changed since its last reset, at the PATHs or anywhere.

    With OTHER, a name without a slash: what differs from NAME to OTHER. Either is an app, a throwaway, a
    snapshot (NAME:TAG or NAME:NUMBER) or a base. What they have in common is not read.

    A added, M modified, D deleted (a folder with all in it), T another type, P metadata only (mode, owner,
    times, extended attributes). Paths are as seen inside. -0 prints the letter, a space and the raw path.

    With --stat and --patch a deleted folder is told file by file, and a file that has another name now is R,
    renamed. Binary files are named. --stat, --patch and --meta can be combined, and --json has what they show.
    """
    form = _Form(**options)
    form.check()
    other = others[0] if others and not others[0].startswith("/") else None
    paths = others[1:] if other is not None else others
    with open_store() as store:
        from layerrun.runtime import comparing

        new = _other(store, other) if other is not None else comparing.side(store, name)
        old = comparing.side(store, name) if other is not None else comparing.factory(store, name)
        found = _show(store, old, new, paths, form)
    return 1 if exit_code and found else 0


def _other(store: Store, name: str) -> Side:
    """Return what is compared with, which has no slash in front: a path from here is a mistake that is easily made."""
    import os

    from layerrun.errors import NotFoundError, UsageError
    from layerrun.runtime import comparing

    try:
        return comparing.side(store, name)
    except (NotFoundError, UsageError) as error:
        if os.path.lexists(name):
            path = os.path.normpath(os.path.join(os.getcwd(), name))
            raise type(error)(str(error), hint=f"for the path, say {path}") from None
        raise


def _show(store: Store, old: Side, new: Side, paths: Sequence[str], form: _Form) -> bool:
    """Print what differs; return whether anything does."""
    from layerrun.layers.diff import change_of
    from layerrun.runtime import comparing

    wanted = form.wanted
    if not wanted:
        rows = comparing.rows(store, old, new, paths)
        if form.as_json:
            emit({**_sides(old, new), "changes": records(map(change_of, rows))})
        elif form.as_nul:
            print_paths(rows)
        elif form.tree:
            print_tree(list(map(change_of, rows)))
        else:
            print_rows(rows)
        return bool(rows)
    found = comparing.details(store, old, new, wanted, paths)
    if form.as_json:
        emit({**_sides(old, new), "changes": found})
        return bool(found)
    for is_wanted, show in ((form.stat, print_stat), (form.meta, print_meta), (form.patch, print_patch)):
        if is_wanted:
            show(found)
    return bool(found)


def _sides(old: Side, new: Side) -> dict[str, Any]:
    """Return the keys of a JSON document that say what was compared."""
    compared = {} if old.name == new.name.partition(":")[0] else {"old": old.name}
    return {"name": new.name, "base": new.base.name, **compared}


@click.command(
    cls=Verb,
    examples=[
        ("layerrun tidy web", "drop what web has written and what is as beneath all the same"),
        ("layerrun tidy web --dry-run", "name it, and drop nothing"),
    ],
)
@app_argument("names", many=True)
@click.option("--dry-run", is_flag=True, help="Name what would be dropped, and do nothing.")
def tidy(names: tuple[str, ...], dry_run: bool) -> int:
    """Drop copies in the layer of the apps or throwaways NAMES that equal what lies beneath, and folders left empty.

    A program that opens a file for writing, or an update that brings what was there before, leaves a whole copy
    behind, which hides later changes beneath. Nothing that is seen inside changes, but for times of folders.
    """
    with open_store() as store:
        from layerrun.cli.output import line, quoted
        from layerrun.runtime import data

        for app in [store.app(name) for name in names]:
            dropped = data.tidy(store, app, dry_run=dry_run)
            for path in dropped if dry_run else ():
                line(quoted(path))
            say(
                f"{app.name}: {plural(len(dropped), 'entry', 'entries')} {'would go' if dry_run else 'dropped'}"
            )
    return 0
