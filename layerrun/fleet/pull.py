"""Apps from registries: an image becomes a base, the layers above it an app's factory state.

Of an image that layerrun pushed the app is the same again; of any other all layers are the base. What an image asks
for of this machine (shares, devices, sockets, the network) it is not given unless that is wished: who made the image is
somebody else. docs/registries.md.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import attrs

from layerrun.bases.intake import import_base
from layerrun.bases.pulled import PulledSource, open_pulled
from layerrun.errors import ExistsError, UsageError
from layerrun.fleet.beneath import base_of
from layerrun.fleet.labels import said_of, without_grants
from layerrun.fleet.layers import Taken, taken
from layerrun.fleet.wish import Wish
from layerrun.fleet.writing import MEDIA_TYPES
from layerrun.images.image import Layer as ImageLayer
from layerrun.model import App, AppConfig, AppKind, Base, IdMode, check_name
from layerrun.runtime import apps, identity
from layerrun.runtime.units import dress, layer_folder
from layerrun.store.blob_rows import Blob, Pull
from layerrun.store.fs import open_dir
from layerrun.store.making import Beginning, now

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["PulledApp", "Wish", "pull_app", "pull_base", "remember"]


@attrs.frozen
class PulledApp:
    """What a pull has made: ``base_made`` says whether the base was not here before.

    ``left_out`` are what the app had and was not given, in words; ``privileged`` are files of its layers that give
    rights to whoever runs them (setuid, setgid, file capabilities), as paths inside.
    """

    app: App
    base: Base
    base_made: bool
    digest: str
    left_out: tuple[str, ...]
    privileged: tuple[str, ...]


def pull_app(store: Store, name: str, text: str, wish: Wish | None = None) -> PulledApp:
    """Make the app ``name`` of the image ``text``, ``oci://…``, and its base if that is not here.

    Raises `ExistsError` if the name is taken, `RegistryError`, `NotFoundError`, `ArchiveError`; then no app is made,
    and a base that was made stays.
    """
    wish = wish or Wish()
    if store.catalog.app(check_name(name)) is not None:
        raise ExistsError(
            f"the name {name!r} is taken",
            hint=f"choose another, or `layerrun pull --update {name}` brings it to a newer image",
        )
    with open_pulled(
        store, text, access=wish.access, platform=wish.platform, fetching=wish.fetching, alone=True
    ) as source:
        said = said_of(source.pulled, name)
        base, made = base_of(store, name, source, said, wish)
        ids = identity.choose(base)
        config = said.config or AppConfig()
        left_out: list[str] = []
        if not wish.grants:
            config = without_grants(config, left_out)
        every = source.pulled.image.layers
        layers_of_base, layers = every[: said.lowest], every[said.lowest :]
        config = attrs.evolve(config, base=base.name)
        remember(store, source, base, layers_of_base if made else ())
        pull = Pull(text, source.pulled.digest, len(layers), now())
        with taken(store, ids, layers, source) as found:
            app = _create(store, name, attrs.evolve(config, layers=found.ids), ids, (base, found, pull))
    return PulledApp(app, base, made, source.pulled.digest, tuple(left_out), found.privileged)


def pull_base(store: Store, name: str, text: str, wish: Wish | None = None) -> Base:
    """Make the base ``name`` of the image ``text``, ``oci://…``; see `import_base` and `open_pulled`."""
    wish = wish or Wish()
    with open_pulled(
        store, text, access=wish.access, platform=wish.platform, fetching=wish.fetching
    ) as source:
        known = store.catalog.base(check_name(name, "name of a base"))
        if known is not None and known.origin.get("digest") == source.pulled.image.digest:
            return known  # the very same image
        made = import_base(store, name, source, progress=wish.progress)
        remember(store, source, made, source.pulled.image.layers)
    return made


def remember(store: Store, source: PulledSource, base: Base, lowest: tuple[ImageLayer, ...]) -> None:
    """Note what the registry has, so that it is not sent there again: it may be mounted from one repository to another.

    A base is what a single layer came to, and nothing that was known of it before is replaced. ``lowest`` are layers
    that were read: of a base that was here already the image only says that they are that.
    """
    with store.catalog.transaction():
        for layer in source.pulled.image.layers:
            store.catalog.add_place(layer.blob.digest, source.pulled.repository)
        if len(lowest) == 1 and base.digest and lowest[0].blob.media_type in MEDIA_TYPES.values():
            only = lowest[0]
            if store.catalog.blob(base.digest, only.blob.media_type) is None:
                store.catalog.add_blob(
                    Blob(only.blob.digest, only.diff_id, only.blob.size, only.blob.media_type, base.digest)
                )


def _create(
    store: Store,
    name: str,
    config: AppConfig,
    ids: IdMode,
    of: tuple[Base, Taken, Pull],
) -> App:
    """Make the app, and record with it the layers that are new: before, another process would drop them as unused."""
    base, found, pull = of
    model = App("", name, AppKind.APP, config, ids, None, "", 1)

    def dressed(dir_fd: int, path: str) -> None:
        with ExitStack() as opened:
            data = open_dir(dir_fd, path)
            opened.callback(os.close, data)
            for layer in config.layers[-1:]:
                dress(model, data, opened.enter_context(layer_folder(store, layer)))

    def recorded(app_id: str) -> None:
        current = store.base(base.name)
        if current.id != base.id:
            raise UsageError(f"the base {base.name!r} was switched meanwhile", hint="pull again")
        for _, blob in found.fresh:
            store.catalog.add_blob(blob)
        store.catalog.set_pull(app_id, pull)

    begin = Beginning((), dressed, recorded, tuple(layer for layer, _ in found.fresh))
    return apps.create(store, name, config, ids=ids, begin=begin)
