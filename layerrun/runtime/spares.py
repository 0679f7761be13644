"""Making spares, choosing one for a `try`, and saving what was written into one when nobody was left to say so."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from layerrun.errors import ExistsError, LayerrunError
from layerrun.model import App, AppConfig
from layerrun.native.launch import Failure, Start, run_plan
from layerrun.runtime import identity
from layerrun.runtime.stored import mounts_sum, stored_plan, upper_states
from layerrun.store import making, spares
from layerrun.store.fs import present
from layerrun.store.plans import is_stored, write_plan
from layerrun.store.store import Store
from layerrun.store.trash import in_foreground

if TYPE_CHECKING:
    from layerrun.store.locks import AppLock

__all__ = ["find", "recover", "replenish"]

# A /proc of the sandbox's own has nothing of this name: everything is mounted, and nothing runs.
_NOTHING = b"/proc/layerrun"
_COARSE = 5  # CLOCK_REALTIME_COARSE of <linux/time.h>, by which file systems tell the time
_SECOND = 1_000_000_000
_TICK = 1_000_000  # ns; finer than this no file system needs to be
_PATIENCE = 0.05  # seconds


def find(store: Store, base: str) -> tuple[App, AppLock] | None:
    """Return a spare over ``base`` with its lock, making one if need be; ``None``: all are in use, or none can be made.

    What others had written into one is kept, see `recover`. Raises `NotFoundError`: there is no such base.
    """
    outdated, free = [], []
    for name in spares.names(base):
        app = store.catalog.app(name)
        if app is None:
            free.append(name)
            continue
        lock = spares.take(store, app)
        if lock is None:
            continue
        touched = spares.is_touched(store, app)
        try:
            if _is_current(store, app) and not touched:
                return app, lock
            outdated.append(app)
        except LayerrunError:  # it cannot be started at all
            if not touched:
                spares.drop(store, app)
                free.append(name)
        lock.release()
    # One that is outdated here may be right elsewhere: in a mount namespace with other mounts, say.
    for app in outdated if not free else []:
        lock = spares.take(store, app)
        if lock is not None:
            with lock:
                if not spares.is_touched(store, app):
                    spares.drop(store, app)
                    free.append(app.name)
                    break
    return _make(store, base, free[0]) if free else None


def replenish(path: str, base: str) -> None:
    """Make a spare ready for the next `try` over ``base`` in the store at ``path``, if none is.

    A process of its own does it, which nobody waits for. The caller has no store open: no connection to a database may
    be carried across fork(2).
    """
    if in_foreground():
        _replenish(path, base)
        return
    with suppress(OSError):  # no process to be had: the next `try` makes one itself
        if os.fork():
            return
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDWR)
            for fd in range(3):
                os.dup2(null, fd)
            os.closerange(3, os.sysconf("SC_OPEN_MAX"))
            _replenish(path, base)
        finally:
            os._exit(0)


def _replenish(path: str, base: str) -> None:
    with suppress(LayerrunError, OSError), Store.open(path, create=False) as store:
        found = find(store, base)
        if found is not None:
            found[1].release()


def recover(store: Store) -> list[App]:
    """Make throwaways of the spares that hold something though nothing runs in them, and return them.

    A `try` that is cut short as a whole (by a power cut, or by kill -9) leaves such a one.
    """
    kept = []
    for app in store.catalog.spares():
        lock = spares.take(store, app) if spares.is_touched(store, app) else None
        if lock is None:
            continue
        with lock:
            if not spares.is_touched(store, app):
                continue
            if _is_empty(store, app):
                spares.drop(store, app)
            else:
                kept.append(spares.adopt(store, app))
    return kept


def _is_empty(store: Store, app: App) -> bool:
    """Say whether a spare changes nothing. What is there and cannot be looked at is not empty."""
    from layerrun.runtime import data

    try:
        return not present(store.fd, f"apps/{app.id}/data/upper") or not data.diff(store, app)
    except (LayerrunError, OSError):
        return False


def _is_current(store: Store, app: App) -> bool:
    """Say whether the stored plan of a spare is what would be stored now. Raises what `compile_plan` does."""
    from layerrun.runtime.compile import compile_plan

    mounts = mounts_sum()
    plan = compile_plan(store, app)
    states = upper_states(os.path.join(store.app_dir(app), "data"))
    return states is not None and is_stored(store, app.name, stored_plan(store, app, plan, mounts, states))


def _make(store: Store, base: str, name: str) -> tuple[App, AppLock] | None:
    """Make a spare; ``None`` if that does not work out here: whoever starts something otherwise is told why."""
    found = store.base(base)
    try:
        app, lock = making.make_spare(store, name, AppConfig(base=base), identity.choose(found))
    except ExistsError:
        return None
    try:
        if _make_ready(store, app, lock):
            return app, lock
        spares.drop(store, app)
    except BaseException:
        with suppress(LayerrunError, OSError):
            spares.drop(store, app)
        lock.release()
        raise
    lock.release()
    return None


def _make_ready(store: Store, app: App, lock: AppLock) -> bool:
    """Mount it once, for overlayfs leaves marks in a new upper; then store its plan, with what the upper is like."""
    from layerrun.runtime.compile import compile_plan

    mounts = mounts_sum()
    try:
        plan = compile_plan(store, app, make=True)
        with _quiet():
            run_plan(Start(plan=plan.to_bytes(), argv=[_NOTHING], environ={}, lock_fd=lock.fileno()))
        return False
    except LayerrunError:
        return False
    except Failure as failure:
        if not failure.step.startswith("execute"):
            return False
    states = upper_states(os.path.join(store.app_dir(app), "data"))
    if not states or not _settle(list(states)):
        return False
    stored = stored_plan(store, app, plan, mounts, states)
    write_plan(store, app, stored)
    return is_stored(store, app.name, stored)


@contextmanager
def _quiet() -> Iterator[None]:
    """Let nothing be said on stderr: the start that follows says the same."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _settle(folders: list[str]) -> bool:
    """Wait until a change of any of the folders would get another time than it has; say whether it would.

    File systems take the time from a clock that stands still for some milliseconds; some keep only seconds.
    """
    times = [os.lstat(folder).st_ctime_ns for folder in folders]
    if any(time_ns % _SECOND == 0 for time_ns in times):
        return False
    deadline = time.monotonic() + _PATIENCE
    while time.clock_gettime_ns(_COARSE) < max(times) + _TICK:
        if time.monotonic() > deadline:
            return False
        time.sleep(_TICK / _SECOND)
    return True
