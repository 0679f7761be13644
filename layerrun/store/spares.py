"""Spares: throwaways made ready in advance, so that `try` can begin at once.

One is used, and used again, for as long as the commands change nothing. As soon as one is changed it is
somebody's data: it becomes a throwaway with a name, and never a spare again. See docs/store.md.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from layerrun.errors import LayerrunError
from layerrun.model import App
from layerrun.store import making
from layerrun.store.locks import AppLock, lock_file
from layerrun.store.plans import forget_plan, stored_uppers, upper_state
from layerrun.store.removing import make_lockable, remove_locked

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["adopt", "drop", "drop_idle", "is_touched", "names", "take"]

# For each base; as many tries at once need no Python. As in csrc/spare.c.
SPARES = 4


def names(base: str) -> list[str]:
    """Return what the spares over a base are called: no app's name begins with a dot."""
    return [f".try@{base}.{number}" for number in range(SPARES)]


def is_touched(store: Store, app: App) -> bool:
    """Say whether a spare may hold what somebody wrote: whether it is not what its stored plan says, or has none.

    Only under its lock is the answer more than a guess.
    """
    uppers = stored_uppers(store, app.name)
    # In a copy of a store the paths lead to the other one.
    own = store.app_dir(app) + "/"
    return not uppers or any(
        not path.startswith(own) or upper_state(path) != state for path, state in uppers.items()
    )


def take(store: Store, app: App) -> AppLock | None:
    """Lock a spare; ``None`` if another has it, or it is one no more. Waits for nobody.

    One whose files are gone can be locked as well, so that it can be dropped.
    """
    try:
        make_lockable(store, app)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(f"apps/{app.id}/lock", flags, 0o600, dir_fd=store.fd)
        try:
            # `Store.app_lock` would look for a while who it is.
            if not lock_file(fd, exclusive=True, wait=0.0):
                return None
        finally:
            os.close(fd)
        lock = store.app_lock(app, "try", patience=0.0)
    except (LayerrunError, OSError):
        return None
    with suppress(LayerrunError):
        if store.app_again(app).name == app.name:
            return lock
    lock.release()
    return None


def adopt(store: Store, app: App) -> App:
    """Make a spare a throwaway with a name that is made up, and return it. The caller holds its lock."""
    # Before anything else: from here on no start may take it for a spare, after a crash neither.
    forget_plan(store, app.name)
    with store.catalog.transaction():
        store.catalog.adopt_app(app.id, making.unused_name(store, making.THROWAWAY), making.now())
    return store.app_again(app)


def drop(store: Store, app: App) -> None:
    """Remove a spare that nobody has written into. The caller holds its lock."""
    remove_locked(store, [app])


def drop_idle(store: Store, base: str | None = None) -> None:
    """Remove the spares (over ``base``) in which nothing runs and nothing was written."""
    for app in store.catalog.spares():
        if base not in (None, app.config.base):
            continue
        lock = take(store, app)
        if lock is not None:
            with lock:
                if not is_touched(store, app):
                    drop(store, app)
