"""How differences are written with what is in them: lines counted, patches, metadata, a tree."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.output import line, lines, plural, printable, quoted, size

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from layerrun.changes import Change

__all__ = ["print_meta", "print_patch", "print_stat", "print_tree"]

_WORDS = {
    "A": "added",
    "M": "modified",
    "D": "deleted",
    "T": "of another type",
    "P": "metadata only",
    "R": "renamed",
}
_COLOURS = {"A": "green", "M": "yellow", "D": "red", "T": "magenta", "P": "cyan", "R": "blue"}
# How wide the row of + and - may be.
_BAR = 40

_Records = list[dict[str, Any]]


def print_stat(records: _Records) -> None:
    """Print a line for each difference with the lines added and removed, then how many there are of each letter."""
    most = max(((r["added"] or 0) + (r["removed"] or 0) for r in records), default=0)
    names = [_name(record) for record in records]
    width = max(map(len, names), default=0)
    lines(
        f"{record['change']} {name:<{width}} | {_amount(record, most)}".rstrip()
        for record, name in zip(records, names, strict=True)
    )
    counts = Counter(record["change"] for record in records)
    for letter, words in _WORDS.items():
        if counts[letter]:
            line(f"{letter} {counts[letter]:>11,}  {words}")
    added, removed = (sum(record[key] or 0 for record in records) for key in ("added", "removed"))
    gained = sum(r["size"] or 0 for r in records if r["change"] in "AMT")
    lost = sum(r["old_size"] or 0 for r in records if r["change"] in "DMT")
    line(
        f"{plural(len(records), 'change')}, {plural(added, 'line')} added, {removed:,} removed, "
        f"{size(gained)} written over {size(lost)}"
    )


def _name(record: dict[str, Any]) -> str:
    path: str = record["path"]
    if "dir" in (record["type"], record["old_type"] if record["type"] is None else None):
        path = path.rstrip("/") + "/"
    before = record.get("renamed_from")
    return f"{quoted(before)} => {quoted(path)}" if before else quoted(path)


def _amount(record: dict[str, Any], most: int) -> str:
    kind, before = record["type"], record["old_type"]
    if record["added"] is None:
        return f"binary, {size(record['old_size'] or 0)} to {size(record['size'] or 0)}"
    if "file" not in (kind, before) and "symlink" not in (kind, before):
        return ""
    added, removed = record["added"], record["removed"]
    part = min(1.0, _BAR / most) if most else 0.0
    bar = click.style("+" * _share(added, part), fg="green") + click.style(
        "-" * _share(removed, part), fg="red"
    )
    return f"{added + removed:,} {bar}" if added + removed else "0"


def _share(count: int, part: float) -> int:
    return max(1, round(count * part)) if count else 0


def print_meta(records: _Records) -> None:
    """Print a line for each difference, and below it what of the metadata is another."""
    texts = []
    for record in records:
        texts.append(f"{record['change']} {_name(record)}")
        for item in record["meta"]:
            values = [_value(item["what"], item[key]) for key in ("old", "new")]
            texts.append(f"    {quoted(item['what'])}: {values[0]} -> {values[1]}")
    lines(texts)


def _value(what: str, value: Any) -> str:
    if value is None:
        return "none"
    text = str(value)
    # Of an attribute it may be anything: an ACL or a capability is shown by its bytes.
    return quoted(text) if not what.startswith("xattr ") or text.isprintable() else _hexadecimal(text)


def _hexadecimal(text: str) -> str:
    return "0x" + text.encode("utf-8", "surrogateescape").hex()


def print_patch(records: Iterable[dict[str, Any]]) -> None:
    """Print the patches: bytes as they are, but on a terminal coloured, and what could drive it is shown instead."""
    if not sys.stdout.isatty():
        sys.stdout.flush()
        for record in records:
            sys.stdout.buffer.write(record["patch"].encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()
        return
    for record in records:
        head = True
        for text in record["patch"].split("\n")[:-1]:
            head = not text.startswith("@@") and (head or text.startswith("diff --git "))
            harmless = "\t".join(printable(part) for part in text.split("\t"))
            line(click.style(harmless, bold=True) if head else click.style(harmless, fg=_colour(text)))
            head = head and not text.startswith("@@")


def _colour(text: str) -> str | None:
    return {"@": "cyan", "+": "green", "-": "red"}.get(text[:1])


def print_tree(changes: Sequence[Change]) -> None:
    """Print the changes as a tree of folders; those with just one folder in them stand in one line with it."""
    top: dict[str, Any] = {}
    told: dict[str, Change] = {}
    for change in changes:
        told[change.path.rstrip("/")] = change
        folder = top
        for name in change.path.strip("/").split("/") if change.path != "/" else ():
            folder = folder.setdefault(name, {})
    marks = (
        ("├── ", "└── ", "│   ")
        if (sys.stdout.encoding or "").lower().startswith("utf")
        else ("|-- ", "`-- ", "|   ")
    )
    texts = [_leaf("/", told.get(""), folder=True)] if changes else []
    # A stack, for folders may be nested deeper than Python calls itself.
    waiting = [("", "", list(top.items()))]
    while waiting:
        path, indent, items = waiting.pop()
        if not items:
            continue
        (name, inside), *rest = items
        waiting.append((path, indent, rest))
        while f"{path}/{name}" not in told and len(inside) == 1:
            (deeper, inside) = next(iter(inside.items()))
            name += f"/{deeper}"
        found = told.get(f"{path}/{name}")
        mark, follow = (marks[0], marks[2]) if rest else (marks[1], "    ")
        texts.append(click.style(indent + mark, dim=True) + _leaf(name, found, folder=bool(inside)))
        waiting.append((f"{path}/{name}", indent + follow, list(inside.items())))
    lines(texts)


def _leaf(name: str, change: Change | None, *, folder: bool) -> str:
    kind = (change.type or change.old_type) if change else None
    shown = quoted(name.rstrip("/") + "/" if folder or kind == "dir" else name)
    if change is None:
        return shown
    count = change.size if change.type else change.old_size
    text = f"{change.change} {shown}"
    if change.change == "T":
        text += f"  ({change.old_type} to {change.type})"
    elif kind == "file":
        text += f"  {size(count or 0)}"
    return click.style(text, fg=_COLOURS[change.change])
