"""What bases have in common, and objects that no base has any more."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import DamagedError
from layerrun.model import App, Base, BaseKind, IdMode
from layerrun.store.fs import DIR_FLAGS, make_dir, open_dir, present
from layerrun.store.garbage import Garbage

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["Use", "frees_of_layers", "garbage", "share_layer", "uses"]

# Folders of layers, of whole apps, that are open at once; the soft limit of a process is 1,024 as a rule.
_MOST_OPEN = 256


@attrs.frozen
class Use:
    """What a version of a base takes, in bytes of disk: ``all``, and ``frees`` of it if it were removed."""

    base: Base
    all: int
    frees: int


def uses(store: Store) -> tuple[list[Use], int]:
    """Return what every version of every base takes, and what they take together, with what they share counted once."""
    with ExitStack() as stack:
        found: list[Base] = []
        fds: list[int] = []
        images: list[Use] = []
        for base in store.catalog.versions():
            try:
                if base.kind is BaseKind.TREE:
                    fds.append(store.open_base(base))
                    stack.callback(os.close, fds[-1])
                    found.append(base)
                elif base.kind is BaseKind.IMAGE:
                    images.append(_use_of_image(store, base))
            except DamagedError:
                continue  # `doctor` says so
        objects = open_dir(store.fd, "objects")
        stack.callback(os.close, objects)
        alone = sum(use.all for use in images)
        if not fds:
            return images, alone
        if store.rootless:
            from layerrun.native.worker import run_in_userns

            # A folder that only a subordinate id may read is counted as well.
            told = run_in_userns(
                f"{__name__}:uses_here", objects, [[fd] for fd in fds], pass_fds=(objects, *fds)
            )
        else:
            told = uses_here(objects, [[fd] for fd in fds])
    used = [Use(base, all_, own) for base, (all_, own, _) in zip(found, told, strict=True)]
    return sorted([*used, *images], key=lambda use: (use.base.name, use.base.version)), told[-1][2] + alone


def _use_of_image(store: Store, base: Base) -> Use:
    """Return what an image that is kept as it is takes, which it shares with nothing."""
    from layerrun.native import trees

    fd = open_dir(store.fd, f"bases/{base.id}")
    try:
        taken = trees.usage(fd).allocated
    finally:
        os.close(fd)
    return Use(base, taken, taken)


def uses_here(objects: int, groups: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """See `layerrun.native.intake.shares`; what the worker calls."""
    from layerrun.native.intake import shares

    return shares(objects, groups)


def frees_of_layers(store: Store, apps: Sequence[App]) -> dict[str, int]:
    """Return, by the id of each app, what of its layers would go with it: bytes of disk that nothing else has."""
    holders: dict[str, set[str]] = {}
    for app in store.catalog.apps():
        stacks = [app.stack, *(found.stack for found in store.catalog.snapshots(app.id))]
        for layer in {layer for stack in stacks for layer in stack}:
            holders.setdefault(layer, set()).add(app.id)
    kept = store.catalog.built_layers()
    own: dict[str, list[str]] = {app.id: [] for app in apps}
    for layer, ids in holders.items():
        (id_, *others) = ids
        if not others and layer not in kept and id_ in own:
            own[id_].append(layer)
    found: dict[str, int] = {}
    batch: dict[str, list[str]] = {}
    for id_, layers in own.items():
        if batch and sum(map(len, batch.values())) + len(layers) > _MOST_OPEN:
            found |= _frees(store, batch)
            batch = {}
        if layers:
            batch[id_] = layers
    return found | _frees(store, batch)


def _frees(store: Store, layers: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return what the layers of each app have that nothing else has; all of them are open at once."""
    with ExitStack() as stack:
        groups: dict[str, list[int]] = {id_: [] for id_ in layers}
        for id_, names in layers.items():
            for layer in names:
                with suppress(DamagedError):  # `doctor` says so
                    groups[id_].append(store.open_layer(layer))
                    stack.callback(os.close, groups[id_][-1])
        found = {id_: fds for id_, fds in groups.items() if fds}
        if not found:
            return {}
        objects = open_dir(store.fd, "objects")
        stack.callback(os.close, objects)
        if store.rootless:
            from layerrun.native.worker import run_in_userns

            fds = [fd for group in found.values() for fd in group]
            told = run_in_userns(
                f"{__name__}:uses_here", objects, list(found.values()), pass_fds=(objects, *fds)
            )
        else:
            told = uses_here(objects, list(found.values()))
    return {id_: own for id_, (_, own, _) in zip(found, told, strict=True)}


def share_layer(store: Store, ticket_fd: int, tree: str, ids: IdMode, *, anew: bool = False) -> None:
    """Make the files of a staged layer, beneath ``tree`` in a ticket, names of objects, as those of bases are.

    New objects lie in the ticket: `layerrun.bases.intake.publish`, once they are durable. ``anew``: all are new, for
    those that are there may be spoilt: `layerrun.bases.intake.renew_objects`. A layer over a plain user's
    host is left as it is: its owners mean something else.
    """
    if ids is IdMode.SELF:
        return
    from layerrun.bases.intake import scheme_of
    from layerrun.bases.tree import in_userns

    with ExitStack() as stack:
        fds = []
        known = (ticket_fd, "none") if anew else (store.fd, "objects")
        for dir_fd, name in ((ticket_fd, tree), known, (ticket_fd, "objects")):
            if name in ("none", "objects") and not present(dir_fd, name):
                make_dir(dir_fd, name)
            fds.append(open_dir(dir_fd, name))
            stack.callback(os.close, fds[-1])
        if store.rootless:
            in_userns(ids, f"{__name__}:share_here", *fds, scheme_of(ids), fds=fds)
        else:
            share_here(fds[0], fds[1], fds[2], scheme_of(ids))


def share_here(tree: int, objects: int, fresh: int, scheme: str) -> None:
    """See `layerrun.native.intake.share`; what the worker calls."""
    from layerrun.native.intake import share

    share(tree, objects, fresh, scheme)


def garbage(store: Store, older_than: float) -> list[Garbage]:
    """Return the objects that nothing has any more, however old they are: what a crash left, as a rule."""
    del older_than
    from layerrun.native.intake import sweep_objects

    def sweep(*, dry: bool) -> tuple[int, int]:
        fd = os.open("objects", DIR_FLAGS, dir_fd=store.fd)
        try:
            return sweep_objects(fd, dry=dry)
        finally:
            os.close(fd)

    def remove() -> None:
        sweep(dry=False)

    count, size = sweep(dry=True)
    what = "1 object" if count == 1 else f"{count:,} objects"
    return [Garbage(f"{what} that no base has", size, remove)] if count else []
