"""What is printed: names that cannot harm a terminal, sizes, tables, JSON documents, NUL-ended paths."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "SCHEMA",
    "document",
    "emit",
    "fields",
    "line",
    "lines",
    "nul",
    "plural",
    "printable",
    "quoted",
    "say",
    "size",
    "table",
]

# The version of every JSON document. A new key does not change it; a changed or dropped one does.
SCHEMA = 1

_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\x1b": "\\e"}


def _escape(char: str) -> str:
    if short := _ESCAPES.get(char):
        return short
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))


def _is_odd(char: str) -> bool:
    """Whether ``char`` could drive a terminal or mislead a reader: control, undecodable, bidi, unassigned."""
    return not char.isprintable() and char != " "


def quoted(text: str) -> str:
    r"""Return a name or path as it is, or as ``$'…'`` if it holds control or undecodable bytes.

    The quoted form is the shell's: pasted into bash or zsh it gives the same bytes again.
    """
    if text.isprintable() and not text.startswith("$'"):
        return text
    body = text.replace("\\", "\\\\").replace("'", "\\'")
    return "$'" + "".join(_escape(c) if _is_odd(c) else c for c in body) + "'"


def printable(text: str) -> str:
    """Return a sentence with every control or undecodable byte in it escaped."""
    return text if text.isprintable() else "".join(_escape(c) if _is_odd(c) else c for c in text)


def size(count: int) -> str:
    """Return a number of bytes for people, in powers of 1,024: ``0 B``, ``12.3 MiB``."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        value /= 1024
        # 1023.95 would be rounded up to 1024.0, which belongs to the next unit.
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} EiB"


def plural(count: int, noun: str, many: str | None = None) -> str:
    """Return ``1 file``, ``2 files``, ``12,000 files``."""
    return f"{count:,} {noun if count == 1 else many or noun + 's'}"


def line(text: str = "") -> None:
    """Print one line to standard output; colour codes go if it is no terminal."""
    click.echo(text)


def lines(texts: Iterable[str]) -> None:
    """Print many lines in one write."""
    text = "\n".join(texts)
    if text:
        click.echo(text)


def say(text: str) -> None:
    """Tell the user something on standard error, as ``layerrun: TEXT``."""
    click.echo(f"layerrun: {printable(text)}", err=True)


def nul(paths: Iterable[str]) -> None:
    """Print paths as they are, byte for byte, each ended by a NUL."""
    data = b"".join(os.fsencode(path) + b"\0" for path in paths)
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    import unicodedata

    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) != 0 for c in text)


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - _width(text))
    return space + text if right else text + space


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows in aligned columns. A head that begins with ``>`` aligns its column to the right.

    Without rows nothing is printed.
    """
    cells = [list(row) for row in rows]
    if not cells:
        return
    right = [title.startswith(">") for title in head]
    titles = [title.lstrip(">") for title in head]
    plain = all(cell.isascii() for row in cells for cell in row)
    widths = [max(map(len if plain else _width, column)) for column in zip(titles, *cells, strict=True)]

    def aligned(row: Sequence[str]) -> str:
        if plain:  # many rows are
            return "  ".join(
                [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=False)]
            ).rstrip()
        parts = [_pad(c, w, right=r) for c, w, r in zip(row, widths, right, strict=True)]
        return "  ".join(parts).rstrip()

    lines([click.style(aligned(titles), bold=True), *map(aligned, cells)])


def fields(pairs: Mapping[str, str | Sequence[str]]) -> None:
    """Print ``name  value`` lines, aligned; a list goes below itself, an empty value is left out."""
    shown = {k: [v] if isinstance(v, str) else list(v) for k, v in pairs.items() if v}
    width = max(map(len, shown), default=0)
    for name, values in shown.items():
        for index, value in enumerate(values):
            line(f"{name if index == 0 else '':<{width}}  {value}")


def _clean(value: Any) -> Any:
    """Make strings valid Unicode; what is lost stands beside it, under ``<key>_b64``."""
    if isinstance(value, str):
        return os.fsencode(value).decode("utf-8", "replace")
    if isinstance(value, list | tuple):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        result: dict[str, Any] = {}
        for key, item in value.items():
            result[key] = _clean(item)
            if (raw := _raw(item)) is not None:
                result[f"{key}_b64"] = raw
        return result
    return value


def _raw(value: Any) -> str | list[str] | None:
    """Return base64 of a string, or of each of a list of strings, if it is not valid UTF-8."""
    import base64

    if isinstance(value, str):
        return base64.b64encode(os.fsencode(value)).decode() if _undecodable(value) else None
    if isinstance(value, list | tuple) and any(isinstance(v, str) and _undecodable(v) for v in value):
        return [base64.b64encode(os.fsencode(v)).decode() for v in value]
    return None


def _undecodable(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _dumps(value: Any) -> str:
    text = json.dumps(value)
    # Only a lone surrogate (an undecodable byte) needs the slow way; a pair is an ordinary character.
    return json.dumps(_clean(value)) if "\\ud" in text else text


def document(data: Mapping[str, Any]) -> str:
    """Return one JSON document: ``schema`` first, a key a line, a record of a list a line.

    It is ASCII, so that no name in it can drive a terminal. A string that is no valid UTF-8 has U+FFFD for
    each bad byte, and its bytes in base64 under ``<key>_b64``.
    """
    parts = []
    for key, value in {"schema": SCHEMA, **data}.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            body = ",\n".join("  " + _dumps(item) for item in value)
            parts.append(f" {json.dumps(key)}: [\n{body}\n ]")
        else:
            # Dumped together with its key, so that a `_b64` has a place to stand.
            parts.append(" " + _dumps({key: value})[1:-1])
    return "{\n" + ",\n".join(parts) + "\n}"


def emit(data: Mapping[str, Any]) -> None:
    """Print one JSON document to standard output."""
    click.echo(document(data))
