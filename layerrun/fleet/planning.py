"""What a pull would read: asked of the registry, and of what is here; nothing is read but documents."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from layerrun.bases.intake import known_layers, scheme_of
from layerrun.bases.pulled import PulledSource, blob_folder
from layerrun.errors import ExistsError
from layerrun.fleet.beneath import base_here, name_of_new
from layerrun.fleet.labels import said_of
from layerrun.fleet.layers import known_layer
from layerrun.images.image import Layer
from layerrun.images.limits import Limits
from layerrun.images.pulling import find
from layerrun.images.reference import Reference
from layerrun.model import IdMode, check_name
from layerrun.runtime import identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerrun.fleet.wish import Wish
    from layerrun.images.blobstore import BlobFolder
    from layerrun.store.store import Store

__all__ = ["Fetch", "Fetches", "looked_at", "of_app", "of_base", "plan_app", "plan_base"]


@attrs.frozen
class Fetch:
    """A layer of an image: its digest, its bytes, how many of these would be read, and if it is its base's."""

    digest: str
    size: int
    missing: int
    of_base: bool


@attrs.frozen
class Fetches:
    """What a pull would read: ``digest`` is what the reference stands for, ``base`` the name of the base.

    ``base_here``: that is in the store already. The layers are the lowest first.
    """

    digest: str
    base: str
    base_here: bool
    layers: tuple[Fetch, ...]

    @property
    def missing(self) -> int:
        """The bytes that would be read."""
        return sum(one.missing for one in {one.digest: one for one in self.layers}.values())


@contextmanager
def looked_at(store: Store, text: str, wish: Wish) -> Iterator[tuple[PulledSource, BlobFolder]]:
    """Find an image, and leave what has come of it by another pull where it is."""
    with blob_folder(store) as folder:
        pulled = find(Reference.parse(text), wish.access, folder, wish.platform, alone=True)
        yield PulledSource(pulled, text, Limits()), folder


def plan_app(store: Store, name: str, text: str, wish: Wish) -> Fetches:
    """Say what pulling the app ``name`` would read. Raises as `layerrun.fleet.pull.pull_app` where that is known."""
    if store.catalog.app(check_name(name)) is not None:
        raise ExistsError(f"the name {name!r} is taken", hint="choose another, or remove that one first")
    with looked_at(store, text, wish) as (source, folder):
        said = said_of(source.pulled, name)
        base = base_here(store, source, said, wish)
        layers = source.pulled.image.layers
        ids = identity.choose(base) if base is not None else source.ids(rootless=store.rootless)
        parts = of_base(store, folder, source, layers[: said.lowest], here=base is not None)
        parts += of_app(store, folder, layers[said.lowest :], ids)
        named = base.name if base is not None else name_of_new(store, name, said, wish)
        return Fetches(source.pulled.digest, named, base is not None, tuple(parts))


def plan_base(store: Store, name: str, text: str, wish: Wish) -> Fetches:
    """Say what pulling the base ``name`` would read."""
    known = store.catalog.base(check_name(name, "name of a base"))
    with looked_at(store, text, wish) as (source, folder):
        image = source.pulled.image
        here = known is not None and known.origin.get("digest") == image.digest
        parts = of_base(store, folder, source, image.layers, here=here)
        return Fetches(source.pulled.digest, name, here, tuple(parts))


def of_base(
    store: Store, folder: BlobFolder, source: PulledSource, layers: Sequence[Layer], *, here: bool
) -> list[Fetch]:
    """Return what reading the layers of a base comes to; of those that were unpacked once the store has records."""
    known = known_layers(store, scheme_of(source.ids(rootless=store.rootless)))
    return [_fetch(folder, one, here=here or one.key in known, of_base=True) for one in layers]


def of_app(store: Store, folder: BlobFolder, layers: Sequence[Layer], ids: IdMode) -> list[Fetch]:
    """Return what reading the layers of an app with such ids comes to."""
    return [
        _fetch(folder, one, here=known_layer(store, one, ids) is not None, of_base=False) for one in layers
    ]


def _fetch(folder: BlobFolder, one: Layer, *, here: bool, of_base: bool) -> Fetch:
    size = one.blob.size
    return Fetch(one.blob.digest, size, 0 if here else max(size - folder.have(one.blob.digest), 0), of_base)
