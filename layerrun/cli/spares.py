"""``try`` in a spare: the part that the front door can do alone, when nothing changes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from layerrun.cli.common import front_door, settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from layerrun.model import App
    from layerrun.runtime.handoff import Ended
    from layerrun.store.locks import AppLock
    from layerrun.store.store import Store

__all__ = ["SPARE", "resume", "run"]

# What is left to do after the end of a command in a spare that has been changed. As in csrc/spare.c.
SPARE = "spare"


def resume(store: Store, end: Ended) -> tuple[App, AppLock]:
    """Return what a command ended in, and its lock, which the front door has held for us all the while."""
    from layerrun.errors import DamagedError
    from layerrun.store.locks import AppLock

    app = store.catalog.app_by_id(end.app_id)
    try:
        held = os.path.samestat(os.fstat(end.lock_fd), os.stat(f"apps/{end.app_id}/lock", dir_fd=store.fd))
    except OSError:
        held = False
    if app is None or not held:
        raise DamagedError("what the command has changed cannot be found", hint="look at `layerrun list`")
    return app, AppLock(end.lock_fd, app.name)


def run(
    store: Store,
    app: App,
    lock: AppLock,
    argv: Sequence[str],
    *,
    cwd: str | None,
    env: Mapping[str, str],
) -> int | None:
    """Run the command in a spare, and wait; ``None``: it did not start, for reasons that may lie in the spare.

    In the end the lock is still held.
    """
    from layerrun.errors import CommandNotExecutableError, CommandNotFoundError, LaunchError
    from layerrun.runtime import launch
    from layerrun.store import spares

    try:
        return launch.run_spare(
            store,
            app,
            lock,
            argv,
            cwd=cwd,
            env=env,
            door=front_door(after=SPARE),
            status_fd=settings().status_fd,
        )
    except (CommandNotFoundError, CommandNotExecutableError):
        raise
    except LaunchError:
        if cwd is not None:  # most likely it is not there inside
            raise
        spares.drop(store, app)
        return None
