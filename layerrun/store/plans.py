"""Stored plans: what the front door runs without asking Python. See docs/plan.md.

A plan lies at ``plans/NAME``. Whoever changes what it was made from forgets it first, holding the
app's lock, and durably: so a plan that is there agrees with the catalog, after a crash too.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from layerrun.store.fs import fsync_dir, make_dir

if TYPE_CHECKING:
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["forget_plan", "write_plan"]


_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def forget_plan(store: Store, name: str) -> None:
    """Remove the stored plan of ``name``, if there is one."""
    try:
        os.unlink(f"plans/{name}", dir_fd=store.fd)
    except FileNotFoundError:
        return
    fsync_dir(store.fd, "plans")


def write_plan(store: Store, app: App, data: bytes) -> None:
    """Put a plan in the place of an older one. It need not survive a crash, so nothing is synced.

    The caller holds the app's lock. A rename does not need that lock, but a transaction, as this does:
    so no plan is left under a name that has become another's.
    """
    with (
        suppress(FileNotFoundError),
        open(os.open(f"plans/{app.name}", _READ, dir_fd=store.fd), "rb") as file,
    ):
        if file.read() == data:
            return
    with suppress(FileExistsError):
        make_dir(store.fd, "plans", 0o700)
    # The name of an app never begins with a dot, and the writer holds the app's lock.
    new = f"plans/.{app.id}"
    with open(os.open(new, _WRITE, 0o600, dir_fd=store.fd), "wb") as file:
        file.write(data)
    with store.catalog.transaction():
        found = store.catalog.app_by_id(app.id)
        if found is not None and found.name == app.name:
            os.rename(new, f"plans/{app.name}", src_dir_fd=store.fd, dst_dir_fd=store.fd)
