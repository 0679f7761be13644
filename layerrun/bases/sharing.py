"""What bases have in common, and objects that no base has any more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import DamagedError
from layerrun.model import Base, BaseKind
from layerrun.store.fs import DIR_FLAGS, open_dir
from layerrun.store.garbage import Garbage

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["Use", "garbage", "uses"]


@attrs.frozen
class Use:
    """What a version of a base takes, in bytes of disk: ``all``, and ``frees`` of it if it were removed."""

    base: Base
    all: int
    frees: int


def uses(store: Store) -> tuple[list[Use], int]:
    """Return what every version of every base takes, and what they take together, with what they share counted once."""
    with ExitStack() as stack:
        found, fds = [], []
        for base in store.catalog.versions():
            try:
                if base.kind is BaseKind.TREE:
                    fds.append(store.open_base(base))
                    stack.callback(os.close, fds[-1])
                    found.append(base)
            except DamagedError:
                continue  # `doctor` says so
        objects = open_dir(store.fd, "objects")
        stack.callback(os.close, objects)
        if not fds:
            return [], 0
        if store.rootless:
            from layerrun.native.worker import run_in_userns

            # A folder that only a subordinate id may read is counted as well.
            told = run_in_userns(f"{__name__}:uses_here", objects, fds, pass_fds=(objects, *fds))
        else:
            told = uses_here(objects, fds)
    return [Use(base, all_, own) for base, (all_, own, _) in zip(found, told, strict=True)], told[-1][2]


def uses_here(objects: int, trees: Sequence[int]) -> list[tuple[int, int, int]]:
    """See `layerrun.native.intake.shares`; what the worker calls."""
    from layerrun.native.intake import shares

    return shares(objects, trees)


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
    return [Garbage(f"{count:,} objects that no base has", size, remove)] if count else []
