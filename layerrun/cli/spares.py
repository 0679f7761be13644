"""``try`` in a spare: the part that the front door can do alone, when nothing changes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from layerrun.cli.common import settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from layerrun.model import App
    from layerrun.runtime.handoff import Ended
    from layerrun.store.locks import AppLock
    from layerrun.store.store import Store

__all__ = ["go_through_door", "resume", "run"]


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


def go_through_door(lock: AppLock, words: Sequence[str]) -> None:
    """Let the front door run the command, for a spare is ready now: so no Python stays behind it.

    Returns if there is none, or if it must not be used. ``words``: what is to stand behind `try`.
    """
    from layerrun.runtime import handoff

    door = handoff.find()
    # A store that was named on the command line is not in the environment, nor should the command find it there.
    if door is None or settings().store is not None or settings().status_fd is not None:
        return
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    lock.release()
    os.execve(door, [door, "try", *words], handoff.environment_passed())  # noqa: S606  (no shell)


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
        return launch.run_spare(store, app, lock, argv, cwd=cwd, env=env, status_fd=settings().status_fd)
    except (CommandNotFoundError, CommandNotExecutableError):
        raise
    except LaunchError:
        if cwd is not None:  # most likely it is not there inside
            raise
        spares.drop(store, app)
        return None
