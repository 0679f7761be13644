"""Starts of apps on trial (docs/updates.md), counted as the command line counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerrun.errors import LaunchError, LayerrunError

if TYPE_CHECKING:
    from collections.abc import Callable

    from layerrun.api.command import Command
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["count", "count_failure", "is_counted"]


def is_counted(store: Store, app: App) -> bool:
    """Say whether somebody wants to know how a start of an app ends."""
    trial = store.catalog.trial(app.parent or app.id)
    return trial is not None and not trial.fallen


def count(command: Command, status: int) -> None:
    """Count a command that has ended, with subprocess's status. The logger ``layerrun`` hears what comes of it."""
    from layerrun.updates import fallback

    shell_like = status if status >= 0 else 128 - status
    _counted(command, lambda store, app: fallback.count(store, app, shell_like, own=command.argv is None))


def count_failure(command: Command, error: LayerrunError) -> None:
    """Count a start that never began, for whatever reason that lies in the app."""
    if isinstance(error, LaunchError):
        from layerrun.updates import fallback

        own = command.argv is None
        _counted(command, lambda store, app: fallback.count_failure(store, app, error.exit_status, own=own))


def _counted(command: Command, how: Callable[[Store, App], str]) -> None:
    import logging

    from layerrun.store.store import Store

    name = command.app if command.profile is None else f"{command.app}@{command.profile}"
    log = logging.getLogger("layerrun")
    try:
        with Store.open(command.store, create=False) as store:
            said = how(store, store.app(name))
    except LayerrunError as error:  # how the command ended is what the caller asked for
        said = f"the start of {name} could not be counted: {error}"
    if said:
        log.warning(said)
