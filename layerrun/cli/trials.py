"""Starts of apps whose base has just moved on, or is to: what is staged is switched to, and how it goes is counted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from layerrun.cli import exits
from layerrun.cli.common import front_door, open_store
from layerrun.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Callable

    from layerrun.model import App
    from layerrun.runtime.handoff import Door, Ended
    from layerrun.store.store import Store

__all__ = ["after", "is_on", "run", "switch_staged"]

# What is left to do after the end of a start that is counted.
_TRIAL = "trial"


def is_on(store: Store, app: App) -> bool:
    """Say whether an app's starts are counted."""
    trial = store.catalog.trial(app.parent or app.id)
    return trial is not None and not trial.fallen


def run(store: Store, app: App, start: Callable[[Door | None], int], *, what: str) -> int:
    """Start an app whose starts are counted; ``what``: ``own`` (its own command), ``given`` or ``shell``."""
    from layerrun.errors import LaunchError
    from layerrun.updates import fallback

    try:
        status = start(front_door(after=_TRIAL))
    except LaunchError as error:
        _say(fallback.count_failure(store, app, exits.status_of(error, run_like=True), own=what != "given"))
        raise
    _count(store, app, status, what=what)
    return status


def after(end: Ended, *, what: str) -> int:
    """Count a start that the front door has carried out, and return how its command ended, whatever comes of that."""
    from layerrun.errors import LayerrunError

    os.close(end.lock_fd)
    try:
        with open_store() as store:
            app = store.catalog.app_by_id(end.app_id)
            if app is not None:
                _count(store, app, end.status, what=what)
    except LayerrunError as error:
        exits.report(error)
    return end.status


def _count(store: Store, app: App, status: int, *, what: str) -> None:
    from layerrun.updates import fallback

    if what == "shell":
        _say(fallback.count_shell(store, app))
    else:
        _say(fallback.count(store, app, status, own=what == "own"))


def _say(text: str) -> None:
    if text:
        say(text)


def switch_staged(store: Store, name: str) -> None:
    """Switch the base of an app to the version that is staged for it, if there is one; what hinders that is said."""
    from layerrun.errors import LayerrunError

    app = store.catalog.app(name)
    slot = None if app is None else store.catalog.slot(app.config.base)
    if slot is None or slot.staged is None:
        return
    from layerrun.cli.updating import say_switched
    from layerrun.updates.update import apply_staged

    try:
        switched = apply_staged(store, slot.name)
    except LayerrunError as error:
        say(f"{slot.name} stays as it is for now: {error}")
    else:
        if switched is not None:
            say_switched(switched)
