"""One change of versions at a time in a store, and the end of those that were cut short."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from layerrun.bases import versions
from layerrun.errors import BusyError, LayerrunError
from layerrun.store.fs import explain
from layerrun.store.locks import lock_file
from layerrun.store.store import Store

__all__ = ["settle", "updating"]

_LOCK = "update.lock"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def updating(store: Store, *, wait: float = 0.0) -> Iterator[None]:
    """Hold the lock of all that changes which versions there are; first take back what was cut short.

    Raises `BusyError` if another update does not end within ``wait`` seconds.
    """
    fd = _open(store)
    try:
        if not lock_file(fd, exclusive=True, wait=wait):
            raise BusyError(
                "another update of a base is under way in this store",
                hint="wait for it to end, then try again",
            )
        _take_back(store)
        yield
    finally:
        os.close(fd)


def settle(store: Store) -> None:
    """Take back updates that were cut short, if there are any; waits for nobody."""
    if not store.catalog.pending_versions():
        return
    with suppress(LayerrunError), updating(store):
        pass


def _open(store: Store) -> int:
    with explain("open the lock of the updates of", store.path):
        return os.open(_LOCK, _FLAGS, 0o600, dir_fd=store.fd)


def _take_back(store: Store) -> None:
    for _, id_ in store.catalog.pending_versions():
        base = store.catalog.base_by_id(id_)
        if base is not None:
            store.sweep()  # what ran over it
            versions.take_back(store, base)
