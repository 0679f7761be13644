"""Versions of bases that are there beside the current one: which of them may go, and removing them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial

from layerrun.errors import BaseInUseError, BusyError, LayerrunError, UsageError
from layerrun.model import HOST_BASE, AppKind, Base, IdMode
from layerrun.store import reserve, spares
from layerrun.store.fs import explain, fsync_dir
from layerrun.store.garbage import Garbage
from layerrun.store.store import Store

__all__ = ["garbage", "prune", "remove", "spare_versions", "take_back"]


def remove(store: Store, name: str) -> list[Base]:
    """Remove the base NAME with all its versions, or NAME@VERSION alone; return what went.

    Raises `BaseInUseError` while an app or a throwaway stands on any of them, has it mounted, or where VERSION is the
    current one and others are there; `UsageError` if VERSION is pinned.
    """
    base = store.base(name)
    if base.name == HOST_BASE:
        raise UsageError("the base 'host' is the machine's own / and cannot be removed")
    versions = store.catalog.versions(base.name)
    slot = store.catalog.slot(base.name)
    if "@" in name and base.pinned:
        raise UsageError(f"{base.full_name} is pinned", hint=f"layerrun base unpin {base.full_name}")
    if "@" in name and len(versions) > 1:
        if slot is not None and base.id == slot.current:
            raise BaseInUseError(
                f"{base.full_name} is the current version of {base.name!r}",
                hint=f"layerrun base switch {base.name} VERSION",
            )
        versions = [base]
    # The current one goes last: the base goes with it.
    doomed = sorted(versions, key=lambda one: slot is not None and one.id == slot.current)
    reserve.using(store, lambda: _remove(store, doomed))
    return doomed


def _remove(store: Store, versions: Sequence[Base]) -> None:
    for base in versions:
        for name in (base.name, base.full_name):
            spares.drop_idle(store, name)
        _check_unmounted(store, base)
    ids = IdMode.SUBIDS if any(base.ids is IdMode.SUBIDS for base in versions) else versions[0].ids
    with store.ticket(ids) as ticket:
        ticket.linked = True
        with store.catalog.transaction():
            for base in versions:
                store.catalog.delete_base(base)
        with explain("remove the files of base", versions[0].name):
            for base in versions:
                with suppress(FileNotFoundError):
                    os.rename(f"bases/{base.id}", base.id, src_dir_fd=store.fd, dst_dir_fd=ticket.fd)
            fsync_dir(store.fd, "bases")


def _check_unmounted(store: Store, base: Base) -> None:
    """Raise `BaseInUseError` if an app that has been moved off a version still runs on it."""
    for app_id in store.catalog.users_of_base(base.id):
        app = store.catalog.app_by_id(app_id)
        if app is not None:
            try:
                store.app_lock(app, "look", patience=0.0).release()
            except BusyError:
                raise BaseInUseError(
                    f"{base.full_name} is in use by {app.name}, which was started on it",
                    hint=f"layerrun stop {app.name}",
                ) from None
        with store.catalog.transaction():
            store.catalog.forget_user(base.id, app_id)


def spare_versions(store: Store, name: str) -> list[Base]:
    """Return the versions of a base that nothing needs, the oldest first: nothing stands on them or may go back."""
    slot = store.catalog.slot(name)
    if slot is None:
        return []
    wanted = {slot.current, slot.staged, slot.pending}
    wanted |= {trial.base_id for trial in store.catalog.trials()}
    return [
        base
        for base in store.catalog.versions(name)
        if base.id not in wanted
        and not base.pinned
        and all(kind is AppKind.SPARE for _, kind in store.catalog.apps_on(base.id))
    ]


def prune(store: Store, name: str) -> list[Base]:
    """Remove the oldest versions that nothing needs, beyond those that the base keeps; return what went."""
    slot = store.catalog.slot(name)
    kept = 0 if slot is None else slot.keep
    found = spare_versions(store, name)
    return [base for base in found[: max(len(found) - kept, 0)] if _is_gone(store, base)]


def _is_gone(store: Store, base: Base) -> bool:
    try:
        _remove(store, [base])
    except LayerrunError:  # an app runs on it: it goes another time
        return False
    return True


def take_back(store: Store, base: Base, *, unseen: bool = False) -> None:
    """Remove a version that did not become the current one; if it is ``unseen``, its number is given again."""
    # Until it is gone it is noted as pending: if this is cut short, the next update takes it back.
    try:
        _remove(store, [base])
    except BaseInUseError:  # somebody has made something over it meanwhile
        with store.catalog.transaction():
            store.catalog.set_slot(base.name, pending=None)
        return
    if unseen:
        with store.catalog.transaction():
            store.catalog.free_version(base)


def garbage(store: Store, older_than: float) -> list[Garbage]:
    """Return versions imported more than ``older_than`` seconds ago that nothing needs."""
    before = time.time() - older_than
    return [
        Garbage(
            f"{base.full_name}, a version that is not current",
            base.size,
            partial(_gone, store, base),
        )
        for slot in store.catalog.slots()
        for base in spare_versions(store, slot.name)
        if datetime.fromisoformat(base.created).timestamp() <= before
    ]


def _gone(store: Store, base: Base) -> None:
    _is_gone(store, base)
