"""``--no-userns``: as root without a user namespace, which is an undo and not a jail."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from layerrun.cli.options import F
from layerrun.cli.output import say

if TYPE_CHECKING:
    from layerrun.model import App, IdMode

__all__ = ["check_mode", "id_mode", "no_userns_option", "warn_of"]


def no_userns_option(function: F) -> F:
    """Add ``--no-userns``."""
    return click.option(
        "--no-userns",
        is_flag=True,
        help="As root: run as the machine's own root. An undo, not a jail.",
    )(function)


def id_mode(no_userns: bool, ids: IdMode | None = None) -> IdMode | None:
    """Return the mode that the option asks for, or ``ids``.

    Raises:
        UsageError: it contradicts ``ids``.
    """
    from layerrun.errors import UsageError
    from layerrun.model import IdMode

    if not no_userns:
        return ids
    if ids not in (None, IdMode.NONE):
        raise UsageError(f"--no-userns and --ids {ids} contradict each other")
    return IdMode.NONE


def check_mode(app: App, ids: IdMode | None) -> None:
    """Raise `UsageError` unless ``app``, which is there already, is of the mode that was asked for (if any was)."""
    from layerrun.errors import UsageError

    if ids is not None and app.ids is not ids:
        raise UsageError(
            f"{app.name!r} has a user namespace of its own, and its files depend on it",
            hint="--no-userns is for a new app: choose another name",
        )


def warn_of(app: App) -> None:
    """Say before each start, and at the creation, that the app is not held by anything but its layer."""
    from layerrun.model import IdMode

    if app.ids is IdMode.NONE:
        say(f"{app.name} runs as the machine's own root: that is an undo, not a jail")
