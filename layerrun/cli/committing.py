"""What ``commit`` and ``try`` have in common: what is said before a commit, what speaks against it, what was done."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import attrs
import click

from layerrun.cli.changes import shown
from layerrun.cli.output import plural, printable, quoted, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerrun.changes import Change, Commit
    from layerrun.commit.plan import Planned, Selection
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = [
    "commit_record",
    "is_committable",
    "name_merged",
    "name_privileged",
    "picked_plan",
    "plan_record",
    "refuse_conflicts",
    "say_done",
    "say_kept",
]

# How many lines of a kind are shown at most: a list that scrolls away is not read.
MANY = 20


def is_committable(app: App) -> bool:
    """Say whether what the throwaway changed can be committed to this machine: it stands on it."""
    from layerrun.model import HOST_BASE

    return app.config.base == HOST_BASE


def _listed(texts: Sequence[str]) -> None:
    """Print lines to standard error, of a long list the beginning."""
    for text in texts[:MANY]:
        click.echo(f"  {printable(text)}", err=True)
    if len(texts) > MANY:
        click.echo(f"  … and {len(texts) - MANY:,} more", err=True)


def name_privileged(planned: Planned, *, kept: bool = True) -> None:
    """Name what the commit gives more rights than an ordinary file has, or a device; or would, if it kept them."""
    if planned.privileged:
        say(
            "what it brings gives rights to whoever runs it:"
            if kept
            else "rights dropped, and devices left out:"
        )
        _listed([f"{quoted(found.path)}: {found.what}" for found in planned.privileged])


def name_merged(planned: Planned) -> None:
    """Name the files that have their own changes and those of the layer."""
    if planned.merged:
        say("merged with what was changed on this machine since:")
        _listed([quoted(path) for path in planned.merged])


def refuse_conflicts(app: App, planned: Planned) -> None:
    """Raise `ConflictError`, all of them having been listed, if something speaks against the commit."""
    from layerrun.errors import ConflictError

    if not planned.conflicts:
        return
    _listed([f"{quoted(found.path)}: {found.what}" for found in planned.conflicts])
    hint = f"layerrun commit {app.name} --pick  (leave them out)"
    if all(found.may_force for found in planned.conflicts):
        hint += f"\nlayerrun commit {app.name} --force  (overwrite what is there)"
    raise ConflictError(
        f"{plural(len(planned.conflicts), 'conflict')}, and nothing was committed",
        hint=hint,
    )


def lines_of(planned: Planned) -> list[str]:
    """Return a line for each change that would be made."""
    found = []
    for change in changes_of(planned):
        count = planned.within.get(os.fsencode(change.path[1:]), 0)
        found.append(shown(change) + (f"  (with {plural(count, 'change')} in it)" if count else ""))
    return found


def changes_of(planned: Planned) -> list[Change]:
    """Return the changes that would be made; a folder with all in it, or without it, is one."""
    from layerrun.changes import Change, FileType
    from layerrun.native.trees import type_name

    found = []
    for op in planned.ops:
        if op.letter:
            types, sizes = [], []
            for side in (op.new, op.old):
                types.append(None if side is None else FileType(type_name(side.mode)))
                sizes.append(None if side is None else side.size if side.is_file else 0)
            path = "/" + os.fsdecode(op.path)
            found.append(Change(op.letter, path, types[0], sizes[0], types[1], sizes[1]))
    return found


def picked_plan(
    store: Store,
    app: App,
    changes: Sequence[Change],
    selection: Selection,
    *,
    by_hunk: bool = False,
    force: bool = False,
    keep_privileged: bool = True,
) -> Planned:
    """Ask on the terminal which of the changes to commit, and plan these.

    Raises:
        LayerrunError: none was chosen.
    """
    from layerrun.cli.picking import pick
    from layerrun.commit.plan import plan
    from layerrun.commit.sides import text_sides
    from layerrun.errors import LayerrunError

    picked = pick(changes, lambda change: text_sides(store, app, change.path), by_hunk=by_hunk)
    if not picked:
        raise LayerrunError("nothing was chosen, and nothing was done")
    chosen = attrs.evolve(selection, paths=picked.paths, exactly=picked.exactly, contents=picked.parts)
    planned = plan(store, app, chosen, force=force, keep_privileged=keep_privileged)
    name_privileged(planned, kept=keep_privileged)
    return planned


def say_kept(app: App, before: str = "") -> None:
    """Say that a throwaway is kept, and what can be done with it."""
    verbs = ["diff", "commit", "discard"] if is_committable(app) else ["diff", "discard"]
    say(f"{before}kept as {app.name}: " + ", ".join(f"layerrun {verb} {app.name}" for verb in verbs))


def commit_record(commit: Commit) -> dict[str, Any]:
    """Return a commit as JSON data."""
    return {
        "number": commit.number,
        "name": commit.name,
        "state": commit.state.value,
        "created": commit.created,
        "counts": commit.counts,
        "command": list(commit.command),
    }


def plan_record(planned: Planned | None) -> dict[str, Any]:
    """Return what stands against a commit, and what it gives rights to, as JSON data."""
    return {
        "conflicts": [{"path": c.path, "what": c.what} for c in planned.conflicts] if planned else [],
        "privileged": [{"path": p.path, "what": p.what} for p in planned.privileged] if planned else [],
    }


def say_done(commit: Commit, what: str = "committed as number {}") -> None:
    """Say what was done, and how it is taken back."""
    back = "redo" if commit.state == "undone" else "undo"
    changes = plural(sum(commit.counts.values()), "change")
    done = what.format(commit.number)
    say(f"{done}, {changes} of {commit.name}: layerrun {back} {commit.number}")
