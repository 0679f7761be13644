"""Images of registries: which one a reference means, and its blobs, which come when they are wanted."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.errors import ArchiveError, LayerrunError, NotFoundError, RegistryError
from layerrun.images.blobs import Piece, check_size, read_document
from layerrun.images.blobstore import BlobFolder
from layerrun.images.documents import INDEXES, MANIFESTS, MAX_DOCUMENT, Descriptor, parse_object
from layerrun.images.endpoints import endpoints
from layerrun.images.image import Image, image_of
from layerrun.images.reference import Reference
from layerrun.images.registry import Repository
from layerrun.images.transport import Access, Transport

if TYPE_CHECKING:
    from io import BufferedRandom

    from layerrun.images.platform import Platform

__all__ = ["Pulled", "RegistryBlobs", "find"]

_AT_ONCE = 3  # layers that are read at the same time

Fetching = Callable[[int, int], None]


@attrs.frozen
class Pulled:
    """An image in a registry; ``digest`` is what its reference means now: of its manifest, or of an index.

    ``repository``: HOST/NAME.
    """

    image: Image
    blobs: RegistryBlobs
    digest: str
    repository: str

    def labels(self) -> Mapping[str, str]:
        """Return the labels of its configuration."""
        data = read_document(self.blobs, Descriptor(self.image.image_id, -1), "a configuration")
        settings = parse_object(data, "a configuration").get("config")
        found = settings.get("Labels") if isinstance(settings, Mapping) else None
        return found if isinstance(found, Mapping) else {}


def find(
    reference: Reference,
    access: Access,
    folder: BlobFolder,
    platform: Platform | None = None,
    progress: Fetching | None = None,
    *,
    alone: bool = False,
) -> Pulled:
    """Find out what a reference means, for a platform or else the machine's; of its layers nothing is read yet.

    ``alone``: layers without their base will do as well as an image.

    Mirrors are asked first. ``progress`` is called with the bytes of layers that have come, and how many are to come.
    Raises `NotFoundError`, `RegistryError`, and `ArchiveError` for what is no image.
    """
    transport = Transport(access)
    repositories: list[Repository] = []
    first: LayerrunError | None = None
    manifest = None
    for place in endpoints(reference, pull=True):
        if place.insecure:
            transport.insecure_hosts.add(place.reference.host)
        repository = Repository(transport, place.reference)
        try:
            manifest = manifest or repository.manifest(reference.wanted)
        except (NotFoundError, RegistryError) as error:
            first = error  # the last is that of the registry itself
            continue
        repositories.append(repository)
    if manifest is None:
        assert first is not None
        raise first
    blobs = RegistryBlobs(repositories, folder, progress)
    blobs.put(manifest.digest, manifest.data)
    start = Descriptor(manifest.digest, len(manifest.data), _announced(manifest.media_type))
    return Pulled(
        image_of(blobs, start, str(reference), platform, alone=alone),
        blobs,
        manifest.digest,
        reference.repository,
    )


def _announced(media_type: str) -> str:
    """Return a Content-Type where it says something: some servers call every document plain JSON."""
    return media_type if media_type in INDEXES | MANIFESTS else ""


class RegistryBlobs:
    """The blobs of an image (`layerrun.images.blobs.Blobs`), in one of several repositories that all have it."""

    def __init__(
        self, repositories: Sequence[Repository], folder: BlobFolder, progress: Fetching | None = None
    ) -> None:
        self._repositories, self._folder, self._progress = repositories, folder, progress
        self._documents: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._come: dict[str, int] = {}
        self._wanted: dict[str, int] = {}
        self._stopped = False

    def put(self, digest: str, data: bytes) -> None:
        """Have a document that was read already."""
        self._documents[digest] = data

    def open(self, descriptor: Descriptor) -> Piece:
        """Return a blob, read first if it is not here; documents are kept in memory, layers in the folder."""
        if (data := self._documents.get(descriptor.digest)) is None and not _is_layer(descriptor):
            data = self._documents[descriptor.digest] = self._document(descriptor)
        if data is not None:
            check_size(descriptor, len(data))
            fd = os.memfd_create("document", os.MFD_CLOEXEC)
            os.write(fd, data)
            return Piece(fd, 0, len(data))
        piece = self._folder.get(descriptor, partial(self._fetch, descriptor))
        try:
            check_size(descriptor, piece.size)
        except ArchiveError:
            # Another document said another size of it: what was read is right, this one is not.
            os.close(piece.fd)
            raise
        return piece

    def _document(self, descriptor: Descriptor) -> bytes:
        """Read a manifest or a configuration; what does not say which it is is looked for as both."""
        as_manifest = descriptor.media_type in INDEXES | MANIFESTS
        last: LayerrunError | None = None
        for repository in self._repositories:
            try:
                if as_manifest:
                    return repository.manifest(descriptor.digest).data
                return self._small(repository, descriptor)
            except (NotFoundError, RegistryError) as error:
                last = error
        if not as_manifest and not descriptor.media_type and isinstance(last, NotFoundError):
            return self._repositories[0].manifest(descriptor.digest).data
        assert last is not None
        raise last

    def _small(self, repository: Repository, descriptor: Descriptor) -> bytes:
        data = repository.small(descriptor.digest, MAX_DOCUMENT)
        kind = descriptor.digest.partition(":")[0]
        if f"{kind}:{hashlib.new(kind, data).hexdigest()}" != descriptor.digest:
            raise RegistryError(f"{repository.reference.host} sends something else than {descriptor.digest}")
        return data

    def _fetch(self, descriptor: Descriptor, file: BufferedRandom) -> None:
        self._wanted.setdefault(descriptor.digest, descriptor.size)
        last: LayerrunError | None = None
        for repository in self._repositories:
            try:
                repository.fetch(
                    descriptor.digest, descriptor.size, file, partial(self._report, descriptor.digest)
                )
            except (NotFoundError, RegistryError) as error:
                last = error
            else:
                return
        assert last is not None
        raise last

    def _report(self, digest: str, count: int) -> None:
        if self._stopped:
            raise RegistryError("another layer could not be read")
        if self._progress is not None:
            with self._lock:
                self._come[digest] = count
                self._progress(sum(self._come.values()), sum(self._wanted.values()))

    def fetch_all(self, descriptors: Sequence[Descriptor], most: int) -> None:
        """Read layers, several at once, so that `open` has them; raises the first error, when all have ended.

        Raises `ArchiveError` before anything is read if they are more than ``most`` bytes: no disk has to hold what
        could not be unpacked.
        """
        if sum(one.size for one in dict.fromkeys(descriptors)) > most:
            raise ArchiveError(f"the layers of the image are more than {most} bytes")
        missing = [one for one in dict.fromkeys(descriptors) if not self._folder.has(one.digest)]
        self._wanted.update((one.digest, one.size) for one in missing)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            futures = [pool.submit(self._come_by, one) for one in missing]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self._stopped = True
                pool.shutdown(cancel_futures=True)
                raise

    def _come_by(self, descriptor: Descriptor) -> None:
        os.close(self.open(descriptor).fd)

    def drop(self, image: Image) -> None:
        """Let the layers of an image go: they are in the store by now, or not wanted."""
        self._folder.drop(layer.blob.digest for layer in image.layers)


def _is_layer(descriptor: Descriptor) -> bool:
    kind: Any = descriptor.media_type
    return ".layer." in kind or ".rootfs." in kind
