"""Publishing a base of this machine's store: as an archive, with deltas from the versions before it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence

from layerrun.bases.exporting import export_to_file
from layerrun.errors import UsageError
from layerrun.fleet import publishing
from layerrun.fleet.release import Release
from layerrun.model import Base, BaseKind
from layerrun.store.store import Store

__all__ = ["add_base", "delta_of"]


def add_base(
    store: Store,
    name: str,
    path: str,
    channel: str,
    key_folder: str,
    *,
    version: str,
    arch: str,
    deltas: int = 2,
    files: Sequence[str] = (),
    told: Callable[[str], None],
) -> Release:
    """Publish the base ``name`` (NAME or NAME@VERSION) of a store as a release, see `layerrun.fleet.publishing.add`.

    With it go deltas from that many of the versions before it that the store still has. ``told`` hears what is done.
    Raises `UsageError` where it is no tree.
    """
    base = store.base(name)
    if base.kind is not BaseKind.TREE or base.digest is None:
        raise UsageError(f"the base {base.full_name!r} is no tree in the store, and cannot be published")
    older = [
        one for one in store.catalog.versions(base.name) if one.version < base.version and one.ids == base.ids
    ]
    with tempfile.TemporaryDirectory(
        dir=os.path.dirname(os.path.abspath(path)), prefix=".layerrun-"
    ) as folder:
        told(f"writing {base.full_name} as an archive")
        archive = os.path.join(folder, "base.tar.zst")
        export_to_file(store, base, archive)
        pairs = []
        for old in older[-deltas:] if deltas else ():
            told(f"writing the delta from {old.full_name}")
            pairs.append(_delta(store, old, base, folder))
        return publishing.add(
            path,
            channel,
            archive,
            key_folder,
            version=version,
            arch=arch,
            tree=base.digest,
            deltas=pairs,
            files=files,
        )


def _delta(store: Store, old: Base, new: Base, folder: str) -> tuple[str, str]:
    from layerrun.updates.delta import make_delta

    path = os.path.join(folder, f"{old.version}.delta")
    make_delta(store, old, new, path)
    assert old.digest is not None
    return old.digest, path


def delta_of(path: str) -> tuple[str, str]:
    """Return the digests of the bases that the delta in a file goes from and to; raises `ArchiveError`."""
    from layerrun.updates.delta import check

    head = check(path)
    return head.old, head.new
