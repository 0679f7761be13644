"""Freezing: an app's data unit becomes a layer, and an empty one takes its place, in one step.

What is about to happen is written down in the app's own folder (``change``), the empty unit lies beside it
(``next``). From then on whoever locks the app, or cleans up the store, can finish it: see docs/store.md.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.model import App, IdMode, Layer, Snapshot
from layerrun.store import reserve
from layerrun.store.fs import DIR_FLAGS, explain, fsync_dir, open_dir, present, read_text, write_file
from layerrun.store.making import now
from layerrun.store.plans import forget_plan
from layerrun.store.staging import new_id
from layerrun.store.trash import to_trash

if TYPE_CHECKING:
    from layerrun.store.staging import Ticket
    from layerrun.store.store import Store

__all__ = [
    "CHANGE",
    "GATHERED",
    "NEXT",
    "Restack",
    "drop_unused",
    "finish",
    "finish_all",
    "is_gathered",
    "restack",
]

CHANGE = "change"
NEXT = "next"
# In a data unit that is to be kept without its layers: what those hold, and in its file ``of`` which they were.
GATHERED = "frozen"


@attrs.frozen
class Restack:
    """What becomes of an app's stack.

    Attributes:
        snapshot: whether a snapshot of what is there is made, by ``tag``, ``automatic`` or not.
        back: the number of the snapshot that the app is to be like afterwards; ``None``: it stays as it is.
        factory: all that lies above the base becomes the app's factory state.
        melted: the new data unit holds all that the app's layers did; it has none any more.
    """

    snapshot: bool = False
    tag: str | None = None
    automatic: bool = False
    back: int | None = None
    factory: bool = False
    melted: bool = False


def restack(
    store: Store, app: App, wanted: Restack, ticket: Ticket | None, *, freeze: bool
) -> Snapshot | None:
    """Do it to an app that the caller has locked, whose plan is forgotten; return the snapshot made.

    ``ticket`` holds an empty data unit ``next`` that is to take the old one's place, which becomes a layer with
    ``freeze``, else goes to the trash; ``None``: the data unit stays as it is.
    """
    note: dict[str, Any] = attrs.asdict(wanted) | {
        "generation": app.generation,
        "layer": new_id() if freeze else None,
        "created": now(),
    }
    if ticket is None:
        return _record(store, app.id, note)
    fd = store.open_app_dir(app)
    try:
        with explain("freeze the data of", app.name):
            note["inode"] = os.stat(NEXT, dir_fd=ticket.fd).st_ino
            os.rename(NEXT, NEXT, src_dir_fd=ticket.fd, dst_dir_fd=fd)
            write_file(ticket.fd, CHANGE, json.dumps(note))
            os.rename(CHANGE, CHANGE, src_dir_fd=ticket.fd, dst_dir_fd=fd)
            os.fsync(fd)
            return _carry_out(store, app.id, fd, note)
    finally:
        os.close(fd)


def _inode(fd: int, name: str) -> int | None:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=fd, follow_symlinks=False).st_ino
    return None


def _carry_out(store: Store, app_id: str, fd: int, note: dict[str, Any]) -> Snapshot | None:
    """Do what is left of it, on a full disk as well: an app half of which is done could not be started there."""
    return reserve.using(store, lambda: _steps(store, app_id, fd, note))


def _steps(store: Store, app_id: str, fd: int, note: dict[str, Any]) -> Snapshot | None:
    """Do it; each step is passed over that is done already."""
    from layerrun.native.syscalls import RENAME_EXCHANGE, renameat2

    if _inode(fd, "data") != note["inode"]:
        renameat2(fd, NEXT, fd, "data", RENAME_EXCHANGE)
    if present(fd, NEXT):
        _put_away(store, app_id, fd, note["layer"])
    made = _record(store, app_id, note)
    os.unlink(CHANGE, dir_fd=fd)
    return made


def _put_away(store: Store, app_id: str, fd: int, layer: str | None) -> None:
    """Make the old data unit a layer, or throw it away."""
    if layer is None:
        app = store.catalog.app_by_id(app_id)
        to_trash(store, fd, NEXT, store.worst_ids if app is None else app.ids)
        return
    old = os.open(NEXT, DIR_FLAGS, dir_fd=fd)
    try:
        if present(old, "upper"):
            os.rename("upper", "tree", src_dir_fd=old, dst_dir_fd=old)
        to_trash(store, old, "work", None if not store.rootless else store.worst_ids)
        os.fsync(old)
    finally:
        os.close(old)
    os.rename(NEXT, f"layers/{layer}", src_dir_fd=fd, dst_dir_fd=store.fd)
    fsync_dir(store.fd, "layers")
    os.fsync(fd)


def _record(store: Store, app_id: str, note: dict[str, Any]) -> Snapshot | None:
    """Tell the catalog, unless it knows: then the app is of a later generation."""
    catalog, made = store.catalog, None
    with catalog.transaction():
        app = catalog.app_by_id(app_id)
        if app is None or app.generation != note["generation"]:
            return None
        frozen, layers = app.frozen, None
        if note["layer"] is not None:
            catalog.add_layer(Layer(note["layer"], app.ids, note["created"]))
            frozen += (note["layer"],)
        if note["snapshot"]:
            made = Snapshot(
                app_id=app_id,
                number=catalog.next_number(app_id),
                tag=note["tag"],
                layers=app.config.layers,
                frozen=frozen,
                created=note["created"],
                automatic=note["automatic"],
            )
            catalog.add_snapshot(made)
        target = None if note["back"] is None else catalog.snapshot(app_id, note["back"])
        if target is not None:
            frozen = target.frozen
            layers = target.layers if target.layers != app.config.layers else None
        elif note["factory"]:
            frozen, layers = (), app.config.layers + frozen
        elif note["melted"]:
            frozen, layers = (), () if app.config.layers else None
        catalog.set_stack(app_id, frozen, layers)
    return made


def is_gathered(store: Store, app: App) -> bool:
    """Say whether all that an app's frozen layers hold is in its data unit too."""
    if not app.frozen:
        return True
    with suppress(FileNotFoundError):
        fd = open_dir(store.fd, f"apps/{app.id}/data/{GATHERED}")
        try:
            return read_text(fd, "of") == " ".join(app.frozen)
        finally:
            os.close(fd)
    return False


