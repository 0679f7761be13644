"""Both sides of a changed file, for people to choose from: as it is on the host, and as the layer has it."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from layerrun.layers.text import LARGEST, is_text
from layerrun.native.trees import open_beneath

if TYPE_CHECKING:
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["text_sides"]


def text_sides(store: Store, app: App, path: str) -> tuple[bytes, bytes] | None:
    """Return what a file holds on the host and what it holds in the layer; ``None`` unless both are text.

    Nothing but regular files is opened to be read, and no link is followed. ``path`` is absolute.
    """
    name = os.fsencode(path.strip("/"))
    host = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    upper = store.open_data(app, "upper")
    try:
        old = _content(host, name, cross_mounts=True)
        new = None if old is None else _content(upper, name, cross_mounts=False)
    finally:
        os.close(upper)
        os.close(host)
    return None if old is None or new is None else (old, new)


def _content(root: int, name: bytes, *, cross_mounts: bool) -> bytes | None:
    try:
        fd = open_beneath(root, name, os.O_RDONLY, cross_mounts=cross_mounts)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_size > LARGEST:
            return None
        data = file.read(LARGEST + 1)
    return data if is_text(data) else None
