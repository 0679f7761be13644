"""How a list of changes is written, for ``try`` and ``diff``."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from layerrun.cli.output import line, lines, nul, plural, quoted, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from layerrun.model import Change

__all__ = ["print_changes", "print_records", "print_stat", "records", "shown"]

_WORDS = {"A": "added", "M": "modified", "D": "deleted", "T": "of another type", "P": "metadata only"}


def records(changes: Iterable[Change]) -> list[dict[str, Any]]:
    """Return the changes as JSON data."""
    return [
        {
            "change": c.change,
            "path": c.path,
            "type": c.type,
            "size": c.size,
            "old_type": c.old_type,
            "old_size": c.old_size,
        }
        for c in changes
    ]


def shown(change: Change) -> str:
    """Return ``M    1.2 KiB  /etc/hosts``; a folder ends in /, another type is said behind."""
    kind = change.type or change.old_type
    count = change.size if change.type else change.old_size
    amount = size(count or 0) if kind == "file" else "-"
    path = quoted(change.path)
    if change.change == "T":
        path += f"  ({change.old_type} to {change.type})"
    elif kind == "dir":
        path = quoted(change.path.rstrip("/") + "/")
    return f"{change.change} {amount:>11}  {path}"


def print_changes(changes: Iterable[Change]) -> None:
    """Print a line for each change: letter, size, path."""
    lines(map(shown, changes))


def print_records(changes: Iterable[Change]) -> None:
    """Print the letter, a space and the raw path of each change, ended by a NUL."""
    nul(f"{c.change} {c.path}" for c in changes)


def print_stat(changes: Sequence[Change]) -> None:
    """Print how many there are of each letter, and what they add to and take from the sizes."""
    counts = Counter(c.change for c in changes)
    for letter, words in _WORDS.items():
        if counts[letter]:
            line(f"{letter} {counts[letter]:>11,}  {words}")
    gained = sum(c.size or 0 for c in changes if c.change in "AMT")
    lost = sum(c.old_size or 0 for c in changes if c.change in "DMT")
    line(f"{plural(len(changes), 'change')}, {size(gained)} written over {size(lost)}")
