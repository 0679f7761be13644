"""Apps on trial: since their base was updated, until a start has gone well; after too many that have not they go back.

A start has not gone well if the app could not be started (125); if its own command is not there or cannot be executed
any more (126, 127); or if the command failed and the app's health commands fail too.
"""

from __future__ import annotations

import os
from contextlib import suppress

from layerrun.errors import LayerrunError
from layerrun.model import App, Base, Trial
from layerrun.store.fs import fsync_dir, present
from layerrun.store.making import now
from layerrun.store.store import Store
from layerrun.updates import health
from layerrun.updates.health import Check

__all__ = ["count", "count_failure", "count_shell", "trial_of"]


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
    if _failed(store, app, status, own=own):
        return _fail(store, app, trial)
    with store.catalog.transaction():
        store.catalog.end_trial(trial.app_id)
    return ""


def count_shell(store: Store, app: App) -> str:
    """Count a login shell that has ended, with whatever status: it could be started.

    Of an app with a command of its own, or with health commands, that says nothing: somebody may be looking at why it
    fails.
    """
    config = store.app_again(app).config
    return "" if config.command or config.health else count(store, app, 0, own=False)


def count_failure(store: Store, app: App, status: int, *, own: bool) -> str:
    """Count a start that never began; return what is to be said of it. ``own``: the app's own command, or a shell.

    A command of somebody's that is not there (126, 127) says nothing of an app that has one of its own.
    """
    trial = trial_of(store, app)
    return _fail(store, app, trial) if trial is not None and _is_the_apps(app, status, own=own) else ""


def _is_the_apps(app: App, status: int, *, own: bool) -> bool:
    """Say whether a status means that the app itself cannot be started any more."""
    return status == 125 or (status in (126, 127) and (own or not app.config.command))


def _fail(store: Store, app: App, trial: Trial) -> str:
    back = store.catalog.base_by_id(trial.base_id)
    owner = store.catalog.app_by_id(trial.app_id)
    if back is None or owner is None:
        return ""
    tried = store.base(owner.config.base)
    last = trial.failures + 1 >= trial.tries
    layers, note = _layers(store, owner, trial, tried, back) if last else (owner.config.layers, "")
    with store.catalog.transaction():
        found, again = store.catalog.trial(trial.app_id), store.catalog.app_by_id(trial.app_id)
        if found is None or found.fallen or again is None:
            return ""
        failures = found.failures + 1
        store.catalog.set_failures(trial.app_id, failures)
        # Another start was counted meanwhile, or the app was built or committed: the next failure takes it back.
        if failures < found.tries or not last or again.config.layers != owner.config.layers:
            return (
                f"{app.name} did not start well on {tried.full_name}, {failures} of {found.tries} times;"
                f" then it goes back to {back.full_name}"
            )
        if layers != again.config.layers:
            store.catalog.set_fit(again.id, tried.id, again.config.layers)
            store.catalog.set_fit(again.id, back.id, layers)
            store.catalog.add_uses(again.id, again.config.layers)
        for name in store.catalog.fall_back(found, back.full_name, layers):
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(f"plans/{name}", dir_fd=store.fd)
        if present(store.fd, "plans"):
            fsync_dir(store.fd, "plans")
        store.catalog.add_move(tried.name, now(), "fallback", back.version, note=owner.name)
    times = "once" if failures == 1 else f"{failures} times"
    return f"{app.name} did not start well on {tried.full_name} {times}: it is back on {back.full_name}{note}"


def _layers(store: Store, app: App, trial: Trial, tried: Base, back: Base) -> tuple[tuple[str, ...], str]:
    """Return the layers that an app goes back to, and what is to be said of them.

    Those of before, if it has what the update gave it. What was built meanwhile is built over the version of before; if
    that cannot be done, and of what was committed, it keeps what it has: nothing that somebody has made is lost.
    """
    given = store.catalog.fits(tried.id).get(app.id, trial.layers)
    if app.config.layers == given:
        return trial.layers, ""
    from layerrun.building.result import rebuild

    try:
        built = rebuild(store, app, back)
    except LayerrunError as error:
        return app.config.layers, f"; it keeps its layers, which cannot be built over that: {error}"
    if built is None:
        return app.config.layers, "; it keeps the layers that it was given since"
    return built, "; what was built since is built over that"


def _failed(store: Store, app: App, status: int, *, own: bool) -> bool:
    if status == 0:
        return False
    if _is_the_apps(app, status, own=own):
        return True
    now_ = store.app_again(app)
    base = store.base(now_.config.base)
    checks = [Check(command, now_) for command in now_.config.health]
    return any(not one.is_well for one in health.run_checks(store, base, checks))
