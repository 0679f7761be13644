"""What detached commands of an app have written: ``apps/ID/log``. See docs/store.md."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerrun.errors import NotFoundError
from layerrun.runtime.instances import running

if TYPE_CHECKING:
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["open_log", "read", "tail"]

_BLOCK = 1 << 16
_LOOK_EVERY = 0.1  # seconds


def open_log(store: Store, app: App) -> int:
    """Open the log of an app; the caller closes it. Raises `NotFoundError` if no command of it ever ran detached."""
    folder = store.open_app_dir(app)
    try:
        return os.open("log", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise NotFoundError(
            f"{app.name!r} has no log: nothing has run in it detached",
            hint=f"layerrun app {app.name} --detach -- CMD…",
        ) from None
    finally:
        os.close(folder)


def tail(fd: int, lines: int) -> None:
    """Set the place to read from to the beginning of the last ``lines`` lines."""
    at = os.fstat(fd).st_size
    left = lines + 1 if at and os.pread(fd, 1, at - 1) == b"\n" else lines
    while at and lines:
        begin = max(0, at - _BLOCK)
        block = os.pread(fd, at - begin, begin)
        for place in range(len(block) - 1, -1, -1):
            if block[place] == 10:
                left -= 1
                if not left:
                    os.lseek(fd, begin + place + 1, os.SEEK_SET)
                    return
        at = begin
    os.lseek(fd, os.fstat(fd).st_size if not lines else 0, os.SEEK_SET)


def read(store: Store, app: App, fd: int, *, follow: bool) -> Iterator[bytes]:
    """Yield what is in the log from where it stands; with ``follow``, what comes too, until the app has ended."""
    with running(store, app) as pidfd:
        if not follow:
            pidfd = None
        while True:
            while block := os.read(fd, _BLOCK):
                yield block
            if pidfd is None:
                return
            # What was written before the end is read after the end was seen.
            if select.select([pidfd], [], [], _LOOK_EVERY)[0]:
                pidfd = None
