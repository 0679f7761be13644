"""Progress on a terminal, for what takes longer than half a second."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["counter", "part_read"]

# Nothing is shown before that: most imports into a test's store are quicker, and a flash of a bar is noise.
PATIENCE = 0.5


@contextlib.contextmanager
def counter(
    what: str, *, total: int = 0, part: Callable[[], float | None] | None = None
) -> Iterator[Callable[[int, int], None]]:
    """Give a function ``(entries, bytes)`` that shows how far it is, on a terminal and after half a second.

    Args:
        what: what is being done: ``importing debian``.
        total: how many bytes there will be, 0 if that is not known.
        part: where the bytes do not tell it: returns how much of it is done, 0 to 1, or None.
    """
    if not sys.stderr.isatty():
        yield lambda _entries, _count: None
        return
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        bar: _Bar | None = None

        def show(entries: int, count: int) -> None:
            nonlocal bar
            if bar is None and time.monotonic() - began > PATIENCE:
                bar = _Bar(what, stack)
            if bar is not None:
                done = part() if part is not None else min(count / total, 1.0) if total else None
                bar.show(entries, count, count / (time.monotonic() - began), done)

        yield show


class _Bar:
    """A bar with words behind it; without a total it runs to and fro."""

    def __init__(self, what: str, stack: contextlib.ExitStack) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        columns: tuple[Any, ...] = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[words]}", markup=False),
        )
        progress = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=8)
        self._progress = stack.enter_context(progress)
        self._task = self._progress.add_task(what, total=None, words="")

    def show(self, entries: int, count: int, rate: float, done: float | None) -> None:
        """Show entries (if there are any to tell of), bytes, and bytes a second."""
        from layerrun.cli.output import plural, size

        words = [plural(entries, "entry", "entries")] if entries else []
        words += [size(count), f"{size(int(rate))}/s"]
        if done is not None:
            words.insert(0, f"{int(done * 100):3d}%")
        total = None if done is None else 1.0
        self._progress.update(self._task, total=total, completed=done or 0.0, words=", ".join(words))


def part_read(fd: int) -> Callable[[], float | None]:
    """Return a function that says how much of a file has been read through this description of it; None for a pipe."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return lambda: None
    return lambda: min(os.lseek(fd, 0, os.SEEK_CUR) / status.st_size, 1.0)
