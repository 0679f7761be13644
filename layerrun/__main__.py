"""``python -m layerrun`` and the installed ``layerrun`` script."""

from __future__ import annotations

import fcntl
import gc
import os
import sys
from contextlib import suppress
from typing import NoReturn

__all__ = ["main"]


def _reopen_standard_descriptors() -> None:
    """Open /dev/null on each of 0, 1 and 2 that is closed.

    Otherwise the catalog could be opened as descriptor 2 and an error message be written into it.
    """
    for fd in (0, 1, 2):
        try:
            fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError:
            # The lowest free descriptor is this one: those below were just made sure of.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(fd, True)
    for name, fd in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            stream = os.fdopen(fd, "r" if fd == 0 else "w", encoding="utf-8", closefd=False)
            setattr(sys, name, stream)


def _begin_ahead(words: list[str]) -> None:
    """Start what `base import` reads an archive in, while this process imports what the command needs."""
    if words[:2] == ["base", "import"] and len(words) > 3 and not os.path.isdir(words[3]):
        from layerrun.native.jail import make_ready

        with suppress(OSError):  # who needs it tries again, and says it
            make_ready("layerrun.images.plain")


def main() -> int:
    """Run the command line in ``sys.argv``; return the exit status."""
    # A command is short, or it reads a long list of plain values: little of either is a cycle.
    gc.set_threshold(50_000)
    _reopen_standard_descriptors()
    _begin_ahead(sys.argv[1:])
    from layerrun.cli.main import main as run

    return run(sys.argv[1:])


def _run() -> NoReturn:
    """Run the command line and end at once: to take an interpreter down piece by piece costs 8 ms."""
    status = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # said already, where it matters
            stream.flush()
    os._exit(status)


if __name__ == "__main__":
    _run()
