"""Progress on a terminal, for what takes longer than half a second."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.status import Status

__all__ = ["counter"]

# Nothing is shown before that: most imports into a test's store are quicker, and a flash of a bar is noise.
PATIENCE = 0.5


@contextlib.contextmanager
def counter(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function ``(entries, bytes)`` that shows how far it is, on a terminal and after half a second.

    Args:
        what: what is being done: ``importing debian``.
    """
    if not sys.stderr.isatty():
        yield lambda _entries, _count: None
        return
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        status: Status | None = None

        def show(entries: int, count: int) -> None:
            nonlocal status
            from layerrun.cli.output import plural, size

            text = f"{what}: {plural(entries, 'entry', 'entries')}, {size(count)}"
            if status is not None:
                status.update(text)
            elif time.monotonic() - began > PATIENCE:
                from rich.console import Console

                status = stack.enter_context(Console(stderr=True).status(text))

        yield show
