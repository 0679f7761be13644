"""What becomes of a throwaway once its command has ended: listed, then kept or discarded; reported."""

from __future__ import annotations

import enum
import os
import sys
from typing import TYPE_CHECKING, Any

import attrs
import click

from layerrun.cli import exits
from layerrun.cli.changes import print_changes, records
from layerrun.cli.common import answer, has_terminal
from layerrun.cli.output import document, emit, plural, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerrun.model import App, Change
    from layerrun.store.store import Store

__all__ = ["Judge", "OnExit", "check_report"]


class OnExit(enum.StrEnum):
    """What ``try`` does with the changes without asking."""

    COMMIT = "commit"
    KEEP = "keep"
    DISCARD = "discard"


def check_report(report: str | None) -> None:
    """Refuse a report that cannot be written before the command runs, not after."""
    if report is None:
        return
    folder = os.path.dirname(report) or "."
    if not os.access(report if os.path.exists(report) else folder, os.W_OK):
        from layerrun.errors import UsageError

        raise UsageError(
            f"--report {report}: it cannot be written", hint="name a file in a folder you can write to"
        )


@attrs.frozen
class Judge:
    """What is to become of a throwaway whose command has ended; where ``on_exit`` is ``None`` a terminal is asked."""

    on_exit: OnExit | None
    as_json: bool
    report: str | None

    def safely(self, store: Store, app: App, status: int, *, new: bool) -> int:
        """List, keep or discard, report; return the exit status: the command's own unless it would hide a failure."""
        try:
            if self._judge(store, app, status, new=new) and self.on_exit is OnExit.COMMIT:
                say(f"{app.name} is not committed: this version has no commit yet")
                return status or 1
        except Exception as error:  # noqa: BLE001  (the command's own status must not be lost)
            exits.report(error)
            say(f"kept as {app.name}")
            return status or exits.status_of(error)
        return status

    def _judge(self, store: Store, app: App, status: int, *, new: bool) -> bool:
        """List what ``app`` changed; keep or discard it; report. Return whether it changed anything."""
        from layerrun.runtime import data

        changes = data.diff(store, app)
        if not self.as_json:
            print_changes(changes)
            sys.stdout.flush()
        kept = self.on_exit is not OnExit.DISCARD and (bool(changes) or not new)
        if changes and self.on_exit is None and not self.as_json and has_terminal():
            kept = _keeps(app, changes)
        if not kept:
            data.discard(store, app)
        elif changes:
            say(f"kept as {app.name}: layerrun diff {app.name}, layerrun discard {app.name}")
        done = _report(app, status, kept, changes)
        if self.as_json:
            emit(done)
        if self.report is not None:
            with open(self.report, "w", encoding="ascii") as file:
                file.write(document(done) + "\n")
        return bool(changes)


def _report(app: App, status: int, kept: bool, changes: Sequence[Change]) -> dict[str, Any]:
    return {
        "name": app.name,
        "base": app.config.base,
        "exit_status": status,
        "kept": kept,
        "changes": records(changes),
    }


def _keeps(app: App, changes: Sequence[Change]) -> bool:
    """Ask; an empty line, the end of input and an interrupt keep it, for only a clear word destroys."""
    while True:
        try:
            typed = answer(f"{plural(len(changes), 'change')} in {app.name}: [k]eep or [d]iscard? [k] ")
        except KeyboardInterrupt:
            click.echo(err=True)
            return True
        match typed.lower():
            case "" | "k" | "keep":
                return True
            case "d" | "discard":
                return False
