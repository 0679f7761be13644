"""Apps on trial: since their base was updated, until a start has gone well; after too many that have not they go back.

A start has not gone well if the app could not be started (125); if its own command is not there or cannot be executed
any more (126, 127); or if the command failed and the app's health commands fail too.
"""

from __future__ import annotations

import os
from contextlib import suppress

from layerrun.model import App, Base, Trial
from layerrun.store.fs import fsync_dir, present
from layerrun.store.making import now
from layerrun.store.store import Store
from layerrun.updates import health
from layerrun.updates.health import Check

__all__ = ["LIMIT", "count", "trial_of"]

# So many starts in a row may fail before an app goes back by itself.
LIMIT = 3


def trial_of(store: Store, app: App) -> Trial | None:
    """Return the trial that an app (of a profile: its app) is on, if it is on one."""
    trial = store.catalog.trial(app.parent or app.id)
    return None if trial is None or trial.fallen else trial


def count(store: Store, app: App, status: int, *, own: bool) -> str:
    """Count a start of an app on trial that has ended with a status; return what is to be said of it, if anything.

    ``own``: it was the app's own command. With the last failure that is borne the app goes back to the version, and to
    the layers, that it had before the update.
    """
    trial = trial_of(store, app)
    if trial is None:
        return ""
    if not _failed(store, app, status, own=own):
        with store.catalog.transaction():
            store.catalog.end_trial(trial.app_id)
        return ""
    back = store.catalog.base_by_id(trial.base_id)
    tried = store.base(app.config.base)
    with store.catalog.transaction():
        found = store.catalog.trial(trial.app_id)
        if found is None or found.fallen or back is None:
            return ""
        failures = found.failures + 1
        store.catalog.set_failures(trial.app_id, failures)
        if failures < LIMIT:
            return (
                f"{app.name} did not start well on {tried.full_name}, {failures} of {LIMIT} times;"
                f" then it goes back to {back.full_name}"
            )
        for name in store.catalog.fall_back(found, back.full_name, _layers(store, found, tried)):
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(f"plans/{name}", dir_fd=store.fd)
        if present(store.fd, "plans"):
            fsync_dir(store.fd, "plans")
        store.catalog.add_move(tried.name, now(), "fallback", back.version, note=app.name)
    return f"{app.name} did not start well on {tried.full_name} {LIMIT} times: it is back on {back.full_name}"


def _layers(store: Store, trial: Trial, tried: Base) -> tuple[str, ...]:
    """Return the layers that an app goes back to: those of before, unless it has got others than the update gave it."""
    app = store.catalog.app_by_id(trial.app_id)
    assert app is not None  # its row goes with the app
    built = store.catalog.fits(tried.id).get(app.id)
    return trial.layers if built == app.config.layers else app.config.layers


def _failed(store: Store, app: App, status: int, *, own: bool) -> bool:
    if status == 0:
        return False
    if status == 125 or (status in (126, 127) and (own or not app.config.command)):
        return True
    now_ = store.app_again(app)
    base = store.base(now_.config.base)
    checks = [Check(command, now_) for command in now_.config.health]
    return any(not one.is_well for one in health.run_checks(store, base, checks))
