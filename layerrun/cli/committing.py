"""What is said of a commit that was done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerrun.cli.output import plural, say

if TYPE_CHECKING:
    from layerrun.model import Commit

__all__ = ["commit_record", "say_done"]


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


def say_done(commit: Commit, what: str = "committed") -> None:
    """Say what was done, and how it is taken back."""
    back = "redo" if what == "undone" else "undo"
    changes = plural(sum(commit.counts.values()), "change")
    say(f"{what} {changes} of {commit.name} as number {commit.number}: layerrun {back} {commit.number}")
