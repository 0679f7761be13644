"""Where a base comes from, as people name it: recognised here, for the first version of a base and for later ones."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import attrs

from layerrun.bases.manifest import Progress
from layerrun.errors import UsageError
from layerrun.model import Base, check_name
from layerrun.store.store import Store

if TYPE_CHECKING:
    from layerrun.images.transport import Access

__all__ = ["bring", "source_of"]


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
    """Import ``source`` as the base ``name``, or with ``version`` as its next version.

    It is what `layerrun.bases.opening.open_source` knows. ``max_size`` is how much an archive may come to, ``platform``
    which image of several is taken, ``access`` how to reach its registry. A ``progress`` that has ``watch`` is given
    the descriptor of a tar archive. For the rest see `layerrun.bases.intake.import_base`.
    """
    from layerrun.bases.image import import_image
    from layerrun.bases.intake import import_base
    from layerrun.bases.opening import FileSystem, open_source, wanted
    from layerrun.images.tar import TarSource

    check_name(name, "name of a base")
    options = attrs.evolve(wanted(platform, max_size), access=access, progress=progress)
    with open_source(store, source, options) as opened:
        if isinstance(opened, FileSystem):
            return import_image(store, name, opened.fd, opened.text, progress=progress, version=version)
        watch = getattr(progress, "watch", None)
        if watch is not None and isinstance(opened, TarSource):
            watch(opened.fd)
        size, entries = options.most(opened)
        return import_base(
            store, name, opened, size=size, entries=entries, progress=progress, version=version
        )


def source_of(store: Store, name: str) -> str:
    """Return where the current version of a base came from. Raises `UsageError` where that is not there any more."""
    from layerrun.bases.opening import path_of

    current = store.base(name)
    source = current.source
    path = path_of(source)
    if path == "-" or (source.startswith("/") and not os.path.exists(path)):
        what = "a pipe" if path == "-" else f"{source!r}, which is not there any more"
        raise UsageError(
            f"{current.full_name} came from {what}", hint=f"layerrun base update {name} --from SRC"
        )
    return source
