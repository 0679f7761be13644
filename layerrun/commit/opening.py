"""Folders of a plain user's layer that are closed to their own owner: opened while what is in them is taken.

Which they are stands in the folder of the commit before the first is opened, so that they are closed again whatever
happens.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from layerrun.commit.entries import Folders, held
from layerrun.commit.journal import read_json, write_json
from layerrun.commit.ops import Op
from layerrun.errors import LayerrunError

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["close_again", "open_folders"]

_FILE = "closed"


def open_folders(upper: Folders, ops: Iterable[Op], folder: int, app_id: str) -> None:
    """Open the folders that the sources of steps lie in. ``folder``: that of the commit."""
    if os.geteuid() == 0:
        return
    found: list[tuple[str, int]] = []
    for path in sorted(_above(op.source for op in ops if op.source is not None)):
        status = upper.look(path)
        if status is None or not status.is_dir or status.mode & stat.S_IRWXU == stat.S_IRWXU:
            continue
        found.append((path.decode("latin-1"), status.mode))
        write_json(folder, _FILE, {"app": app_id, "folders": found})
        with held(*upper.at(path)) as (_, entry):
            os.chmod(entry, stat.S_IMODE(status.mode) | stat.S_IRWXU)


def _above(paths: Iterable[bytes]) -> set[bytes]:
    """Return the folders that paths lie in."""
    found: set[bytes] = set()
    for path in paths:
        folder = path.rpartition(b"/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition(b"/")[0]
    return found


@contextmanager
def close_again(store: Store, folder: int) -> Iterator[None]:
    """Close at the end what was opened before, by a commit that was cut short, or is opened meanwhile."""
    known = read_json(folder, _FILE)
    try:
        yield
    finally:
        with suppress(LayerrunError):
            known = read_json(folder, _FILE) or known
        if known:
            _close(store, known["app"], known["folders"])


def _close(store: Store, app_id: str, folders: list[tuple[str, int]]) -> None:
    app = store.catalog.app_by_id(app_id)
    if app is None:
        return
    fd = store.open_data(app, "upper")
    upper = Folders(fd, cross_mounts=False)
    try:
        for path, mode in reversed(folders):
            with (
                suppress(FileNotFoundError, NotADirectoryError),
                held(*upper.at(path.encode("latin-1"))) as (at, entry),
            ):
                if stat.S_ISDIR(os.fstat(at).st_mode):
                    os.chmod(entry, stat.S_IMODE(mode))
    finally:
        upper.clear()
        os.close(fd)
