"""Bases and apps to registries, as ordinary images. What a registry has is not sent, and need not be made again."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import IO

import attrs

from layerrun.errors import UsageError
from layerrun.fleet.image import MANIFEST_TYPE, Image, image_of_app, image_of_base, image_of_layers
from layerrun.fleet.writing import MEDIA_TYPES, ZSTD, write_layer
from layerrun.images.endpoints import endpoints
from layerrun.images.reference import Reference
from layerrun.images.registry import Repository
from layerrun.images.transport import Access, Transport
from layerrun.images.upload import mount_blob, put_blob, put_manifest
from layerrun.model import HOST_BASE, App, AppKind, Base, IdMode
from layerrun.store.blob_rows import Blob
from layerrun.store.fs import explain, open_dir
from layerrun.store.staging import Ticket
from layerrun.store.store import Store

__all__ = ["Part", "Pushed", "Wanted", "push_app", "push_base", "push_layers"]

Progress = Callable[[str, int, int], None]


@attrs.frozen
class Part:
    """A layer that was pushed: its digest, its bytes, and whether it had to be sent."""

    digest: str
    size: int
    sent: bool


@attrs.frozen
class Pushed:
    """What was pushed: where to, the digest of its manifest, and its layers, the lowest first.

    ``changed``: the tag stood for something else, or nothing, before. Of a dry run all is as it would have been.
    """

    reference: Reference
    digest: str
    layers: tuple[Part, ...]
    changed: bool

    @property
    def sent(self) -> int:
        """How many layers had to be sent."""
        return sum(1 for part in self.layers if part.sent)

    @property
    def sent_bytes(self) -> int:
        """The bytes of these."""
        return sum(part.size for part in self.layers if part.sent)


@attrs.frozen
class Wanted:
    """How to push: ``access`` to registries, the ``compression`` of layers, and whether it is a ``dry_run``.

    A dry run asks the registry what it has, and writes nothing there; of the store nothing changes but what it knows of
    blobs. ``progress`` is called with what is being done, the bytes done, and how many there are (0: not known).
    """

    access: Access = attrs.field(factory=Access)
    compression: str = ZSTD
    dry_run: bool = False
    progress: Progress | None = None


@attrs.frozen
class _Source:
    """What becomes a layer of the image: what it is called in the table of blobs, whose ids it has, how to open it."""

    tree: str
    ids: IdMode | None
    layer: bool
    open: Callable[[], int]


def push_base(store: Store, name: str, reference: Reference, wanted: Wanted) -> Pushed:
    """Push a base (or a version of it, NAME@N) as an image of one layer.

    Raises `UsageError` for the host, `RegistryError`; nothing of the store changes but what it knows of blobs.
    """
    base = _base(store, name)
    with _Push(store, reference, wanted) as push:
        return push.put(image_of_base(base, push.layer(_of_base(store, base))))


def push_app(store: Store, name: str, reference: Reference, wanted: Wanted) -> Pushed:
    """Push an app as an image: the layer of its base, those of its factory state, its command and environment.

    Its own data is not sent. Otherwise as `push_base`.
    """
    app = _app(store, name)
    base = _base(store, app.config.base, hint=f"--layers sends what {name!r} has above it")
    with _Push(store, reference, wanted) as push:
        layers = [push.layer(_of_base(store, base))]
        layers += [push.layer(_of_layer(store, app, layer)) for layer in app.config.layers]
        return push.put(image_of_app(app, base, layers, 1))


def push_layers(store: Store, name: str, reference: Reference, wanted: Wanted) -> Pushed:
    """Push the layers of an app's factory state alone, which name the base that they lie over: it may be the host's.

    Raises `UsageError` where there are none. Otherwise as `push_app`.
    """
    app = _app(store, name)
    if not app.config.layers:
        raise UsageError(
            f"{name!r} has no layers of its own: nothing was committed to it",
            hint=f"layerrun commit {name}  (what it has written becomes one)",
        )
    with _Push(store, reference, wanted) as push:
        layers = [push.layer(_of_layer(store, app, layer)) for layer in app.config.layers]
        return push.put(image_of_layers(app, store.base(app.config.base), layers))


def _app(store: Store, name: str) -> App:
    app = store.app(name)
    if app.kind is not AppKind.APP:
        raise UsageError(f"{name!r} is a throwaway", hint="`layerrun keep` makes an app of one")
    return app


def _base(store: Store, name: str, hint: str = "import a tree, and push that") -> Base:
    base = store.base(name)
    if base.name == HOST_BASE:
        raise UsageError("the base 'host' is the machine's own /, which cannot be sent", hint=hint)
    return base


def _of_base(store: Store, base: Base) -> _Source:
    assert base.digest is not None
    return _Source(base.digest, base.ids, layer=False, open=lambda: open_dir(store.fd, f"bases/{base.id}"))


def _of_layer(store: Store, app: App, id_: str) -> _Source:
    layer = store.catalog.layer(id_)
    ids = app.ids if layer is None else layer.ids
    return _Source(f"layer:{id_}", ids, layer=True, open=lambda: open_dir(store.fd, f"layers/{id_}"))


class _Push:
    """One push: a ticket to write layers in, a repository, and what has become of its layers so far."""

    def __init__(self, store: Store, reference: Reference, wanted: Wanted) -> None:
        if reference.digest:
            raise UsageError(
                "what is pushed is called by a tag: its digest is what it is", hint="leave @sha256:… out"
            )
        place = endpoints(reference, pull=False)[-1]
        transport = Transport(wanted.access)
        if place.insecure:
            transport.insecure_hosts.add(place.reference.host)
        self._store, self._reference, self._wanted = store, reference, wanted
        self._media_type = MEDIA_TYPES[wanted.compression]
        # To look takes no right to write.
        self._repository = Repository(transport, place.reference, push=not wanted.dry_run)
        self._parts: list[Part] = []
        self._ticket: Ticket | None = None

    def __enter__(self) -> _Push:
        return self

    def __exit__(self, *error: object) -> None:
        if self._ticket is not None:
            self._ticket.__exit__(None, None, None)

    def layer(self, source: _Source) -> Blob:
        """Have a layer in the registry, written first unless it is there; return what it is."""
        known = self._store.catalog.blob(source.tree, self._media_type)
        if known is not None and (self._repository.has_blob(known.digest) or self._mounted(known)):
            return self._done(known, sent=False)
        if known is not None and self._wanted.dry_run:
            return self._done(known, sent=True)
        if self._ticket is None:
            self._ticket = self._store.ticket()
        name = f"layer-{source.tree.rpartition(':')[2]}"
        blob = self._write(self._ticket, name, source)
        fd = self._ticket.fd

        def opener() -> IO[bytes]:
            return os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd), "rb")

        try:
            if self._wanted.dry_run:
                sent = not self._repository.has_blob(blob.digest) and not self._mounted(blob)
            else:
                sent = put_blob(
                    self._repository,
                    blob.digest,
                    blob.size,
                    opener,
                    elsewhere=self._elsewhere(blob),
                    progress=lambda count: self._report("sending", count, blob.size),
                )
        finally:
            os.unlink(name, dir_fd=fd)
        return self._done(blob, sent=sent)

    def _done(self, blob: Blob, *, sent: bool) -> Blob:
        self._parts.append(Part(blob.digest, blob.size, sent))
        with self._store.catalog.transaction():
            self._store.catalog.add_blob(blob)
            if not self._wanted.dry_run:
                self._store.catalog.add_place(blob.digest, self._repository.reference.repository)
        return blob

    def _report(self, what: str, count: int, total: int) -> None:
        if self._wanted.progress is not None:
            self._wanted.progress(what, count, total)

    def _write(self, ticket: Ticket, name: str, source: _Source) -> Blob:
        self._report("packing", 0, 0)
        with explain("write a layer for the registry"):
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            out = os.open(name, flags, 0o600, dir_fd=ticket.fd)
        tree = -1
        try:
            tree = source.open()
            made = write_layer(
                self._store, source.ids, tree, out, layer=source.layer, compression=self._wanted.compression
            )
        finally:
            os.close(out)
            if tree >= 0:
                os.close(tree)
        return Blob(made.digest, made.diff_id, made.size, self._media_type, source.tree)

    def _elsewhere(self, blob: Blob) -> str | None:
        """Return another repository of the same registry that has had the blob."""
        own = self._repository.reference
        for place in self._store.catalog.places(blob.digest):
            host, _, name = place.partition("/")
            if host == own.host and name != own.name:
                return name
        return None

    def _mounted(self, blob: Blob) -> bool:
        """Have the registry take a blob from another of its repositories; say whether it did, or could."""
        elsewhere = self._elsewhere(blob)
        if elsewhere is None or not self._wanted.dry_run:
            return elsewhere is not None and mount_blob(self._repository, blob.digest, elsewhere)
        other = attrs.evolve(self._repository.reference, name=elsewhere)
        return Repository(self._repository.transport, other).has_blob(blob.digest)

    def put(self, image: Image) -> Pushed:
        """Put the configuration and the manifest, which is the moment at which the image is there."""
        repository, tag = self._repository, self._reference.tag
        changed = repository.digest_of(str(tag)) != image.digest
        if changed and not self._wanted.dry_run:
            put_blob(repository, image.config_digest, len(image.config), lambda: io.BytesIO(image.config))
            put_manifest(repository, image.manifest, MANIFEST_TYPE, tag)
        return Pushed(self._reference, image.digest, tuple(self._parts), changed)
