"""What differs between any two of: apps, throwaways, snapshots of them, bases; and what an app changed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.errors import DamagedError, UsageError
from layerrun.model import HOST_BASE, App, Base, IdMode, check_path
from layerrun.runtime import jobs, snapshots
from layerrun.runtime.units import layer_folder
from layerrun.runtime.uppers import read_roots
from layerrun.store.catalog import HOST
from layerrun.store.fs import open_dir

if TYPE_CHECKING:
    from layerrun.layers.between import Row
    from layerrun.store.store import Store

__all__ = ["Side", "details", "factory", "factory_of", "of_app", "rows", "side"]


@attrs.frozen
class Side:
    """Something that can be compared.

    ``layers`` are the ids of those above the base, the lowest first; ``app`` is the one whose upper is on top, if any;
    ``ids`` says what the owners mean (`None`: the machine's own).
    """

    name: str
    base: Base
    layers: tuple[str, ...] = ()
    app: App | None = None
    ids: IdMode | None = None


def side(store: Store, reference: str) -> Side:
    """Return what ``NAME``, ``NAME@PROFILE``, ``NAME:SNAPSHOT``, or a base or a version of one means, an app first.

    Raises `NotFoundError` with the nearest names of apps.
    """
    name, snapshot = snapshots.parse(reference)
    if snapshot is None and store.catalog.app(name) is None:
        base = HOST if name == HOST_BASE else store.catalog.base(name)
        if base is not None:
            return Side(reference, base, ids=base.ids)
    app = store.app(name)
    if snapshot is None:
        return of_app(store, app)
    stack = snapshots.find(store, app, snapshot).stack
    return Side(reference, store.base(app.config.base), stack, None, app.ids)


def of_app(store: Store, app: App) -> Side:
    """Return an app, a throwaway or a spare with all that it has."""
    return Side(app.name, store.base(app.config.base), app.stack, app, app.ids)


def factory_of(store: Store, app: App) -> Side:
    """Return what an app would be after a reset."""
    return Side(app.name, store.base(app.config.base), app.config.layers, None, app.ids)


def factory(store: Store, reference: str) -> Side:
    """Return what an app, or one with a snapshot, would be after a reset.

    Raises `UsageError` for a base, which changes nothing.
    """
    name, snapshot = snapshots.parse(reference)
    if snapshot is None and store.catalog.app(name) is None and _is_base(store, name):
        raise UsageError(
            f"{name!r} is a base", hint=f"name something to compare it with: layerrun diff {name} NAME"
        )
    app = store.app(name)
    if snapshot is None:
        return factory_of(store, app)
    return attrs.evolve(factory_of(store, app), layers=snapshots.find(store, app, snapshot).layers)


def _is_base(store: Store, name: str) -> bool:
    return name == HOST_BASE or store.catalog.base(name) is not None


def rows(store: Store, old: Side, new: Side, only: Sequence[str] = ()) -> list[Row]:
    """Return what differs from ``old`` to ``new``, as `layerrun.layers.between.rows`: all that a list shows.

    ``only``: absolute paths; what lies beneath them is looked at, and nothing else.
    """
    return [tuple(row) for row in _compared(store, old, new, jobs.rows_job, only)]


def details(
    store: Store, old: Side, new: Side, wanted: Sequence[str], only: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return what differs with what is in it; see `layerrun.layers.details.details`."""
    found: list[dict[str, Any]] = _compared(store, old, new, jobs.details_job, only, wanted=list(wanted))
    return found


def _compared(store: Store, old: Side, new: Side, job: jobs.Job, only: Sequence[str], **more: Any) -> Any:
    userxattr = store.rootless
    host = old.base.name == HOST_BASE
    same = old.base.id == new.base.id and old.base.name == new.base.name
    if not same and HOST_BASE in (old.base.name, new.base.name):
        raise UsageError(
            f"{old.name} and {new.name} do not stand on one base, and one of them on the machine's own /",
            hint="compare what stands on the same base, or two imported bases",
        )
    with _opened(store, old, new, same=same) as (fds, counts, roots):
        options = {
            "userxattr": userxattr,
            "cross_mounts": host,
            "roots": sorted(roots) if host else [],
            "only": [check_path(path).strip("/") for path in only],
            **more,
        }
        return jobs.on_ids(_ids(old, new), job, fds, counts, options)


def _ids(old: Side, new: Side) -> IdMode | None:
    """Return the mode that decides who may read both: subordinate ids need a helper process."""
    return IdMode.SUBIDS if IdMode.SUBIDS in (old.ids, new.ids) else new.ids or old.ids


@contextmanager
def _opened(
    store: Store, old: Side, new: Side, *, same: bool
) -> Iterator[tuple[list[int], list[int], set[str]]]:
    """Yield the layers, open: the old side's, the new side's, the common ones; how many of each; and their roots."""
    common = 0
    while same and old.layers[common : common + 1] == new.layers[common : common + 1] != ():
        common += 1
    with ExitStack() as opened:

        def keep(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        roots = {"/"}

        def layers(names: Sequence[str]) -> list[int]:
            fds = []
            for name in reversed(names):
                try:
                    with layer_folder(store, name) as folder:
                        roots.update(map(os.fsdecode, read_roots(folder)))
                        fds.append(keep(open_dir(folder, "tree", closed=True)))
                except FileNotFoundError:
                    raise DamagedError(
                        f"the layer {name} is missing in the store", hint="run `layerrun doctor`"
                    ) from None
            return fds

        sides = []
        for one in (old, new):
            fds = []
            if one.app is not None:
                fds.append(keep(store.open_data(one.app, "upper")))
                data = keep(store.open_data(one.app))
                roots.update(map(os.fsdecode, read_roots(data)))
            fds += layers(one.layers[common:])
            sides.append(fds if same else [*fds, keep(store.open_base(one.base))])
        beneath = [*layers(old.layers[:common]), keep(store.open_base(old.base))] if same else []
        yield [*sides[0], *sides[1], *beneath], [len(sides[0]), len(sides[1]), len(beneath)], roots
