"""How a build is told: a line for each step, on a terminal with what it says meanwhile; all of that when it fails."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import threading
import time
from typing import IO, TYPE_CHECKING

import click

from layerrun.cli.output import plural, printable, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerrun.building.build import Done
    from layerrun.building.recipe import Step
    from layerrun.errors import LayerrunError

__all__ = ["BuildLog"]

# Seconds between two looks, and how much of the end of what was said is looked at or shown (bytes, lines).
_TICK = 0.1
_LOOK = 4096
_LINES = 20
_SHOWN = 65536


class BuildLog:
    """A `layerrun.building.build.Watch` that writes to standard error.

    Args:
        steps: the recipe's.
        verbose: let steps say what they say at once.
        quiet: tell of failures alone.
        debug: after a failure comes a shell.
    """

    def __init__(
        self, steps: Sequence[Step], *, verbose: bool = False, quiet: bool = False, debug: bool = False
    ) -> None:
        self._debug = debug
        self._steps, self._verbose, self._quiet = steps, verbose, quiet
        self._live = sys.stderr.isatty() and not verbose and not quiet
        self._file: IO[bytes] | None = None
        self._ticker: _Ticker | None = None

    def begins(self, number: int, step: Step, /) -> int | None:
        """Tell that a step begins."""
        del step
        if self._verbose:
            self._say(click.style(self._head(number), bold=True))
            sys.stderr.flush()
            return 2  # standard output is for what the build itself says
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (it is closed when the step has ended)
        if self._live:
            self._ticker = _Ticker(self._head(number), self._file.fileno())
        return self._file.fileno()

    def ended(self, number: int, done: Done, /) -> None:
        """Tell what a step has come to."""
        self._stop()
        how = click.style("cached", fg="cyan") if done.cached else f"{done.seconds:.1f} s"
        layer = done.layer
        what = "nothing changed"
        if layer is not None:
            what = f"{plural(layer.entries or 0, 'entry', 'entries')}, {size(layer.size or 0)}"
        if not self._quiet:
            width = max(24, min(shutil.get_terminal_size().columns, 120) - 38)
            head = _cut(self._head(number), width)
            self._say(
                f"{head:<{width}}  {how}{' ' * (8 - len(click.unstyle(how)))}  {click.style(what, dim=True)}"
            )

    def failed(self, number: int, step: Step, error: LayerrunError, /) -> None:
        """Tell what a step that has failed has said."""
        del step, error
        said = b""
        if self._file is not None:
            end = self._file.seek(0, os.SEEK_END)
            said = os.pread(self._file.fileno(), _SHOWN, max(0, end - _SHOWN))
        self._stop()
        self._say(click.style(self._head(number), fg="red", bold=True))
        lines = said.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
        lines = [line for line in lines if line.strip()]
        if len(lines) > _LINES:
            self._say("  … (all of it: layerrun build -v)")
        for line in lines[-_LINES:]:
            self._say("  " + printable(line))
        if self._debug:
            self._say("a shell where it has failed, with what it has done so far; `exit` ends it")

    def _head(self, number: int) -> str:
        return f"[{number + 1}/{len(self._steps)}] {printable(self._steps[number].title)}"

    def _stop(self) -> None:
        if self._ticker is not None:
            self._ticker.end()
            self._ticker = None
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self) -> None:
        """End what is still shown."""
        self._stop()

    def _say(self, text: str) -> None:
        click.echo(text, err=True)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


class _Ticker:
    """A line on the terminal, from a thread: how long a step takes so far, and what it has said last.

    What runs the step waits in C meanwhile, and has lent standard error to it: the terminal is written to by a
    descriptor of our own. Signals are not this thread's affair.
    """

    def __init__(self, head: str, said: int) -> None:
        self._head, self._said = head, said
        self._terminal = os.dup(2)
        self._began, self._end = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._end.wait(_TICK):
            with contextlib.suppress(OSError):
                os.write(self._terminal, b"\r\x1b[2K" + self._line().encode(errors="replace"))

    def _line(self) -> str:
        width = shutil.get_terminal_size().columns - 1
        seconds = f"{time.monotonic() - self._began:.0f} s"
        head = _cut(self._head, max(20, width // 2))
        return _cut(f"{head}  {seconds}  {self._last()}", width)

    def _last(self) -> str:
        """Return the last line that the step has said."""
        end = os.fstat(self._said).st_size
        text = os.pread(self._said, _LOOK, max(0, end - _LOOK)).decode(errors="replace")
        lines = [line for line in text.replace("\r", "\n").split("\n") if line.strip()]
        return printable(lines[-1].strip()) if lines else ""

    def end(self) -> None:
        """Take the line away."""
        self._end.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            os.write(self._terminal, b"\r\x1b[2K")
        os.close(self._terminal)
