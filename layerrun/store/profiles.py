"""An app and its profiles: what is done to all of them at once.

Each profile has a lock of its own, for it runs beside its app and beside the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from layerrun.errors import BusyError, NotFoundError, UsageError
from layerrun.model import App, check_app_name, check_name

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["EPHEMERAL", "check_complete", "check_profile", "locked", "renamed"]

# What the name of the profile of an ephemeral start begins with; no other profile's does.
EPHEMERAL = "tmp-"


def check_profile(profile: str) -> str:
    """Return ``profile`` if it may name one that somebody asks for, else raise `UsageError`."""
    if check_name(profile, "name of a profile").startswith(EPHEMERAL):
        raise UsageError(
            f"bad name of a profile {profile!r}: {EPHEMERAL}… are those of ephemeral starts",
            hint="choose another name, or start with --ephemeral",
        )
    return profile


@contextmanager
def locked(store: Store, app: App, what: str) -> Iterator[list[App]]:
    """Lock an app and all its profiles; yield them as they are now, the app first, each profile by name.

    Raises `BusyError` naming the first that is in use.
    """
    with ExitStack() as held:
        held.enter_context(store.app_lock(app, what))
        family = [store.app_again(app)]
        for profile in store.catalog.profiles(app.id):
            with suppress(NotFoundError):  # removed meanwhile
                held.enter_context(store.app_lock(profile, what))
                family.append(store.app_again(profile))
        yield family


def check_complete(store: Store, family: Sequence[App]) -> None:
    """Raise `BusyError` if any of ``family`` has a profile that is not in it; within a transaction."""
    known = {app.id for app in family}
    for app in family:
        for profile in store.catalog.profiles(app.id):
            if profile.id not in known:
                raise BusyError(f"{profile.name!r} was made meanwhile", hint="try again")


def renamed(app: App, new: str) -> str:
    """Return the profile's part of ``new``, to rename a profile to. Raises `UsageError` where that is no sense."""
    if app.ephemeral:
        raise UsageError(f"{app.name!r} is ephemeral: it goes at its end, and keeps its name until then")
    parent, profile = check_app_name(new)
    if profile is None or parent != app.parent_name:
        raise UsageError(
            f"{app.name!r} is a profile of {app.parent_name!r}, and stays one",
            hint=f"layerrun rename {app.name} {app.parent_name}@{profile or parent}",
        )
    return check_profile(profile)
