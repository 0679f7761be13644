"""Apps from registries: an image becomes a base, the layers above it an app's factory state.

Of an image that layerrun pushed the app is the same again; of any other all layers are the base. What an image asks
for of this machine (shares, devices, sockets, the network) it is not given unless that is wished: who made the image is
somebody else. docs/registries.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.bases.intake import import_base, keep, take_in
from layerrun.bases.manifest import unescape
from layerrun.bases.pulled import PulledSource, open_pulled
from layerrun.errors import ArchiveError, ExistsError, UsageError
from layerrun.fleet.image import APP_LABEL, BASE_LABEL
from layerrun.fleet.writing import MEDIA_TYPES
from layerrun.images.image import Layer as ImageLayer
from layerrun.images.limits import Limits
from layerrun.images.pulling import Pulled
from layerrun.images.reference import is_digest
from layerrun.images.transport import Access
from layerrun.model import HOST_BASE, App, AppConfig, AppKind, Base, Home, IdMode, Layer, check_name
from layerrun.policy import Policy
from layerrun.runtime import apps, identity
from layerrun.runtime.units import dress, layer_folder
from layerrun.store.blob_rows import Blob
from layerrun.store.fs import explain, fsync_dir, open_dir
from layerrun.store.making import Beginning, now
from layerrun.store.staging import new_id
from layerrun.terms import Network, NetworkKind

if TYPE_CHECKING:
    from layerrun.bases.manifest import Progress
    from layerrun.images.platform import Platform
    from layerrun.images.pulling import Fetching
    from layerrun.images.stream import Step
    from layerrun.store.store import Store

__all__ = ["PulledApp", "Wish", "pull_app", "pull_base"]


@attrs.frozen
class Wish:
    """What is wished of a pull.

    ``base_name``: what the base is called if it is made, instead of what the image says; ``grants``: give the app what
    it asks for of this machine as well; ``progress`` and ``fetching``: see `import_base` and `open_pulled`.
    """

    access: Access = attrs.field(factory=Access)
    platform: Platform | None = None
    base_name: str | None = None
    grants: bool = False
    progress: Progress | None = None
    fetching: Fetching | None = None


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


@attrs.frozen
class _Said:
    """What labels say: how many layers are the base's, its digest and name, and the app's configuration."""

    lowest: int
    digest: str | None
    base_name: str
    config: AppConfig | None


def pull_app(store: Store, name: str, text: str, wish: Wish | None = None) -> PulledApp:
    """Make the app ``name`` of the image ``text``, ``oci://…``, and its base if that is not here.

    Raises `ExistsError` if the name is taken, `RegistryError`, `NotFoundError`, `ArchiveError`; then no app is made,
    and a base that was made stays.
    """
    wish = wish or Wish()
    if store.catalog.app(check_name(name)) is not None:
        raise ExistsError(f"the name {name!r} is taken", hint="choose another, or remove that one first")
    with open_pulled(
        store, text, access=wish.access, platform=wish.platform, fetching=wish.fetching
    ) as source:
        said = _said(source.pulled, name)
        base, made = _base(store, name, source, said, wish)
        ids = identity.choose(base)
        config = said.config or AppConfig()
        left_out: list[str] = []
        if not wish.grants:
            config = _without_grants(config, left_out)
        every = source.pulled.image.layers
        layers_of_base, layers = every[: said.lowest], every[said.lowest :]
        config = attrs.evolve(config, base=base.name)
        _remember(store, source, base, layers_of_base if made else ())
        app, privileged = _make(store, name, config, ids, (base, layers, source))
    return PulledApp(app, base, made, source.pulled.digest, tuple(left_out), privileged)


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
        _remember(store, source, made, source.pulled.image.layers)
    return made


def _remember(store: Store, source: PulledSource, base: Base, lowest: tuple[ImageLayer, ...]) -> None:
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


def _said(pulled: Pulled, name: str) -> _Said:
    """Read the labels; an image without them is a base as a whole."""
    labels, count = pulled.labels(), len(pulled.image.layers)
    if not isinstance(labels.get(APP_LABEL), str) or not isinstance(labels.get(BASE_LABEL), str):
        return _Said(count, None, name, None)
    try:
        base, app = json.loads(labels[BASE_LABEL]), json.loads(labels[APP_LABEL])
        if (base["version"], app["version"]) != (1, 1):
            raise ArchiveError("the app was pushed by a newer layerrun", hint="update this one")
        lowest, digest = base["layers"], base["digest"]
        if type(lowest) is not int or not 0 < lowest <= count or not is_digest(digest):
            raise ValueError("its layers or its digest")
        config = AppConfig.from_json({**app["config"], "base": HOST_BASE, "layers": []})
        return _Said(lowest, digest, check_name(base["name"], "name of a base"), config)
    except (ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        raise ArchiveError(
            f"what the image says of its app makes no sense: {error}",
            hint="`layerrun base pull` takes it as a base",
        ) from None


@attrs.frozen
class _Lowest(PulledSource):
    """The base in an image of an app: its lowest layers, which must come to the tree that they are said to be."""

    expected: str | None = None


def _base(store: Store, name: str, source: PulledSource, said: _Said, wish: Wish) -> tuple[Base, bool]:
    """Return the base that the app is to stand on, made of the lowest layers unless it is here."""
    if said.digest is not None:
        for base in store.catalog.bases():
            if base.digest == said.digest:
                return base, False
    wanted = wish.base_name or said.base_name
    if store.catalog.base(wanted) is not None and wish.base_name is None:
        # Another version, or something else altogether, which other apps stand on: that is theirs.
        wanted = _free_name(store, f"{name}-base" if wanted != f"{name}-base" else wanted)
    image = source.pulled.image
    config = image.config
    if said.config is not None:
        own = set(said.config.env)
        cmd = () if said.config.command else config.cmd
        config = attrs.evolve(config, env=tuple(one for one in config.env if one not in own), cmd=cmd)
    lower = attrs.evolve(image, layers=image.layers[: said.lowest], config=config)
    pulled = attrs.evolve(source.pulled, image=lower)
    lowest = _Lowest(pulled, source.text, source.limits, expected=said.digest)
    known = {base.id for base in store.catalog.versions()}
    made = import_base(store, wanted, lowest, progress=wish.progress)
    return made, made.id not in known


def _free_name(store: Store, wanted: str) -> str:
    name, number = wanted, 2
    while store.catalog.base(name) is not None:
        name, number = f"{wanted}-{number}", number + 1
    return check_name(name, "name of a base")


def _without_grants(config: AppConfig, left_out: list[str]) -> AppConfig:
    """Take from a configuration what reaches beyond the app's own files; say what that was."""
    policy = config.policy
    left_out += [f"share {share}" for share in config.shares]
    # A name without a value is a variable of whoever starts the app.
    left_out += [f"env {word}" for word in config.env if "=" not in word]
    env = tuple(word for word in config.env if "=" in word)
    if config.home is Home.SHARE:
        left_out.append("home share")
    for what, values in (
        ("publish", policy.publish),
        ("socket", policy.sockets),
        ("device", policy.devices),
        ("allow", policy.allow),
    ):
        left_out += [f"{what} {value}" for value in values]
    left_out += [f"health {command}" for command in config.health]
    network = policy.network
    asked = policy.grants().network
    if asked.kind not in (NetworkKind.NONE, NetworkKind.PRIVATE):
        # Most presets have the machine's network, too, and its servers on loopback.
        left_out.append(f"network {asked}")
        network = Network(NetworkKind.PRIVATE)
    preset = policy.preset
    if preset == "desktop":
        left_out.append(f"preset {preset}")
        preset = "default"
    kept = Policy(
        preset=preset,
        network=network,
        deny=policy.deny,
        limits=policy.limits,
        user=policy.user,
        max_size=policy.max_size,
    )
    home = Home.OVERLAY if config.home is Home.SHARE else config.home
    return attrs.evolve(config, shares=(), home=home, policy=kept, env=env, health=())


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


