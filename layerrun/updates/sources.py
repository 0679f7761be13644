"""Where a base comes from, as people name it: what `layerrun.bases.sources` knows, and deltas."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from layerrun.bases import sources
from layerrun.bases.manifest import Progress
from layerrun.model import Base
from layerrun.store.store import Store

if TYPE_CHECKING:
    from layerrun.images.transport import Access

__all__ = ["bring", "is_delta_file"]

# What deltas of any version begin with; what reads them costs some milliseconds to import.
_FAMILY = b"layerrun-delta "


def bring(
    store: Store,
    name: str,
    source: str,
    *,
    max_size: str | None = None,
    platform: str | None = None,
    access: Access | None = None,
    progress: Progress | None = None,
    version: bool = False,
) -> Base:
    """Import ``source`` as `layerrun.bases.sources.bring` does; a file that is a delta is applied.

    Raises `NotFoundError` where the base that a delta is for is not in the store.
    """
    if not is_delta_file(source):
        return sources.bring(
            store,
            name,
            source,
            max_size=max_size,
            platform=platform,
            access=access,
            progress=progress,
            version=version,
        )
    from layerrun.bases.intake import SIZE, import_base
    from layerrun.policy import parse_size
    from layerrun.updates.patching import delta_source

    most = SIZE if max_size is None else parse_size(max_size)
    delta = delta_source(store, source, name)
    try:
        return import_base(store, name, delta, size=most, progress=progress, version=version)
    finally:
        delta.close()


def is_delta_file(path: str) -> bool:
    """Say whether the file at ``path`` is a delta; what cannot be read is none, nor is a pipe."""
    try:
        # A named pipe must not even be opened: who writes to it would take that for its reader.
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return os.pread(fd, len(_FAMILY), 0) == _FAMILY
    except OSError:
        return False
    finally:
        os.close(fd)
