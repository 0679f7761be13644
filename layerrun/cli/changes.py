"""How a list of changes is written, for ``try`` and ``diff``."""

from __future__ import annotations

from stat import S_ISREG
from typing import TYPE_CHECKING, Any

from layerrun.cli.output import lines, nul, quoted, size

if TYPE_CHECKING:
    from collections.abc import Iterable

    from layerrun.changes import Change
    from layerrun.layers.between import Row

__all__ = ["print_changes", "print_paths", "print_rows", "records", "shown"]

_TYPE = ord("T")


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


def print_rows(rows: Iterable[Row]) -> None:
    """Print the same from rows of a comparison, of which there may be very many."""
    from layerrun.layers.diff import change_of

    sizes: dict[int, str] = {}
    texts = []
    for row in rows:
        letter, has_new, _, new_mode, new_size, old_mode, old_size, path = row
        mode, count = (new_mode, new_size) if has_new else (old_mode, old_size)
        if not S_ISREG(mode) or letter == _TYPE or not path.isprintable():
            texts.append(shown(change_of(row)))
            continue
        if (amount := sizes.get(count)) is None:
            amount = sizes[count] = f"{size(count):>11}"
        texts.append(f"{chr(letter)} {amount}  /{path}")
    lines(texts)


def print_paths(rows: Iterable[Row]) -> None:
    """Print the letter, a space and the raw path of each row, ended by a NUL."""
    nul(f"{chr(row[0])} /{row[7]}" for row in rows)