def finish(store: Store, app: App, fd: int) -> None:
    """Finish what was cut short in an app whose lock the caller holds; ``fd`` is its folder."""
    if not present(fd, CHANGE):
        return
    with store.ticket(app.ids):  # against whoever cleans up the store
        _finish(store, app.id, fd)


def finish_all(store: Store) -> None:
    """The same for all apps; for whoever has the store for itself."""
    top = open_dir(store.fd, "apps")
    try:
        for name in os.listdir(top):
            if not present(top, f"{name}/{CHANGE}") and not present(top, f"{name}/{NEXT}"):
                continue
            fd = open_dir(top, name)
            try:
                _finish(store, name, fd)
            finally:
                os.close(fd)
    finally:
        os.close(top)


def _finish(store: Store, app_id: str, fd: int) -> None:
    try:
        note = json.loads(read_text(fd, CHANGE) or "null")
        app = store.catalog.app_by_id(app_id)
        if note is not None and app is not None:
            exchanged = _inode(fd, "data") == note["inode"]
            if exchanged and app.generation == note["generation"]:
                forget_plan(store, app.name)
                _carry_out(store, app_id, fd, note)
                return
    except (ValueError, KeyError, TypeError):
        pass  # a note that makes no sense
    # Nothing was changed yet, or all of it was done.
    to_trash(store, fd, NEXT, store.worst_ids)
    with suppress(FileNotFoundError):
        os.unlink(CHANGE, dir_fd=fd)


def drop_unused(store: Store) -> list[str]:
    """Remove the layers that nothing stands on any more; return their ids.

    What an app may still have mounted stays until it has ended.
    """
    _forget_ended(store)
    doomed = store.catalog.unused_layers()
    if not doomed:
        return []
    ids = IdMode.SUBIDS if any(layer.ids is IdMode.SUBIDS for layer in doomed) else None
    with store.ticket(ids) as ticket:
        ticket.linked = any(layer.digest for layer in doomed)  # those that were built or pulled
        with store.catalog.transaction():
            doomed = store.catalog.unused_layers()
            store.catalog.delete_layers(layer.id for layer in doomed)
        for layer in doomed:
            with suppress(FileNotFoundError):
                os.rename(f"layers/{layer.id}", layer.id, src_dir_fd=store.fd, dst_dir_fd=ticket.fd)
        fsync_dir(store.fd, "layers")
    return [layer.id for layer in doomed]


def _forget_ended(store: Store) -> None:
    """Forget what apps had mounted that have ended since."""
    from layerrun.errors import LayerrunError

    for app_id in store.catalog.users():
        app = store.catalog.app_by_id(app_id)
        if app is None:
            continue
        with (
            suppress(LayerrunError, OSError),
            store.app_lock(app, "look", patience=0.0),
            store.catalog.transaction(),
        ):
            store.catalog.delete_uses(app_id)
