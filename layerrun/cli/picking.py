"""Choosing what of a list of changes is to be committed: path by path, or hunk by hunk, as ``git add -p`` asks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import click

from layerrun.cli.changes import shown
from layerrun.cli.common import answer
from layerrun.cli.output import plural, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerrun.changes import Change

__all__ = ["Picked", "Texts", "pick"]

# What a changed text file had and has, in bytes; ``None``: it is not for going through line by line.
Texts = Callable[["Change"], tuple[bytes, bytes] | None]

_HELP = {
    "y": "take it",
    "n": "leave it in the layer",
    "a": "take it and all that is left{of}",
    "d": "leave it, and all that is left{of}",
    "s": "{split}",
    "q": "stop asking: go on with what was taken so far",
    "?": "say what the letters mean",
}


@attrs.frozen
class Picked:
    """What was chosen: ``paths`` with all in them, ``exactly`` without; of some files the content, by path."""

    paths: tuple[str, ...]
    exactly: frozenset[str]
    parts: dict[str, bytes]

    def __bool__(self) -> bool:
        return bool(self.paths or self.exactly or self.parts)


@attrs.frozen
class _Unit:
    """A change with all that comes with it: what is in a folder that is new."""

    change: Change
    inner: tuple[_Unit, ...]

    def __len__(self) -> int:
        return 1 + sum(map(len, self.inner))


def _units(changes: Sequence[Change]) -> list[_Unit]:
    """Return the changes with those in new folders beneath these."""
    found: list[_Unit] = []
    at = 0
    while at < len(changes):
        change, at = changes[at], at + 1
        end = at
        if change.type == "dir" and change.change in "AT":
            top = change.path.rstrip("/") + "/"
            while end < len(changes) and changes[end].path.startswith(top):
                end += 1
        found.append(_Unit(change, tuple(_units(changes[at:end]))))
        at = end
    return found


class _Stopped(Exception):
    """No more is to be asked."""


@attrs.define
class _Run:
    """One answer for a run of questions: ``rest`` is what ``a`` and ``d`` have said of all that is left of it."""

    of: str = ""
    rest: bool | None = None

    def ask(self, question: str, split: str = "") -> str:
        """Return y, n or s; ``split`` says what s does, where it can be done."""
        if self.rest is not None:
            return "y" if self.rest else "n"
        from layerrun.errors import LayerrunError

        letters = [letter for letter in _HELP if letter != "s" or split]
        while True:
            match answer(f"{question} [{','.join(letters)}]? ", at_end=None):
                case None:
                    raise LayerrunError("stopped: no answer, and nothing was done")
                case "y" | "n" as letter:
                    return letter
                case "a" | "d" as letter:
                    self.rest = letter == "a"
                    return "y" if self.rest else "n"
                case "s" if split:
                    return "s"
                case "q":
                    raise _Stopped
            for key in letters:
                click.echo(f"{key} - {_HELP[key].format(of=self.of, split=split)}", err=True)


def pick(changes: Sequence[Change], texts: Texts, *, by_hunk: bool = False) -> Picked:
    """Ask about each change on the terminal, and return what was chosen.

    Args:
        changes: in the order of `layerrun.runtime.data.diff`.
        texts: gives both sides of a modified file, to ask about each hunk of it.
        by_hunk: do that for every such file, without being asked to.

    Raises:
        LayerrunError: the end of the input; nothing is chosen by it.
        KeyboardInterrupt: it was interrupted.
    """
    picker = _Picker(texts, by_hunk)
    try:
        picker.walk(_units(changes), _Run())
    except _Stopped:
        pass
    return Picked(tuple(picker.paths), frozenset(picker.exactly), picker.parts)


@attrs.define
class _Picker:
    """What has been chosen so far."""

    texts: Texts
    by_hunk: bool
    paths: list[str] = attrs.field(factory=list)
    exactly: list[str] = attrs.field(factory=list)
    parts: dict[str, bytes] = attrs.field(factory=dict)

    def walk(self, units: Sequence[_Unit], run: _Run) -> None:
        """Ask about each of the units."""
        for number, unit in enumerate(units, 1):
            both = None
            if run.rest is None:
                click.echo(_line(unit), err=True)
                both = self._texts_of(unit.change)
            if both is not None and self.by_hunk:
                self._hunks(unit, *both)
                continue
            split = ""
            if unit.inner:
                split = "ask about each change in it"
            elif both is not None:
                split = "ask about each hunk of it"
            match run.ask(f"({number}/{len(units)}) Commit this", split):
                case "y":
                    self._take(unit)
                case "s" if both is not None:
                    self._hunks(unit, *both)
                case "s":
                    self.walk(unit.inner, _Run(" in this folder"))

    def _take(self, unit: _Unit) -> None:
        """Choose a change as it is: of a folder that was there before not what is in it, which has lines of its own."""
        change = unit.change
        (self.exactly if change.type == "dir" and change.change == "P" else self.paths).append(change.path)

    def _texts_of(self, change: Change) -> tuple[bytes, bytes] | None:
        if change.change != "M" or change.type != "file" or change.old_type != "file":
            return None
        found = self.texts(change)
        return None if found is None or found[0] == found[1] else found

    def _hunks(self, unit: _Unit, old: bytes, new: bytes) -> None:
        """Ask about each hunk of a file: all taken is the path as it is, some of them a content of its own."""
        from layerrun.layers import text

        lines = text.split_lines(old), text.split_lines(new)
        every = text.spans(*lines)
        chosen: list[text.Span] = []
        run = _Run(" of this file")
        queue = text.hunks(every)
        done = 0
        try:
            while queue:
                hunk = queue.pop(0)
                done += 1
                parts = text.hunks(hunk, 0)
                if run.rest is None:
                    _show(text.unified(hunk, *lines))
                split = f"ask about its {len(parts)} parts" if len(parts) > 1 else ""
                match run.ask(f"({done}/{done + len(queue)}) Commit this hunk", split):
                    case "y":
                        chosen += hunk
                    case "s":
                        done -= 1
                        queue[:0] = parts
        finally:
            if len(chosen) == len(every):
                self._take(unit)
            elif chosen:
                self.parts[unit.change.path] = b"".join(text.apply(chosen, *lines))


def _line(unit: _Unit) -> str:
    count = len(unit) - 1
    return shown(unit.change) + (f"  (with {plural(count, 'change')} in it)" if count else "")


_COLOURS = {b"@": "cyan", b"+": "green", b"-": "red"}


def _show(lines: Sequence[bytes]) -> None:
    """Print lines of a hunk; what a file holds cannot drive the terminal."""
    for line in lines:
        text = "\t".join(map(printable, line.decode("utf-8", "surrogateescape").rstrip("\n").split("\t")))
        click.echo(click.style(text, fg=_COLOURS.get(line[:1])), err=True)
