"""Stored plans: what the front door runs without asking Python. See docs/plan.md.

A plan lies at ``plans/NAME``. Whoever changes what it was made from forgets it first, holding the
app's lock, and durably: so a plan that is there agrees with the catalog, after a crash too.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from layerrun.errors import BusyError
from layerrun.model import AppKind
from layerrun.store.fs import fsync_dir, make_dir

if TYPE_CHECKING:
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["forget_plan", "is_stored", "signature", "stored_uppers", "upper_state", "write_plan"]


_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Words before the first condition, see docs/plan.md.
_HEAD = 7
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


def forget_plan(store: Store, name: str) -> None:
    """Remove the stored plan of ``name``, if there is one."""
    try:
        os.unlink(f"plans/{name}", dir_fd=store.fd)
    except (FileNotFoundError, IsADirectoryError):
        return  # a folder is none that anyone would run
    fsync_dir(store.fd, "plans")


def write_plan(store: Store, app: App, data: bytes) -> None:
    """Put a plan in the place of an older one. It need not survive a crash, so nothing is synced.

    The caller holds the app's lock. A rename does not need that lock, but a transaction, as this does:
    so no plan is left under a name that has become another's. A plan that cannot be written is not.
    """
    if is_stored(store, app.name, data):
        return
    # The name of an app never begins with a dot, and the writer holds the app's lock.
    new = f"plans/.{app.id}"
    try:
        with suppress(FileExistsError):
            make_dir(store.fd, "plans", 0o700)
        with open(os.open(new, _WRITE, 0o600, dir_fd=store.fd), "wb") as file:
            file.write(data)
        with store.catalog.transaction():
            found = store.catalog.app_by_id(app.id)
            # Its layers may have been exchanged for one that holds the same, or its base switched, though it is locked.
            now = None if found is None else (found.name, found.stack, found.base_id)
            if now == (app.name, app.stack, app.base_id) and not _is_to_ask(store, app):
                os.rename(new, f"plans/{app.name}", src_dir_fd=store.fd, dst_dir_fd=store.fd)
    except (OSError, BusyError):
        pass
    finally:
        with suppress(OSError):
            os.unlink(new, dir_fd=store.fd)


def _is_to_ask(store: Store, app: App) -> bool:
    """Say whether the app's next start is to ask again: a version of its base is staged."""
    slot = store.catalog.slot(app.config.base) if app.kind is AppKind.APP else None
    return slot is not None and slot.staged is not None


def signature(path: str) -> str:
    """Return what identifies a file as unchanged: device, inode, change, mode, size; ``-``: not there."""
    try:
        info = os.lstat(path)
    except OSError:
        return "-"
    seconds, rest = divmod(info.st_ctime_ns, 1_000_000_000)
    return f"{info.st_dev}:{info.st_ino}:{seconds}.{rest:09d}:{info.st_mode:o}:{info.st_size}"


def upper_state(path: str) -> str:
    """Return what a folder of an upper is like, as a stored plan has it: entries, then `signature`; ``-``: none."""
    seen = signature(path)  # first, and without following a link: an app may have put one there
    try:
        return f"{len(os.listdir(path))}:{seen}" if seen != "-" else seen
    except OSError:
        return "-"


def stored_uppers(store: Store, name: str) -> dict[str, str]:
    """Return the folders of the upper that a stored plan says are empty, with their `upper_state` then.

    Nothing where there is no such plan.
    """
    try:
        with open(os.open(f"plans/{name}", _READ, dir_fd=store.fd), "rb") as file:
            words = file.read().split(b"\0")
    except OSError:
        return {}
    uppers = {}
    for i in range(_HEAD, len(words) - 2, 3):
        if words[i] == b"plan":
            break
        if words[i] == b"upper":
            uppers[os.fsdecode(words[i + 1])] = os.fsdecode(words[i + 2])
    return uppers


def is_stored(store: Store, name: str, data: bytes) -> bool:
    """Say whether just this plan lies there already, in a file that the front door takes."""
    try:
        with open(os.open(f"plans/{name}", _READ, dir_fd=store.fd), "rb") as file:
            info = os.fstat(file.fileno())
            ours = stat.S_ISREG(info.st_mode) and not info.st_mode & 0o077 and info.st_uid == os.geteuid()
            return ours and file.read() == data
    except OSError:
        return False
