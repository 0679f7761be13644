"""Images of registries as sources of bases: their blobs lie in the store's ``blobs`` until they are taken in."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.errors import ArchiveError
from layerrun.images.blobstore import BlobFolder
from layerrun.images.limits import Limits
from layerrun.images.pulling import Fetching, Pulled, find
from layerrun.images.reference import Reference
from layerrun.images.source import ImageSource
from layerrun.images.transport import Access
from layerrun.store.fs import explain, make_dir, open_dir, present
from layerrun.store.garbage import Garbage

if TYPE_CHECKING:
    from layerrun.images.platform import Platform
    from layerrun.images.stream import Feed, Step
    from layerrun.model import IdMode
    from layerrun.store.store import Store

__all__ = ["PulledSource", "blob_folder", "garbage", "open_pulled"]


@attrs.frozen
class PulledSource:
    """An image of a registry (`layerrun.images.stream.Source`): its layers are read when the stream is wanted."""

    pulled: Pulled
    text: str
    limits: Limits = attrs.field(factory=Limits)

    def ids(self, *, rootless: bool) -> IdMode:
        """Choose whose ids the tree keeps."""
        return ImageSource(self.pulled.image, self.text, self.limits).ids(rootless=rootless)

    def plan(self, known: frozenset[str]) -> Sequence[Step]:
        """Return the layers; see `layerrun.images.stream.Layered`."""
        return ImageSource(self.pulled.image, self.text, self.limits).plan(known)

    def feed(self, to: Feed) -> Mapping[str, Any]:
        """Read what is missing, several layers at once, then write them, the lowest first."""
        image = self.pulled.image
        missing = [one.blob for one in image.layers if one.key not in to.known]
        self.pulled.blobs.fetch_all(missing, self.limits.size)
        try:
            return ImageSource(image, self.text, self.limits).feed(to)
        except ArchiveError:
            # Perhaps it is damaged here alone: the next try reads it anew.
            self.pulled.blobs.drop(image)
            raise


@contextmanager
def blob_folder(store: Store) -> Iterator[BlobFolder]:
    """Open the store's ``blobs``, made if it is not there."""
    with explain("open the folder of blobs in", store.path):
        if not present(store.fd, "blobs"):
            with suppress(FileExistsError):
                make_dir(store.fd, "blobs")
        fd = open_dir(store.fd, "blobs")
    try:
        yield BlobFolder(fd)
    finally:
        os.close(fd)


@contextmanager
def open_pulled(
    store: Store,
    text: str,
    *,
    access: Access | None = None,
    platform: Platform | None = None,
    limits: Limits | None = None,
    fetching: Fetching | None = None,
    alone: bool = False,
) -> Iterator[PulledSource]:
    """Find an image by ``oci://HOST/NAME[:TAG][@DIGEST]`` and give it as a source.

    What has come of its layers is let go once the block ends well; else it is kept, and the next try goes on there.
    ``fetching`` is called with the bytes that have come and how many are to come. ``alone`` and errors: see `find`.
    """
    reference = Reference.parse(text)
    with blob_folder(store) as folder:
        pulled = find(reference, access or Access(), folder, platform, fetching, alone=alone)
        yield PulledSource(pulled, text, limits or Limits())
        pulled.blobs.drop(pulled.image)


def garbage(store: Store, older_than: float) -> list[Garbage]:
    """Return what pulls that were cut short have left, as long as nobody has gone on with them for a while."""
    if not present(store.fd, "blobs"):
        return []
    with blob_folder(store) as folder:
        found = folder.old(older_than)

    return [
        Garbage(f"{name}, of a pull that was cut short", size, partial(_remove, store, name))
        for name, size in found
    ]


def _remove(store: Store, name: str) -> None:
    with blob_folder(store) as folder:
        folder.remove(name)
