"""Empty data units that look like what they go over: the folders in which overlays are rooted show their uppers'."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from layerrun.layers.delta import Stat
from layerrun.model import HOST_BASE, App, Home, IdMode
from layerrun.native.trees import open_beneath
from layerrun.runtime import jobs
from layerrun.runtime.uppers import read_roots, write_roots
from layerrun.store.fs import open_dir, present, read_text

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["dress", "is_touched", "layer_folder", "note_since", "noted_since", "since"]

# In a data unit or a layer whose entries are not as old as what they hold: when that began.
SINCE = "since"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def layer_folder(store: Store, layer: str) -> Iterator[int]:
    """Open the folder of a layer: in it are ``tree``, ``roots`` and, of some, ``home``."""
    fd = open_dir(store.fd, f"layers/{layer}")
    try:
        yield fd
    finally:
        os.close(fd)


def dress(app: App, data: int, like: int) -> None:
    """Make an empty data unit look like ``like``, a data unit or a layer: its roots with their metadata, its home's.

    Both are open folders.
    """
    roots = read_roots(like)
    top = "upper" if present(like, "upper") else "tree"
    words = [os.fsdecode(root) for root in roots]
    if app.ids is IdMode.SUBIDS and not any(_is_others(like, name) for name in (top, "home")):
        made = jobs.dress_job(data, like, True, top, words)  # without a helper process, which takes its time
    else:
        made = jobs.on_files(app, jobs.dress_job, [data, like], app.ids.userxattr, top, words)
    if made:
        write_roots(data, [os.fsencode(root) for root in made])


def _is_others(dir_fd: int, name: str) -> bool:
    with suppress(FileNotFoundError):
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_uid != os.geteuid()
    return False


def since(folder: int) -> int:
    """Return when what is in a data unit or a layer (open) began, in ns by the kernel's clock; 0: not known."""
    from layerrun.native import settle

    noted = read_text(folder, SINCE)
    if noted is not None:
        return int(noted) if noted.isdecimal() else 0
    found = settle.look(folder, b"upper" if present(folder, "upper") else b"tree")
    return 0 if found is None else Stat(*found).btime_ns


def note_since(folder: int, begun: Iterable[int]) -> None:
    """Write down when what was put together in a data unit or a layer began: with the first of its parts."""
    with os.fdopen(os.open(SINCE, _NEW, 0o600, dir_fd=folder), "w", encoding="ascii") as file:
        file.write(str(min(begun)))
        file.flush()
        os.fsync(file.fileno())


def noted_since(folder: int) -> int | None:
    """Return when what was put together in a data unit began (ns, 0: not known); ``None`` if it was not."""
    return since(folder) if present(folder, SINCE) else None


def is_touched(store: Store, app: App) -> bool:
    """Say whether anything was written to the app's data unit, as far as that can be told at a glance.

    The app is locked. What was written and taken back may count.
    """
    data = store.open_data(app)
    try:
        if app.config.home is Home.FRESH and present(data, "home") and _names(data, b"home"):
            return True
        roots = {b"", *read_roots(data)}
        upper = open_dir(data, "upper", closed=True)
        try:
            if app.config.base != HOST_BASE and not _looks_like_lower(store, app, upper):
                return True
            return any(
                (root + b"/" + name).lstrip(b"/") not in roots
                for root in roots
                for name in _names(upper, root)
            )
        finally:
            os.close(upper)
    finally:
        os.close(data)


def _names(dir_fd: int, path: bytes) -> Sequence[bytes]:
    """Return the names in a folder; one that cannot be read has some."""
    try:
        fd = open_beneath(dir_fd, path, _FOLDER)
    except OSError as error:
        return () if error.errno == errno.ENOENT else (b"?",)
    try:
        return [os.fsencode(name) for name in os.listdir(fd)]
    finally:
        os.close(fd)


def _looks_like_lower(store: Store, app: App, upper: int) -> bool:
    """Say whether the upper's own root has the owner, the mode and the attributes of what lies beneath it."""
    lowers = store.lower_fds(app)
    try:
        return _looks(upper) == _looks(lowers[0])
    finally:
        for fd in lowers:
            os.close(fd)


def _looks(fd: int) -> tuple[object, ...]:
    info, found = os.fstat(fd), []
    with suppress(OSError):  # a folder that may not be read
        for name in os.listxattr(fd):
            if not name.startswith(("trusted.overlay.", "user.overlay.")) or ".overlay.overlay." in name:
                found.append((name, os.getxattr(fd, name)))
    return stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, sorted(found)
