"""Making another version of a base the current one, for every app that stands on it, in one transaction."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress

import attrs

from layerrun.errors import BusyError, ConflictError, LayerrunError, NotFoundError, UsageError
from layerrun.model import HOST_BASE, App, Base, Move
from layerrun.store import spares
from layerrun.store.fs import fsync_dir, present
from layerrun.store.making import now
from layerrun.store.names import unknown
from layerrun.store.store import Store

__all__ = ["TRIES", "Rebuilt", "Switched", "back_to", "check_ids", "check_unchanged", "find", "switch"]

# So many starts in a row may fail after an update before an app goes back by itself, if nobody says otherwise.
TRIES = 3

Layers = tuple[str, ...]
# The layers that an app had when it was built anew, and those that were built.
Rebuilt = tuple[Layers, Layers]


@attrs.frozen
class Switched:
    """What became of a base: the version that was current and the one that is, and the names of apps that moved.

    ``running`` are those of them that still have the old one, until they end.
    """

    old: Base
    new: Base
    apps: tuple[str, ...] = ()
    running: tuple[str, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether anything has changed."""
        return self.old.id != self.new.id


def find(store: Store, name: str, version: int | str) -> Base:
    """Return a version of a base: its number, or NAME@NUMBER. Raises `NotFoundError`, `UsageError`."""
    text = str(version)
    if "@" in text:
        base, _, text = text.partition("@")
        if base != name:
            raise UsageError(f"{version!r} is no version of {name!r}", hint=f"layerrun base history {name}")
    if store.base(name).name == HOST_BASE:
        raise UsageError("the base 'host' is the machine's own /, and has no versions")
    found = store.catalog.base(f"{name}@{text}")
    if found is None:
        raise unknown("version", f"{name}@{text}", [one.full_name for one in store.catalog.versions(name)])
    return found


def check_ids(old: Base, new: Base) -> None:
    """Raise `ConflictError` if apps made over one version could not stand on the other: owners mean other ids."""
    modes = {old.ids, new.ids}
    if len(modes) > 1:
        known = ", ".join(sorted(mode.value for mode in modes if mode))
        raise ConflictError(
            f"{old.full_name} and {new.full_name} keep owners in two ways ({known}), and an app stands on one of them",
            hint="import it from the same kind of source, or under another name",
        )


def switch(
    store: Store,
    target: Base,
    *,
    what: str,
    layers: Mapping[str, Rebuilt] | None = None,
    note: str = "",
    trial: bool | None = None,
    tries: int = TRIES,
) -> Switched:
    """Make ``target`` the current version of its base; the caller holds the lock of updates.

    Apps go along, each at its next start; throwaways stay where they are. An app whose layers were built for the
    version before gets those that were built for this one: ``layers``, by the app's id, or what was noted of
    earlier. ``what`` and ``note`` go to the history. With ``trial`` (default: to a later version) an app of which
    ``tries`` starts in a row fail goes back by itself.

    Raises `BusyError` if an app was changed since its ``layers`` were built.
    """
    spares.drop_idle(store, target.name)
    catalog = store.catalog
    with catalog.transaction():
        slot = catalog.slot(target.name)
        old = None if slot is None else catalog.base_by_id(slot.current)
        if old is None or catalog.base_by_id(target.id) is None:
            raise NotFoundError(f"{target.full_name!r} was removed meanwhile")
        if old.id == target.id:
            catalog.set_slot(target.name, pending=None)
            return Switched(old, target)
        check_ids(old, target)
        stood = catalog.standing(target.name)
        names = catalog.switch(old, target)
        before = _exchange_layers(store, stood, target, layers or {})
        for name in names:
            with suppress(FileNotFoundError, IsADirectoryError):
                os.unlink(f"plans/{name}", dir_fd=store.fd)
        if names and present(store.fd, "plans"):
            fsync_dir(store.fd, "plans")
        if trial if trial is not None else target.version > old.version:
            catalog.add_trials(stood, now(), before, tries)
        catalog.add_move(target.name, now(), what, target.version, earlier=old.version, note=note)
    apps = tuple(name for name in names if not name.startswith("."))
    return Switched(old, target, apps, tuple(name for name in apps if _runs(store, name)))


def check_unchanged(store: Store, app: App, rebuilt: Rebuilt) -> None:
    """Raise `BusyError` if an app has other layers than were built anew, or those are gone; within a transaction.

    What was committed meanwhile would be lost.
    """
    before, built = rebuilt
    if app.config.layers != before or any(store.catalog.layer(one) is None for one in built):
        raise BusyError(f"{app.name!r} was changed during the update", hint="update again")


def _exchange_layers(
    store: Store, stood: Mapping[str, str], new: Base, built: Mapping[str, Rebuilt]
) -> dict[str, Layers]:
    """Give apps the layers that fit the new version, and note which fit what they stood on; return what they had.

    ``stood`` is the id of that version, by the app's.
    """
    catalog = store.catalog
    fit_old, fit_new = {id_: catalog.fits(id_) for id_ in set(stood.values())}, catalog.fits(new.id)
    fit_new.update({id_: layers for id_, (_, layers) in built.items()})
    before: dict[str, Layers] = {}
    for id_, layers in fit_new.items():
        app = catalog.app_by_id(id_)
        if app is None or app.base_id != new.id or id_ not in stood:
            continue
        if id_ in built:
            check_unchanged(store, app, built[id_])
            catalog.set_fit(id_, stood[id_], app.config.layers)
            catalog.set_fit(id_, new.id, layers)
        if app.config.layers == layers:
            continue
        # Layers that were committed since are not to be lost: those stay, and are rebuilt by hand.
        if id_ not in built and fit_old[stood[id_]].get(id_) != app.config.layers:
            continue
        before[id_] = app.config.layers
        catalog.set_fit(id_, stood[id_], app.config.layers)
        catalog.set_fit(id_, new.id, layers)
        catalog.add_uses(id_, app.config.layers)
        catalog.set_layers(id_, layers)
    return before


def _runs(store: Store, name: str) -> bool:
    """Say whether an app runs, at a glance: its lock is held."""
    app = store.catalog.app(name)
    if app is None:
        return False
    try:
        store.app_lock(app, "look", patience=0.0).release()
    except BusyError:
        return True
    except LayerrunError:
        return False
    return False


def back_to(store: Store, name: str) -> Base:
    """Return the version that was current before the last change of that, to which a rollback goes.

    Raises `NotFoundError` where there was none, or it is gone.
    """
    slot = store.catalog.slot(name)
    if slot is None:
        store.base(name)  # says which there are
        raise UsageError("the base 'host' is the machine's own /, and has no versions")
    moves: list[Move] = [move for move in store.catalog.moves(name) if move.earlier is not None]
    versions = {base.version: base for base in store.catalog.versions(name)}
    current = next((base for base in versions.values() if base.id == slot.current), None)
    for move in reversed(moves):
        if move.earlier in versions and versions[move.earlier] != current:
            return versions[move.earlier]
    raise NotFoundError(
        f"there is no earlier version of {name!r} to go back to", hint=f"layerrun base history {name}"
    )
