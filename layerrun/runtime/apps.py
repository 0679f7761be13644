"""Making an app: what the store does, with the choice of ids."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import ExistsError, UsageError
from layerrun.model import App, AppConfig, AppKind, IdMode, Share
from layerrun.runtime import identity, volumes
from layerrun.runtime.imaged import from_image
from layerrun.store import making

if TYPE_CHECKING:
    from layerrun.store.making import Beginning
    from layerrun.store.store import Store

__all__ = ["checked", "configure", "create", "profile"]


def _canonical(share: Share) -> Share:
    """Return a share whose source is free of links: a link met at a start was put there since, and is refused."""
    if not os.path.exists(share.source):
        raise UsageError(f"the share {share.source!r} does not exist", hint="make it first")
    return attrs.evolve(share, source=os.path.realpath(share.source))


def checked(config: AppConfig, app: App) -> AppConfig:
    """Return a new configuration of an app as it may be recorded: shares that it has not yet are looked at."""
    shares = (share if share in app.config.shares else _canonical(share) for share in config.shares)
    return attrs.evolve(config, shares=tuple(shares))


def create(
    store: Store,
    name: str | None,
    config: AppConfig,
    *,
    ids: IdMode | None = None,
    kind: AppKind = AppKind.APP,
    begin: Beginning | None = None,
) -> App:
    """Make an app or a throwaway; ``ids=None`` chooses the safest that the caller and the base allow.

    ``begin``: what its data begins with, if not with nothing.
    Raises `ExistsError`, `NotFoundError` (no such base), `UsageError` (a share's source is missing, ``ids``
    is not to be had by this user).
    """
    base = store.base(config.base)
    # As root a map of one's own ids would be one of the machine's root.
    allowed = (IdMode.SUBIDS, IdMode.SINGLE, IdMode.SELF) if store.rootless else (IdMode.RANGE, IdMode.NONE)
    if ids is not None and ids not in allowed:
        what = "no user namespace" if ids is IdMode.NONE else f"ids {ids.value!r}"
        raise UsageError(
            f"{what}: that is for {'root' if store.rootless else 'plain users'} only",
            hint=f"leave it out, or choose one of {', '.join(mode.value for mode in allowed)}",
        )
    config = attrs.evolve(config, shares=tuple(_canonical(share) for share in config.shares))
    config = from_image(config, base)
    return making.make_app(store, name, config, kind, ids or identity.choose(base), begin=begin)


def configure(store: Store, app: App, config: AppConfig) -> App:
    """Give ``app`` another configuration; neither it nor a profile of it may run. Returns it as it is now.

    Raises `BusyError`, `UsageError` (a new share's source is missing; the base or the layers would change).
    """
    if (config.base, config.layers) != (app.config.base, app.config.layers):
        what = "base" if config.base != app.config.base else "layers"
        raise UsageError(
            f"the {what} of {app.name!r} cannot be changed: what is in its layer depends on it",
            hint="make another app, with `layerrun create`",
        )
    config = checked(config, app)
    resized = config.policy.max_size != app.config.policy.max_size
    if resized:
        volumes.check_size(store, app, config.policy.max_size)
    now = store.update_app(app.name, config)
    for one in (now, *store.profiles(now)) if resized else ():
        volumes.resize(store, one)
    return store.app_again(now)


def profile(store: Store, name: str, profile: str) -> tuple[App, bool]:
    """Return a profile of the app called ``name``, and whether it was made just now.

    Raises `NotFoundError` (no such app), `UsageError`.
    """
    parent = store.app(name, AppKind.APP)
    wanted = f"{name}@{profile}"
    found = next((app for app in store.profiles(parent) if app.name == wanted), None)
    if found is not None:
        return found, False
    try:
        return store.create_profile(parent, profile), True
    except ExistsError:  # another start of the same new profile was quicker
        return store.app(wanted), False
