"""Snapshots of an app, going back to them, and other apps that begin with what one has.

An upper that is frozen becomes a layer, and an empty one goes above it: nothing is copied, whatever it holds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import ExistsError, NotFoundError, UsageError
from layerrun.model import App, AppKind, Snapshot, check_app_name, check_name
from layerrun.runtime.squash import keep_shallow
from layerrun.runtime.units import dress, is_touched, layer_folder
from layerrun.runtime.volumes import is_image
from layerrun.store import making, profiles, reserve
from layerrun.store.freezing import Restack, drop_unused, restack
from layerrun.store.fs import explain, open_dir
from layerrun.store.making import Beginning
from layerrun.store.names import unknown
from layerrun.store.pair import make_data
from layerrun.store.plans import forget_plan

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = [
    "branch",
    "clone",
    "exchange",
    "factory",
    "find",
    "forget",
    "history",
    "is_current",
    "is_worth_keeping",
    "locked",
    "parse",
    "pin",
    "rollback",
    "shown",
    "snapshot",
]


def parse(reference: str) -> tuple[str, str | None]:
    """Return the app and the snapshot that ``NAME[:TAG]`` or ``NAME[:NUMBER]`` names; `UsageError` if it cannot."""
    name, colon, snapshot = reference.partition(":")
    check_app_name(name)
    if colon and not snapshot.isdecimal():
        check_tag(snapshot)
    return name, snapshot if colon else None


def check_tag(tag: str) -> str:
    """Return ``tag`` if a snapshot may be called that, else raise `UsageError`."""
    if check_name(tag, "tag").isdecimal():
        raise UsageError(
            f"bad tag {tag!r}: a number is what a snapshot has anyway", hint="put a letter into it"
        )
    return tag


def shown(snapshot: Snapshot) -> str:
    """Return what a snapshot is called: its tag, else its number."""
    return snapshot.tag or str(snapshot.number)


def find(store: Store, app: App, snapshot: str) -> Snapshot:
    """Return the snapshot of an app with this tag or number; `NotFoundError` hints at those there are."""
    if snapshot.isdecimal():
        found = store.catalog.snapshot(app.id, int(snapshot[:18]))
    else:
        found = store.catalog.tagged_snapshot(app.id, snapshot)
    if found is None:
        raise unknown(f"snapshot of {app.name!r} called", snapshot, [shown(s) for s in history(store, app)])
    return found


def history(store: Store, app: App) -> list[Snapshot]:
    """Return the snapshots of an app, the first made first."""
    return store.catalog.snapshots(app.id)


def is_current(app: App, snapshot: Snapshot) -> bool:
    """Say whether what the app has written since lies just above this snapshot."""
    return (snapshot.layers, snapshot.frozen) == (app.config.layers, app.frozen)


def check_freezable(store: Store, app: App) -> None:
    if app.ephemeral:
        raise UsageError(f"{app.name!r} is ephemeral: it goes at its end, with all that it holds")
    if is_image(store, app):
        raise UsageError(
            f"the data of {app.name!r} lies in an image, for it was made with --max-size, and cannot be frozen",
            hint="make the app without --max-size, to have snapshots of it",
        )


@contextmanager
def locked(store: Store, app: App, what: str) -> Iterator[App]:
    """Lock an app, and yield it as it is now."""
    with store.app_lock(app, what):
        app = store.app_again(app)
        check_freezable(store, app)
        yield app


def exchange(
    store: Store,
    app: App,
    wanted: Restack,
    like: str | None = None,
    *,
    fill: Callable[[int], None] | None = None,
) -> Snapshot | None:
    """Freeze what a locked app has written, if anything, and do the rest of ``wanted``; return the snapshot made.

    ``like`` is the layer that the new upper is to look like; ``None``: the old one. ``fill`` puts into the new
    data unit, an open folder, what is to lie over what is frozen.
    """
    touched = is_touched(store, app)
    if not touched and wanted.back is None and fill is None:
        return restack(store, app, wanted, None, freeze=False)
    forget_plan(store, app.name)
    with store.ticket(app.ids) as ticket:
        with explain("freeze the data of", app.name):
            _stage(store, app, ticket.fd, wanted, like)
            if fill is not None:
                _filled(ticket.fd, fill)
        return restack(store, app, wanted, ticket, freeze=touched)


def _stage(store: Store, app: App, ticket_fd: int, wanted: Restack, like: str | None) -> None:
    base = store.base(app.config.base)
    make_data(ticket_fd, "next", home=app.config.home, root=making.root_status(store, base))
    with ExitStack() as opened:
        data = open_dir(ticket_fd, "next")
        opened.callback(os.close, data)
        if wanted.back is None:
            old = store.open_data(app)
            opened.callback(os.close, old)
            dress(app, data, old)
        elif like is not None:
            dress(app, data, opened.enter_context(layer_folder(store, like)))


def _filled(ticket_fd: int, fill: Callable[[int], None]) -> None:
    from layerrun.native.syscalls import syncfs

    data = open_dir(ticket_fd, "next")
    try:
        fill(data)
        syncfs(data)
    finally:
        os.close(data)


def _make(store: Store, app: App, tag: str | None) -> Snapshot:
    made = exchange(store, app, Restack(snapshot=True, tag=tag))
    if made is None:
        raise NotFoundError(f"{app.name!r} was removed meanwhile")
    return made


def snapshot(store: Store, app: App, tag: str | None = None) -> Snapshot:
    """Make a snapshot of an app, which must not run: its upper is frozen, and an empty one goes above.

    Raises `BusyError`, `UsageError` (a bad tag; an app with ``--max-size``), `ExistsError` (the tag is taken).
    """
    if tag is not None:
        check_tag(tag)
    with locked(store, app, "snapshot") as now:
        if tag is not None and store.catalog.tagged_snapshot(now.id, tag) is not None:
            raise ExistsError(
                f"{now.name!r} has a snapshot {tag!r} already",
                hint=f"choose another tag, or `layerrun forget {now.name}:{tag}` first",
            )
        made = _make(store, now, tag)
    keep_shallow(store, store.app_again(app))
    return made


def rollback(store: Store, app: App, snapshot: str | None = None) -> tuple[Snapshot, Snapshot | None]:
    """Let an app be as it was at a snapshot (``None``: the last that was asked for).

    What it has now, if that is not a snapshot already, becomes one first. Returns the snapshot that it
    is like now, and the one that was made so, if any. Raises `BusyError`, `NotFoundError`.
    """
    with _for_rollback(store, app, snapshot) as (now, target):
        if is_current(now, target) and not is_touched(store, now):
            return target, None
        keep = is_worth_keeping(store, now)
        wanted = Restack(snapshot=keep, automatic=keep, back=target.number)
        made = exchange(store, now, wanted, target.stack[-1] if target.stack else None)
    if not keep:
        drop_unused(store)
    keep_shallow(store, store.app_again(app))
    return target, made


@contextmanager
def _for_rollback(store: Store, app: App, snapshot: str | None) -> Iterator[tuple[App, Snapshot]]:
    """Lock an app, and its profiles where their factory state changes too; yield it and the snapshot meant."""
    with ExitStack() as held:
        app = held.enter_context(locked(store, app, "roll back"))
        target = _last(store, app) if snapshot is None else find(store, app, snapshot)
        if target.layers == app.config.layers:
            yield app, target
            return
    # Another factory state: that of its profiles as well.
    if app.parent is not None:
        raise UsageError(
            f"{app.parent_name!r} has another factory state since that snapshot of {app.name!r}, which shares it",
            hint=f"layerrun branch {app.name}:{shown(target)} NEW",
        )
    with profiles.locked(store, app, "roll back") as family:
        for one in family:
            forget_plan(store, one.name)
        app = family[0]
        yield app, find(store, app, str(target.number))


def _last(store: Store, app: App) -> Snapshot:
    for found in reversed(history(store, app)):
        if not found.automatic:
            return found
    automatic = history(store, app)
    raise NotFoundError(
        f"{app.name!r} has no snapshot that somebody asked for",
        hint=f"layerrun rollback {app.name} {automatic[-1].number}  (which was made by itself)"
        if automatic
        else f"`layerrun snapshot {app.name}` makes one",
    )


def is_worth_keeping(store: Store, app: App) -> bool:
    """Say whether a locked app has anything that neither its factory state nor a snapshot has."""
    if is_touched(store, app):
        return True
    return bool(app.frozen) and not any(is_current(app, found) for found in history(store, app))


def pin(store: Store, app: App, snapshot: str, *, pinned: bool = True) -> Snapshot:
    """Pin a snapshot, so that neither ``gc`` nor `forget` takes it; or take that back. Returns it as it is now."""
    with store.catalog.transaction():
        found = find(store, app, snapshot)
        store.catalog.pin_snapshot(found, pinned)
        return attrs.evolve(found, pinned=pinned)


def forget(store: Store, app: App, snapshot: str) -> None:
    """Forget a snapshot; layers that nothing else stands on go with it. Raises `UsageError` if it is pinned."""
    with store.catalog.transaction():
        found = find(store, app, snapshot)
        if found.pinned:
            raise UsageError(
                f"the snapshot {shown(found)!r} of {app.name!r} is pinned",
                hint=f"layerrun unpin {app.name}:{shown(found)}",
            )
        store.catalog.delete_snapshot(found)
    drop_unused(store)


def branch(
    store: Store, app: App, name: str | None, snapshot: str | None = None, *, kind: AppKind | None = None
) -> App:
    """Make another app that begins with what ``app`` has now (which must then not run), or had at a snapshot.

    What it has now is frozen beneath both; no data is copied. It has the app's configuration, and is of its
    kind unless ``kind`` says another. A ``name`` with ``@`` makes a profile of the same app; ``None``, of a
    throwaway, a name made up. Raises `BusyError`, `ExistsError`, `NotFoundError`, `UsageError`.
    """
    if name is not None and store.catalog.app(name) is not None:
        raise ExistsError(f"the name {name!r} is taken", hint="choose another, or remove that one first")
    with ExitStack() as held:
        if snapshot is None:
            app = held.enter_context(locked(store, app, "branch"))
            if is_touched(store, app):
                exchange(store, app, Restack())
                app = store.app_again(app)
            layers, frozen = app.config.layers, app.frozen
        else:
            found = find(store, app, snapshot)
            layers, frozen = found.layers, found.frozen
        model = attrs.evolve(
            app, config=attrs.evolve(app.config, layers=layers), frozen=frozen, kind=kind or app.kind
        )
        made = reserve.using(store, lambda: _branched(store, app, name, model))
    keep_shallow(store, made)
    return made


def _branched(store: Store, app: App, name: str | None, model: App) -> App:
    """Make a branch of ``app`` called ``name`` that is otherwise like ``model``."""

    def dressed(dir_fd: int, path: str) -> None:
        with ExitStack() as opened:
            data = open_dir(dir_fd, path)
            opened.callback(os.close, data)
            for layer in model.stack[-1:]:
                dress(model, data, opened.enter_context(layer_folder(store, layer)))

    def recorded(made: str) -> None:
        store.catalog.copy_recipe(app.id, made)
        store.catalog.copy_pull(app.id, made)

    begin = Beginning(model.frozen, dressed, recorded)
    if name is not None and "@" in name:
        parent, profile = _parent_for(store, app, name, model.config.layers)
        return making.make_profile(store, parent, profile, begin=begin)
    return making.make_app(store, name, model.config, model.kind, model.ids, begin=begin)


def _parent_for(store: Store, app: App, name: str, layers: tuple[str, ...]) -> tuple[App, str]:
    """Return the app that a branch called ``name`` is to be a profile of, and the profile's own name."""
    top, profile = check_app_name(name)
    assert profile is not None
    parent = app if app.parent is None else store.catalog.app_by_id(app.parent)
    if parent is None or parent.name != top:
        raise UsageError(
            f"{name!r} would be a profile of {top!r}, and {app.name!r} is none of its",
            hint="give a name without @, for an app of its own",
        )
    if parent.config.layers != layers:
        raise UsageError(
            f"{top!r} has another factory state since that snapshot, which {name!r} would share",
            hint="give a name without @, for an app of its own",
        )
    return parent, profile


def clone(store: Store, app: App, name: str) -> App:
    """Make another app with all that ``app`` has: its configuration, its data, its snapshots. It must not run."""
    made = branch(store, app, name)
    with store.catalog.transaction():
        last = 0
        for found in store.catalog.snapshots(app.id):
            store.catalog.add_snapshot(attrs.evolve(found, app_id=made.id))
            last = found.number
        store.catalog.skip_numbers(made.id, last)
    return store.app_again(made)


def factory(store: Store, app: App) -> App:
    """Make what an app has now its factory state, to which a reset goes back; its profiles have it too.

    Neither it nor a profile may run. Returns it as it is now. Raises `BusyError`, `UsageError`.
    """
    if app.kind is not AppKind.APP or app.parent is not None:
        what = "a profile" if app.parent is not None else "a throwaway"
        raise UsageError(f"{app.name!r} is {what}, and has no factory state of its own")
    with profiles.locked(store, app, "commit") as family:
        app = family[0]
        check_freezable(store, app)
        for one in family:
            forget_plan(store, one.name)
        exchange(store, app, Restack(factory=True))
        return store.app_again(app)
