"""Where the next version of a base comes from."""

from __future__ import annotations

import os
from collections.abc import Callable

from layerrun.bases.manifest import Progress
from layerrun.errors import UsageError
from layerrun.model import Base
from layerrun.store.fs import explain
from layerrun.store.store import Store

__all__ = ["bringer"]


def bringer(
    store: Store,
    name: str,
    source: str | None,
    *,
    max_size: str | None = None,
    progress: Progress | None = None,
) -> Callable[[], Base]:
    """Return what imports the next version of a base from ``source``: a folder, an archive, ``-``.

    ``None``: from where the current one came. Raises `UsageError` where that is not there any more.
    """
    current = store.base(name)
    if source is None:
        source = current.source
        if source == "-" or not os.path.exists(source):
            what = "a pipe" if source == "-" else f"{source!r}, which is not there any more"
            raise UsageError(
                f"{current.full_name} came from {what}", hint=f"layerrun base update {name} --from SRC"
            )
    return lambda: _bring(store, name, source, max_size, progress)


def _bring(store: Store, name: str, source: str, max_size: str | None, progress: Progress | None) -> Base:
    from layerrun.bases import tree
    from layerrun.bases.unpack import Limits
    from layerrun.policy import parse_size

    if source != "-" and not os.path.isfile(source):
        return tree.import_tree(store, name, source, progress=progress, version=True)
    limits = Limits() if max_size is None else Limits(size=parse_size(max_size))
    with explain("open", source):
        fd = os.dup(0) if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    known_as = source if source == "-" else os.path.realpath(source)
    try:
        return tree.import_tar(store, name, fd, known_as, limits=limits, progress=progress, version=True)
    finally:
        os.close(fd)
