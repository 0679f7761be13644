"""Where a base comes from, as people name it: recognised here, for the first version of a base and for later ones."""

from __future__ import annotations

import os

from layerrun.bases.manifest import Progress
from layerrun.errors import UsageError
from layerrun.model import Base
from layerrun.store.fs import explain
from layerrun.store.store import Store

__all__ = ["bring", "source_of"]


def bring(
    store: Store,
    name: str,
    source: str,
    *,
    max_size: str | None = None,
    progress: Progress | None = None,
    version: bool = False,
) -> Base:
    """Import ``source`` as the base ``name``, or with ``version`` as its next version: a folder, an archive, ``-``.

    ``-`` is standard input. ``max_size`` is how much an archive may come to. For the rest see
    `layerrun.bases.intake.import_base`.
    """
    from layerrun.bases import tree
    from layerrun.images.limits import Limits
    from layerrun.policy import parse_size

    if source != "-" and not os.path.isfile(source):
        return tree.import_tree(store, name, source, progress=progress, version=version)
    limits = Limits() if max_size is None else Limits(size=parse_size(max_size))
    with explain("open", source):
        # The helper's standard input is another.
        fd = os.dup(0) if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    known_as = source if source == "-" else os.path.realpath(source)
    try:
        return tree.import_tar(store, name, fd, known_as, limits=limits, progress=progress, version=version)
    finally:
        os.close(fd)


def source_of(store: Store, name: str) -> str:
    """Return where the current version of a base came from. Raises `UsageError` where that is not there any more."""
    current = store.base(name)
    source = current.source
    if source == "-" or (source.startswith("/") and not os.path.exists(source)):
        what = "a pipe" if source == "-" else f"{source!r}, which is not there any more"
        raise UsageError(
            f"{current.full_name} came from {what}", hint=f"layerrun base update {name} --from SRC"
        )
    return source
