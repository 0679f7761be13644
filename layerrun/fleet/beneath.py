"""The base that a pulled app stands on: found by its digest, or made of the lowest layers of its image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from layerrun.bases.intake import import_base
from layerrun.bases.pulled import PulledSource
from layerrun.errors import NotFoundError, UsageError
from layerrun.fleet.image import running_system
from layerrun.fleet.labels import Said
from layerrun.model import HOST_BASE, Base, check_name

if TYPE_CHECKING:
    from layerrun.fleet.wish import Wish
    from layerrun.store.store import Store

__all__ = ["base_here", "base_of", "lowest_of", "name_of_new"]


@attrs.frozen
class _Lowest(PulledSource):
    """The base in an image of an app: its lowest layers, which must come to the tree that they are said to be."""

    expected: str | None = None


def base_here(store: Store, source: PulledSource, said: Said, wish: Wish) -> Base | None:
    """Return the base of the store that an app of an image is to stand on, by its digest; ``None`` if it is to be made.

    Layers alone have no other, but for the one that is wished: for them this raises `NotFoundError`, `UsageError`.
    """
    return _beneath(store, said, wish) if source.pulled.image.alone else _here(store, said)


def base_of(store: Store, name: str, source: PulledSource, said: Said, wish: Wish) -> tuple[Base, bool]:
    """Return the base that the app ``name`` is to stand on, and whether it was made, of the lowest layers."""
    here = base_here(store, source, said, wish)
    if here is not None:
        return here, False
    known = {base.id for base in store.catalog.versions()}
    lowest = lowest_of(source, said)
    made = import_base(store, name_of_new(store, name, said, wish), lowest, progress=wish.progress)
    return made, made.id not in known


def name_of_new(store: Store, name: str, said: Said, wish: Wish) -> str:
    """Return what the base of the app ``name`` is called if it is made."""
    wanted = wish.base_name or said.base_name
    if store.catalog.base(wanted) is not None and wish.base_name is None:
        # Another version, or something else altogether, which other apps stand on: that is theirs.
        wanted = _free_name(store, f"{name}-base" if wanted != f"{name}-base" else wanted)
    return wanted


def lowest_of(source: PulledSource, said: Said) -> PulledSource:
    """Return the base in an image of an app as a source: what the app brings itself is not the base's."""
    image = source.pulled.image
    config = image.config
    if said.config is not None:
        own = set(said.config.env)
        cmd = () if said.config.command else config.cmd
        config = attrs.evolve(config, env=tuple(one for one in config.env if one not in own), cmd=cmd)
    lower = attrs.evolve(image, layers=image.layers[: said.lowest], config=config)
    pulled = attrs.evolve(source.pulled, image=lower)
    return _Lowest(pulled, source.text, source.limits, expected=said.digest)


def _here(store: Store, said: Said) -> Base | None:
    """Return the current version of a base that has the digest that an image names."""
    if said.digest is None:
        return None
    return next((base for base in store.catalog.bases() if base.digest == said.digest), None)


def _beneath(store: Store, said: Said, wish: Wish) -> Base:
    """Return the base for layers that came alone. Raises `NotFoundError`, `UsageError`, which say what they are for."""
    if wish.base_name is not None:
        return store.base(wish.base_name)
    if said.digest is None:
        here = running_system()
        if said.machine != here:
            raise UsageError(
                f"these layers lie over the / of a machine with {said.machine or 'another system'}, and this is {here}",
                hint="--base host puts them over this machine's / all the same",
            )
        return store.base(HOST_BASE)
    found = _here(store, said)
    if found is not None:
        return found
    for old in store.catalog.versions():
        if old.digest == said.digest:
            raise NotFoundError(
                f"these layers lie over {old.full_name}, and {old.name!r} is at another version",
                hint=f"layerrun base switch {old.name} {old.version}, or choose any by --base",
            )
    where = f"layerrun base pull {said.base_name} {said.source}, or " if said.source else ""
    raise NotFoundError(
        f"these layers lie over the base {said.base_name!r} ({said.digest}), which is not here",
        hint=f"{where}get that first, or choose another by --base",
    )


def _free_name(store: Store, wanted: str) -> str:
    name, number = wanted, 2
    while store.catalog.base(name) is not None:
        name, number = f"{wanted}-{number}", number + 1
    return check_name(name, "name of a base")
