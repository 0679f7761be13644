"""Bases and apps to registries, as ordinary images. What a registry has is not sent, and need not be made again."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import IO

import attrs

from layerrun.errors import UsageError
from layerrun.fleet.image import MANIFEST_TYPE, Image, image_of_app, image_of_base
from layerrun.fleet.writing import MEDIA_TYPES, ZSTD, write_layer
from layerrun.images.endpoints import endpoints
from layerrun.images.reference import Reference
from layerrun.images.registry import Repository
from layerrun.images.transport import Access, Transport
from layerrun.images.upload import mount_blob, put_blob, put_manifest
from layerrun.model import HOST_BASE, App, AppKind, Base, BaseKind, IdMode
from layerrun.store.blob_rows import Blob
from layerrun.store.fs import explain, open_dir
from layerrun.store.staging import Ticket
from layerrun.store.store import Store

__all__ = ["Pushed", "push_app", "push_base"]

Progress = Callable[[str, int, int], None]


@attrs.frozen
class Pushed:
    """What was pushed: where to, the digest of its manifest, and how much had to be sent.

    ``layers`` are the digests of its layers, the lowest first; ``sent`` counts layers, ``sent_bytes`` their bytes.
    """

    reference: Reference
    digest: str
    layers: tuple[str, ...]
    sent: int
    sent_bytes: int


@attrs.frozen
class _Part:
    """What becomes a layer of the image: what it is called in the table of blobs, whose ids it has, how to open it."""

    tree: str
    ids: IdMode | None
    layer: bool
    open: Callable[[], int]


def push_base(
    store: Store,
    name: str,
    reference: Reference,
    access: Access,
    *,
    compression: str = ZSTD,
    progress: Progress | None = None,
) -> Pushed:
    """Push a base (or a version of it, NAME@N) as an image of one layer.

    ``progress`` is called with what is being done, the bytes done, and how many there are (0: not known). Raises
    `UsageError` for the host, `RegistryError`; nothing of the store changes but what it knows of blobs.
    """
    base = _base(store, name)
    with _Push(store, reference, access, compression, progress) as push:
        return push.put(image_of_base(base, push.layer(_of_base(store, base))))


def push_app(
    store: Store,
    name: str,
    reference: Reference,
    access: Access,
    *,
    compression: str = ZSTD,
    progress: Progress | None = None,
) -> Pushed:
    """Push an app as an image: the layer of its base, those of its factory state, its command and environment.

    Its own data is not sent. Otherwise as `push_base`.
    """
    app = store.app(name)
    if app.kind is not AppKind.APP:
        raise UsageError(f"{name!r} is a throwaway", hint="`layerrun keep` makes an app of one")
    base = _base(store, app.config.base)
    with _Push(store, reference, access, compression, progress) as push:
        layers = [push.layer(_of_base(store, base))]
        layers += [push.layer(_of_layer(store, app, layer)) for layer in app.config.layers]
        return push.put(image_of_app(app, base, layers, 1))


def _base(store: Store, name: str) -> Base:
    base = store.base(name)
    if base.name == HOST_BASE:
        raise UsageError(
            "the base 'host' is the machine's own /, which cannot be sent",
            hint="import a tree, and let the app stand on that",
        )
    if base.kind is not BaseKind.TREE:
        raise UsageError(
            f"the base {base.name!r} is an image of a file system, and cannot be sent as it is",
            hint="unpack it, and import the folder",
        )
    return base


def _of_base(store: Store, base: Base) -> _Part:
    assert base.digest is not None
    return _Part(base.digest, base.ids, layer=False, open=lambda: open_dir(store.fd, f"bases/{base.id}"))


def _of_layer(store: Store, app: App, id_: str) -> _Part:
    layer = store.catalog.layer(id_)
    ids = app.ids if layer is None else layer.ids
    return _Part(f"layer:{id_}", ids, layer=True, open=lambda: open_dir(store.fd, f"layers/{id_}"))


class _Push:
    """One push: a ticket to write layers in, a repository, and what has been sent so far."""

    def __init__(
        self,
        store: Store,
        reference: Reference,
        access: Access,
        compression: str,
        progress: Progress | None,
    ) -> None:
        if reference.digest:
            raise UsageError(
                "what is pushed is called by a tag: its digest is what it is", hint="leave @sha256:… out"
            )
        place = endpoints(reference, pull=False)[-1]
        transport = Transport(access)
        if place.insecure:
            transport.insecure_hosts.add(place.reference.host)
        self._store, self._reference, self._progress = store, reference, progress
        self._media_type = MEDIA_TYPES[compression]
        self._compression = compression
        self._repository = Repository(transport, place.reference, push=True)
        self._sent = self._sent_bytes = 0
        self._ticket: Ticket | None = None

    def __enter__(self) -> _Push:
        return self

    def __exit__(self, *error: object) -> None:
        if self._ticket is not None:
            self._ticket.__exit__(None, None, None)

    def layer(self, part: _Part) -> Blob:
        """Have a layer in the registry, written first unless it is there; return what it is."""
        known = self._store.catalog.blob(part.tree, self._media_type)
        if known is not None and (self._repository.has_blob(known.digest) or self._mounted(known)):
            self._remember(known)
            return known
        if self._ticket is None:
            self._ticket = self._store.ticket()
        name = f"layer-{part.tree.rpartition(':')[2]}"
        blob = self._write(self._ticket, name, part)
        fd = self._ticket.fd

        def opener() -> IO[bytes]:
            return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd), "rb")

        report = self._progress
        sent = put_blob(
            self._repository,
            blob.digest,
            blob.size,
            opener,
            elsewhere=self._elsewhere(blob),
            progress=None if report is None else lambda count: report("sending", count, blob.size),
        )
        if sent:
            self._sent += 1
            self._sent_bytes += blob.size
        os.unlink(name, dir_fd=fd)
        self._remember(blob)
        return blob

    def _write(self, ticket: Ticket, name: str, part: _Part) -> Blob:
        if self._progress is not None:
            self._progress("packing", 0, 0)
        with explain("write a layer for the registry"):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            out = os.open(name, flags, 0o600, dir_fd=ticket.fd)
        tree = -1
        try:
            tree = part.open()
            made = write_layer(
                self._store, part.ids, tree, out, layer=part.layer, compression=self._compression
            )
        finally:
            os.close(out)
            if tree >= 0:
                os.close(tree)
        return Blob(made.digest, made.diff_id, made.size, self._media_type, part.tree)

    def _elsewhere(self, blob: Blob) -> str | None:
        """Return another repository of the same registry that has had the blob."""
        own = self._repository.reference
        for place in self._store.catalog.places(blob.digest):
            host, _, name = place.partition("/")
            if host == own.host and name != own.name:
                return name
        return None

    def _mounted(self, blob: Blob) -> bool:
        """Have the registry take a blob from another of its repositories; say whether it did."""
        elsewhere = self._elsewhere(blob)
        return elsewhere is not None and mount_blob(self._repository, blob.digest, elsewhere)

    def _remember(self, blob: Blob) -> None:
        with self._store.catalog.transaction():
            self._store.catalog.add_blob(blob)
            self._store.catalog.add_place(blob.digest, self._repository.reference.repository)

    def put(self, image: Image) -> Pushed:
        """Put the configuration and the manifest, which is the moment at which the image is there."""
        put_blob(self._repository, image.config_digest, len(image.config), lambda: io.BytesIO(image.config))
        digest = put_manifest(self._repository, image.manifest, MANIFEST_TYPE, self._reference.tag)
        layers = tuple(layer.digest for layer in image.layers)
        return Pushed(self._reference, digest, layers, self._sent, self._sent_bytes)
