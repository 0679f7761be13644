"""What becomes of a throwaway once its command has ended: listed, then committed, kept or discarded; reported."""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs
import click

from layerrun.cli import exits
from layerrun.cli.changes import print_changes, records
from layerrun.cli.committing import (
    commit_record,
    is_committable,
    name_merged,
    name_privileged,
    picked_plan,
    plan_record,
    refuse_conflicts,
    say_done,
    say_kept,
)
from layerrun.cli.common import answer, has_terminal
from layerrun.cli.output import document, emit, plural, say
from layerrun.errors import LayerrunError

if TYPE_CHECKING:
    from layerrun.changes import Change, Commit
    from layerrun.commit.plan import Planned
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["Judge", "OnExit", "check_report"]


class OnExit(enum.StrEnum):
    """What ``try`` does with the changes without asking."""

    COMMIT = "commit"
    KEEP = "keep"
    DISCARD = "discard"


_HELP = {
    "commit": "make them on this machine; layerrun undo takes it back",
    "pick": "make some of them, asking about each",
    "keep": "leave them in the layer, to be read or committed later",
    "discard": "drop them",
}


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


@attrs.define
class _Outcome:
    """What became of it. ``failure``: why it could not be committed, though that was asked for."""

    kept: bool
    planned: Planned | None = None
    commit: Commit | None = None
    failure: Exception | None = None


@attrs.frozen
class Judge:
    """What is to become of a throwaway whose command has ended; where ``on_exit`` is ``None`` a terminal is asked."""

    on_exit: OnExit | None
    as_json: bool
    report: str | None
    argv: Sequence[str] = ()

    def safely(self, store: Store, app: App, status: int, *, new: bool) -> int:
        """List, commit, keep or discard, report.

        Return the exit status: the command's own unless it would hide a failure.
        """
        try:
            failure = self._judge(store, app, status, new=new)
        except Exception as error:  # noqa: BLE001  (the command's own status must not be lost)
            failure = error
        if failure is None:
            return status
        exits.report(failure)
        say_kept(app)
        return status or exits.status_of(failure)

    def _judge(self, store: Store, app: App, status: int, *, new: bool) -> Exception | None:
        """List what ``app`` changed, decide, report. Return why what was asked for could not be done."""
        from layerrun.commit import ancestors
        from layerrun.runtime import data

        changes = data.diff(store, app)
        if not self.as_json:
            print_changes(changes)
            sys.stdout.flush()
        outcome = _Outcome(kept=self.on_exit is not OnExit.DISCARD and (bool(changes) or not new))
        if changes:
            self._decide(store, app, changes, status, outcome)
        if not outcome.kept and outcome.commit is None:
            data.discard(store, app)
        elif outcome.kept and changes:
            if is_committable(app):
                ancestors.save(store, app)
            if outcome.failure is None:
                say_kept(app)
        done = _report(app, status, outcome, changes)
        if self.as_json:
            emit(done)
        if self.report is not None:
            with open(self.report, "w", encoding="ascii") as file:
                file.write(document(done) + "\n")
        return outcome.failure

    def _decide(
        self, store: Store, app: App, changes: Sequence[Change], status: int, outcome: _Outcome
    ) -> None:
        """Commit it, or say in the outcome what else is to become of it."""
        if self.on_exit is OnExit.COMMIT:
            if status:
                say(f"{app.name} is not committed: the command ended with {status}")
            else:
                self._commit(store, app, outcome)
        elif self.on_exit is None and not self.as_json and has_terminal():
            try:
                self._ask(store, app, changes, outcome)
            except KeyboardInterrupt:
                pass  # it is kept, as after an empty line

    def _commit(self, store: Store, app: App, outcome: _Outcome, picks: Sequence[Change] = ()) -> None:
        """Commit all of it, or what is picked."""
        from layerrun.commit import engine
        from layerrun.commit.plan import Selection, plan

        try:
            if picks:
                outcome.planned = picked_plan(store, app, picks, Selection())
            elif outcome.planned is None:
                outcome.planned = plan(store, app, Selection())
                name_privileged(outcome.planned)
            refuse_conflicts(app, outcome.planned)
            outcome.commit = engine.commit(store, app, outcome.planned, command=tuple(self.argv))
        except Exception as error:  # noqa: BLE001  (it is reported once all is said)
            outcome.failure = error
            return
        outcome.kept = outcome.planned.left > 0
        name_merged(outcome.planned)
        say_done(outcome.commit)

    def _ask(self, store: Store, app: App, changes: Sequence[Change], outcome: _Outcome) -> None:
        """Ask; an empty line, the end of input and an interrupt keep it, for only a clear word changes anything."""
        words = ["keep", "discard"]
        if is_committable(app):
            from layerrun.commit.plan import Selection, plan

            try:
                outcome.planned = plan(store, app, Selection())
                name_privileged(outcome.planned)
                words = ["commit", "pick", *words]
            except LayerrunError as error:
                exits.report(error)
        asked = " ".join(f"[{word[0]}]{word[1:]}" for word in words)
        while True:
            typed = answer(f"{plural(len(changes), 'change')} in {app.name}: {asked}? [k] ") or "k"
            word = next((word for word in words if typed in (word, word[0])), None)
            if word is not None:
                break
            for one in words:
                click.echo(f"{one[0]} - {_HELP[one]}", err=True)
        if word == "commit":
            self._commit(store, app, outcome)
        elif word == "pick":
            self._commit(store, app, outcome, picks=changes)
        else:
            outcome.kept = word == "keep"


def _report(app: App, status: int, outcome: _Outcome, changes: Sequence[Change]) -> dict[str, Any]:
    commit = outcome.commit
    return {
        "name": app.name,
        "base": app.config.base,
        "exit_status": status,
        "kept": outcome.kept,
        "committed": commit is not None,
        "commit": None if commit is None else commit_record(commit),
        **plan_record(outcome.planned),
        "changes": records(changes),
    }