def _make(
    store: Store,
    name: str,
    config: AppConfig,
    ids: IdMode,
    of: tuple[Base, tuple[ImageLayer, ...], PulledSource],
) -> tuple[App, tuple[str, ...]]:
    """Take the layers in, each once, and make the app over them; return what in them gives rights, too."""
    base, layers, source = of
    privileged: list[str] = []
    with store.ticket(ids) as ticket:
        missing = [one.blob for one in layers if _known(store, one, ids) is None]
        source.pulled.blobs.fetch_all(missing, source.limits.size)
        found: list[Layer] = []
        fresh: dict[ImageLayer, tuple[Layer, Blob]] = {}  # one layer may be there twice
        try:
            for number, one in enumerate(layers):
                here = fresh[one][0] if one in fresh else _known(store, one, ids)
                if here is None:
                    folder = f"layer-{number}"
                    here = _take(store, ticket.fd, folder, one, (ids, source))
                    fresh[one] = here, _blob(one, here)
                    keep(store, ticket, folder, f"layers/{here.id}")
                found.append(here)
                privileged += _privileged(store, here)
            config = attrs.evolve(config, layers=tuple(layer.id for layer in found))
            return _create(store, name, config, ids, (base, tuple(fresh.values()))), tuple(privileged)
        except BaseException:
            # What is not recorded nobody else takes away as long as we have a ticket.
            ticket.linked = True
            for layer, _ in fresh.values():
                if store.catalog.layer(layer.id) is not None:
                    continue  # the app is made
                with suppress(FileNotFoundError):
                    os.rename(f"layers/{layer.id}", layer.id, src_dir_fd=store.fd, dst_dir_fd=ticket.fd)
            fsync_dir(store.fd, "layers")
            raise


