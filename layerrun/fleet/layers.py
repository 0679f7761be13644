"""The layers of an app from a registry: each is taken in once, beside all that is there; nothing is recorded here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.bases.intake import keep, renew_objects, take_in
from layerrun.bases.manifest import unescape
from layerrun.bases.pulled import PulledSource
from layerrun.images.image import Layer as ImageLayer
from layerrun.images.limits import Limits
from layerrun.model import IdMode, Layer
from layerrun.native.syscalls import syncfs
from layerrun.runtime.units import layer_folder
from layerrun.store.blob_rows import Blob
from layerrun.store.fs import explain, fsync_dir
from layerrun.store.making import now
from layerrun.store.staging import new_id

if TYPE_CHECKING:
    from layerrun.images.stream import Step
    from layerrun.store.staging import Ticket
    from layerrun.store.store import Store

__all__ = ["Taken", "known_layer", "taken"]


@attrs.frozen
class Taken:
    """Layers of the store, the lowest first, and which of them are new, to be recorded with what stands on them.

    ``privileged`` are files in them that give rights to whoever runs them (setuid, setgid, file capabilities).
    """

    layers: tuple[Layer, ...]
    fresh: tuple[tuple[Layer, Blob], ...]
    privileged: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """Their ids."""
        return tuple(layer.id for layer in self.layers)


@contextmanager
def taken(store: Store, ids: IdMode, layers: Sequence[ImageLayer], source: PulledSource) -> Iterator[Taken]:
    """Take layers in for an app with such ids; those that are new must be recorded within the block.

    A ticket is held meanwhile: else who cleans up would drop them as unused. Those that are not recorded in the end
    go again.
    """
    privileged: list[str] = []
    with store.ticket(ids) as ticket:
        missing = [one.blob for one in layers if known_layer(store, one, ids) is None]
        source.pulled.blobs.fetch_all(missing, source.limits.size)
        found: list[Layer] = []
        fresh: dict[ImageLayer, tuple[Layer, Blob]] = {}  # one layer may be there twice
        try:
            for number, one in enumerate(layers):
                here = fresh[one][0] if one in fresh else known_layer(store, one, ids)
                if here is None:
                    folder = f"layer-{number}"
                    anew = any("spoilt" in twin.origin for twin in _pulled_from(store, one, ids))
                    here = _take(store, ticket.fd, folder, one, (ids, source), anew=anew)
                    fresh[one] = here, _blob(one, here)
                    if anew:  # the files that the spoilt one shares are spoilt as well
                        syncfs(ticket.fd)
                        renew_objects(store, ticket)
                    keep(store, ticket, folder, f"layers/{here.id}")
                found.append(here)
                privileged += _privileged(store, here)
            yield Taken(tuple(found), tuple(fresh.values()), tuple(privileged))
        finally:
            _drop(store, ticket, [layer for layer, _ in fresh.values()])


def _drop(store: Store, ticket: Ticket, fresh: Sequence[Layer]) -> None:
    """Take back the layers that nobody has recorded: as long as there is a ticket nobody else takes them away."""
    left = [layer for layer in fresh if store.catalog.layer(layer.id) is None]
    if not left:
        return
    ticket.linked = True
    for layer in left:
        with suppress(FileNotFoundError):
            os.rename(f"layers/{layer.id}", layer.id, src_dir_fd=store.fd, dst_dir_fd=ticket.fd)
    fsync_dir(store.fd, "layers")


@attrs.frozen
class _One:
    """A single layer of an image as a source."""

    source: PulledSource
    layer: ImageLayer
    limits: Limits = attrs.field(factory=Limits)

    @property
    def text(self) -> str:
        return self.source.text

    def ids(self, *, rootless: bool) -> IdMode:
        return self.source.ids(rootless=rootless)

    def plan(self, known: frozenset[str]) -> Sequence[Step]:
        return self._alone().plan(known)

    def feed(self, to: Any) -> Mapping[str, Any]:
        return self._alone().feed(to)

    def _alone(self) -> PulledSource:
        image = attrs.evolve(self.source.pulled.image, layers=(self.layer,))
        return PulledSource(attrs.evolve(self.source.pulled, image=image), self.text, self.limits)


def known_layer(store: Store, one: ImageLayer, ids: IdMode) -> Layer | None:
    """Return a layer of the store that was pulled from the same blob, and that nobody has found spoilt."""
    return next((layer for layer in _pulled_from(store, one, ids) if "spoilt" not in layer.origin), None)


def _pulled_from(store: Store, one: ImageLayer, ids: IdMode) -> list[Layer]:
    """Return the layers that were pulled from the same blob.

    What the blob is unpacked was said by the jail that read it, so that alone would be any layer's word for any other.
    """
    wanted = one.blob.digest, one.diff_id
    return [
        layer
        for layer in store.catalog.layers()
        if layer.ids is ids and (layer.origin.get("blob"), layer.origin.get("diff_id")) == wanted
    ]


def _take(
    store: Store, ticket_fd: int, folder: str, one: ImageLayer, of: tuple[IdMode, PulledSource], *, anew: bool
) -> Layer:
    ids, source = of
    summary, _ = take_in(
        store, ticket_fd, folder, _One(source, one), ids, rooted=False, anew=anew, marks=True
    )
    with explain("write a layer of", source.text):
        fd = os.open(
            f"{folder}/roots", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=ticket_fd
        )
        os.close(fd)
    origin = {"reference": source.text, "diff_id": one.diff_id, "blob": one.blob.digest}
    return Layer(new_id(), ids, now(), summary.digest, summary.entries, summary.size, origin)


def _blob(one: ImageLayer, layer: Layer) -> Blob:
    """Return what the layer is in the registry: pushed again, it is that and nothing new."""
    return Blob(one.blob.digest, one.diff_id, one.blob.size, one.blob.media_type, f"layer:{layer.id}")


def _privileged(store: Store, layer: Layer) -> list[str]:
    """Return the files of a layer that give rights, by its manifest."""
    with layer_folder(store, layer.id) as folder:
        fd = os.open("manifest", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    found = []
    with os.fdopen(fd, "rb") as file:
        for line in file:
            parts = line.rstrip(b"\n").split(b" ")
            capable = any(part.startswith(b"security.capability=") for part in parts[6:])
            if parts[0] == b"f" and (int(parts[1], 8) & 0o6000 or capable):
                found.append("/" + os.fsdecode(unescape(parts[5])))
    return found
