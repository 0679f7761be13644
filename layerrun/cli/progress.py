"""Progress on a terminal, for what takes longer than half a second."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Counter", "counter"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

# Nothing is shown before that: most imports into a test's store are quicker, and a flash of a bar is noise.
PATIENCE = 0.5


@contextlib.contextmanager
def counter(what: str, *, total: int = 0) -> Iterator[Counter]:
    """Give what shows, on a terminal and after half a second, how far it is.

    Args:
        what: what is being done: ``importing debian``.
        total: how many bytes there will be, 0 if that is not known.
    """
    with contextlib.ExitStack() as stack:
        yield Counter(what, total, stack if sys.stderr.isatty() else None)


class Counter:
    """To be called with the entries (0: they are not told) and the bytes so far."""

    def __init__(self, what: str, total: int, stack: contextlib.ExitStack | None) -> None:
        self._what, self._total, self._stack = what, total, stack
        self._began = time.monotonic()
        self._bar: _Bar | None = None
        self._part: Callable[[int], float | None] = lambda _count: None

    def watch(self, fd: int) -> None:
        """Tell how far it is by how much of the file ``fd``, which stays open, has been read; not of a pipe."""
        self._part = _part_read(fd)

    def between(self, function: Callable[_P, _R]) -> Callable[_P, _R]:
        """Return ``function``, which says or asks something, such that it finds no bar that draws over it."""

        def alone(*args: _P.args, **more: _P.kwargs) -> _R:
            if self._bar is not None:
                self._bar.end()
                self._bar = None
            return function(*args, **more)

        return alone

    def __call__(self, entries: int, count: int) -> None:
        """Show it."""
        after = time.monotonic() - self._began
        if self._stack is None or after < PATIENCE:
            return
        self._bar = self._bar or _Bar(self._what, self._stack)
        done = min(count / self._total, 1.0) if self._total else self._part(count)
        self._bar.show(entries, count, count / after, done)


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

    def end(self) -> None:
        """Take it off the terminal."""
        self._progress.stop()

    def show(self, entries: int, count: int, rate: float, done: float | None) -> None:
        """Show entries (if there are any to tell of), bytes, and bytes a second."""
        from layerrun.cli.output import plural, size

        words = [plural(entries, "entry", "entries")] if entries else []
        words += [size(count), f"{size(int(rate))}/s"]
        if done is not None:
            words.insert(0, f"{int(done * 100):3d}%")
        total = None if done is None else 1.0
        self._progress.update(self._task, total=total, completed=done or 0.0, words=", ".join(words))


def _part_read(fd: int) -> Callable[[int], float | None]:
    """Return a function that says how much of a file has been read, if it gave so many bytes; None for a pipe.

    What is read through this description of it counts, or what came of it where it is read by places.
    """
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return lambda _count: None
    return lambda count: min((os.lseek(fd, 0, os.SEEK_CUR) or count) / status.st_size, 1.0)