def _known(store: Store, one: ImageLayer, ids: IdMode) -> Layer | None:
    """Return a layer of the store that was pulled from the same blob.

    What the blob is unpacked was said by the jail that read it, so that alone would be any layer's word for any other.
    """
    for layer in store.catalog.layers():
        said = layer.origin.get("blob"), layer.origin.get("diff_id")
        if layer.ids is ids and said == (one.blob.digest, one.diff_id):
            return layer
    return None


def _take(
    store: Store, ticket_fd: int, folder: str, one: ImageLayer, of: tuple[IdMode, PulledSource]
) -> Layer:
    ids, source = of
    summary, _ = take_in(store, ticket_fd, folder, _One(source, one), ids, rooted=False, marks=True)
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


def _create(
    store: Store,
    name: str,
    config: AppConfig,
    ids: IdMode,
    of: tuple[Base, tuple[tuple[Layer, Blob], ...]],
) -> App:
    """Make the app, and record with it the layers that are new: before, another process would drop them as unused."""
    base, fresh = of
    model = App("", name, AppKind.APP, config, ids, None, "", 1)

    def dressed(dir_fd: int, path: str) -> None:
        with ExitStack() as opened:
            data = open_dir(dir_fd, path)
            opened.callback(os.close, data)
            for layer in config.layers[-1:]:
                dress(model, data, opened.enter_context(layer_folder(store, layer)))

    def recorded(_app_id: str) -> None:
        found = store.catalog.base(base.name)
        if found is None or found.id != base.id:
            raise UsageError(f"the base {base.name!r} was switched meanwhile", hint="pull again")
        for _, blob in fresh:
            store.catalog.add_blob(blob)

    begin = Beginning((), dressed, recorded, tuple(layer for layer, _ in fresh))
    return apps.create(store, name, config, ids=ids, begin=begin)
