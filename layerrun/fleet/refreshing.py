"""A pulled app brought to what its image is now: imported beside, then in one transaction; what it has written stays.

Where the base is another one, that is an update of the base (`layerrun.updates.update`), with the app's layers going
along: checks, one switch, what runs keeps what it has, `base rollback` takes it back. Where only its layers are others,
it must not run, and what it was is a snapshot. docs/registries.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from layerrun.bases.pulled import PulledSource, open_pulled
from layerrun.errors import BusyError, ConflictError, LayerrunError, UsageError
from layerrun.fleet.beneath import lowest_of
from layerrun.fleet.labels import Said, said_of, without_grants
from layerrun.fleet.layers import Taken, known_layer, taken
from layerrun.fleet.planning import Fetches, looked_at, of_app, of_base
from layerrun.fleet.pull import remember
from layerrun.fleet.wish import Wish
from layerrun.images.image import Layer as ImageLayer
from layerrun.model import HOST_BASE, App, AppKind, Base
from layerrun.runtime import snapshots
from layerrun.store import profiles
from layerrun.store.blob_rows import Pull
from layerrun.store.freezing import Restack, drop_unused
from layerrun.store.making import now
from layerrun.store.plans import forget_plan

if TYPE_CHECKING:
    from layerrun.bases.manifest import Progress
    from layerrun.store.store import Store
    from layerrun.updates.shadows import Shadow
    from layerrun.updates.switching import Rebuilt, Switched
    from layerrun.updates.update import Found

__all__ = ["Newer", "Refreshed", "look", "refresh"]


@attrs.frozen
class Newer:
    """What an app's image is now, against what the app has.

    ``layers`` are those of the image above its base, ``own`` the ids of layers that were committed above those that
    were pulled, and stay; ``new_base``: the base is another one; ``new_layers``: the layers are. ``differs``: settings
    that the image has otherwise than the app, which keeps its own. ``apps``: the names of the others that a new base
    moves.
    """

    app: App
    base: Base
    reference: str
    digest: str
    said: Said
    layers: tuple[ImageLayer, ...]
    own: tuple[str, ...]
    new_base: bool
    new_layers: bool
    differs: tuple[str, ...]
    apps: tuple[str, ...] = ()

    @property
    def is_new(self) -> bool:
        """Whether anything would change."""
        return self.new_base or self.new_layers


@attrs.frozen
class Refreshed:
    """What became of an app: ``found`` and ``switched`` are of its base, if that was another one.

    ``snapshot`` is the number of the one that the app was before, else. ``hidden`` are files of the app that hide what
    changed; ``privileged`` as of `layerrun.fleet.layers.Taken`.
    """

    newer: Newer
    app: App
    found: Found | None = None
    switched: Switched | None = None
    snapshot: int | None = None
    hidden: tuple[Shadow, ...] = ()
    privileged: tuple[str, ...] = ()


Told = Callable[[str], None]
# What is about to change, the base's part of it, and what the app hides of that.
Agree = Callable[[Newer, "Found | None", "Sequence[Shadow]"], bool]


def look(store: Store, name: str, text: str | None, wish: Wish) -> tuple[Newer, Fetches]:
    """Say what bringing an app to its image would change and read; only documents are read. Raises as `refresh`."""
    app, place = _app(store, name, text)
    with looked_at(store, place, wish) as (source, folder):
        newer = _compare(store, app, source, wish)
        lowest = source.pulled.image.layers[: newer.said.lowest]
        parts = of_base(store, folder, source, lowest, here=not newer.new_base)
        parts += of_app(store, folder, newer.layers, app.ids)
        return newer, Fetches(newer.digest, newer.base.name, not newer.new_base, tuple(parts))


def refresh(
    store: Store,
    name: str,
    text: str | None,
    wish: Wish,
    *,
    agree: Agree,
    told: Told,
) -> Refreshed:
    """Bring an app to what an image is now: ``text``, or the one that it was pulled from.

    ``agree`` is asked before anything changes; after a no, and after a failure of any kind, everything is as it was.
    Its configuration stays. Raises `ConflictError` where the image does not fit the app, `BusyError`, `HealthError`,
    and as `layerrun.fleet.pull.pull_app`.
    """
    app, place = _app(store, name, text)
    with open_pulled(
        store, place, access=wish.access, platform=wish.platform, fetching=wish.fetching, alone=True
    ) as source:
        newer = _compare(store, app, source, wish)
        if newer.new_base:
            done = _with_base(store, newer, source, wish.progress, (agree, told))
        elif newer.new_layers:
            done = _layers_alone(store, newer, source, agree)
        else:
            done = Refreshed(newer, app)
    with store.catalog.transaction():
        store.catalog.set_pull(app.id, Pull(newer.reference, newer.digest, len(newer.layers), now()))
    drop_unused(store)
    return attrs.evolve(done, app=store.app_again(app))


def _app(store: Store, name: str, text: str | None) -> tuple[App, str]:
    """Return an app and the reference that it is to be brought to."""
    app = store.app(name)
    if app.kind is not AppKind.APP or app.parent is not None:
        what = "a profile" if app.parent is not None else "a throwaway"
        raise UsageError(f"{name!r} is {what}, and was not pulled")
    if "@" in app.config.base:
        raise UsageError(
            f"{name!r} has gone back to {app.config.base}, since it did not start over the version after that",
            hint="`layerrun status` says more; `layerrun base rollback` or `base update` moves it on",
        )
    pull = store.catalog.pull(app.id)
    if text is None and pull is None:
        raise UsageError(
            f"{name!r} was not pulled, or by a layerrun that did not note from where",
            hint=f"layerrun pull --update {name} oci://HOST/NAME:TAG",
        )
    return app, text if text is not None else str(pull and pull.reference)


def _compare(store: Store, app: App, source: PulledSource, wish: Wish) -> Newer:
    image, base = source.pulled.image, store.base(app.config.base)
    said = said_of(source.pulled, app.name)
    if image.alone:
        _check_beneath(app, base, said, wish)
    elif base.name == HOST_BASE:
        raise ConflictError(
            f"{app.name!r} stands on this machine's own /, and the image has a base",
            hint="pull it as another app",
        )
    elif wish.base_name not in (None, base.name):
        raise UsageError(
            f"--base {wish.base_name}: the image has its own base, and {app.name!r} stands on {base.name!r}",
            hint="leave --base out, or pull it as another app",
        )
    known = said.digest == base.digest if said.digest else base.origin.get("digest") == image.digest
    layers = image.layers[said.lowest :]
    have = _pulled_layers(store, app)
    own = app.config.layers[len(have) :]
    pull = store.catalog.pull(app.id)
    if own and not have and pull is not None and pull.layers:
        raise ConflictError(
            f"the layers of {app.name!r} are no more those that were pulled: they were made one, or other ones",
            hint="pull the image as another app",
        )
    same = have == tuple(
        layer.id for one in layers if (layer := known_layer(store, one, app.ids)) is not None
    )
    new_base = not image.alone and not known
    return Newer(
        app,
        base,
        source.text,
        source.pulled.digest,
        said,
        layers,
        own,
        new_base=new_base,
        new_layers=not same or len(have) != len(layers),
        differs=_differs(app, said, wish),
        apps=_others(store, app, base) if new_base else (),
    )


def _others(store: Store, app: App, base: Base) -> tuple[str, ...]:
    """Return the names of the other apps that go along with a base, profiles not counted."""
    found = (store.catalog.app_by_id(id_) for id_ in store.catalog.slot_apps(base.name))
    return tuple(
        sorted(one.name for one in found if one is not None and one.parent is None and one.id != app.id)
    )


def _check_beneath(app: App, base: Base, said: Said, wish: Wish) -> None:
    """Raise `ConflictError` if layers that came alone are for another base than the app stands on."""
    if wish.base_name == base.name or (said.digest == base.digest and said.digest is not None):
        return
    if said.digest is None and base.name == HOST_BASE:
        return
    raise ConflictError(
        f"the layers lie over {said.base_name!r} ({said.digest or said.machine}), and {app.name!r} stands on"
        f" {base.full_name}",
        hint=f"bring that to the same by `layerrun base update`, or insist by --base {base.name}",
    )


def _pulled_layers(store: Store, app: App) -> tuple[str, ...]:
    """Return the layers at the bottom of an app's factory state that came from a registry."""
    found: list[str] = []
    for id_ in app.config.layers:
        layer = store.catalog.layer(id_)
        if layer is None or "blob" not in layer.origin:
            break
        found.append(id_)
    return tuple(found)


def _differs(app: App, said: Said, wish: Wish) -> tuple[str, ...]:
    if said.config is None:
        return ()
    config = said.config if wish.grants else without_grants(said.config, [])
    theirs, ours = config.to_json(), app.config.to_json()
    return tuple(sorted(key for key in ours if key not in ("base", "layers") and ours[key] != theirs[key]))


def _record(store: Store, found: Taken) -> None:
    """Record the layers that are new; within a transaction."""
    for layer, blob in found.fresh:
        store.catalog.add_layer(layer)
        store.catalog.add_blob(blob)


def _with_base(
    store: Store, newer: Newer, source: PulledSource, progress: Progress | None, asking: tuple[Agree, Told]
) -> Refreshed:
    """Bring the base to the image's as its next version, and the app's layers with it."""
    from layerrun.bases.intake import import_base
    from layerrun.updates.shadows import layer_shadows
    from layerrun.updates.update import Wanted, update

    app, name = newer.app, newer.base.name
    if store.catalog.channel(name) is not None:
        raise ConflictError(
            f"the base {name!r} follows a channel, and the image has another base: nobody has signed that",
            hint=f"layerrun pull NAME IMAGE, as another app; or layerrun base unfollow {name}",
        )
    agree, told = asking
    privileged: list[str] = []
    noted: list[str] = []
    of_layers: list[Shadow] = []

    def bring() -> Base:
        made = import_base(store, name, lowest_of(source, newer.said), progress=progress, version=True)
        remember(store, source, made, ())
        return made

    def layers(new: Base) -> Mapping[str, Rebuilt]:
        with taken(store, app.ids, newer.layers, source) as found, store.catalog.transaction():
            _record(store, found)
            slot = store.catalog.slot(name)
            if slot is not None and slot.pending == new.id:
                store.catalog.set_fit(app.id, new.id, found.ids + newer.own)
                noted.append(new.id)
            else:
                # What fits a version that was here before is what a rollback goes to, until the switch.
                store.catalog.add_uses(app.id, found.ids + newer.own)
        if newer.new_layers:
            of_layers.extend(layer_shadows(store, app, found.ids + newer.own))
        privileged.extend(found.privileged)
        return {app.id: (app.config.layers, found.ids + newer.own)}

    def agreed(found: Found) -> bool:
        return agree(newer, hiding(found), hiding(found).hidden.get(app.name, ()))

    def hiding(found: Found) -> Found:
        """Add what the app hides of its own layers to what it hides of the base."""
        own = {one.path: one for one in (*of_layers, *found.hidden.get(app.name, ()))}
        mine = {app.name: [own[path] for path in sorted(own)]} if own else {}
        return attrs.evolve(found, hidden={**found.hidden, **mine})

    try:
        found, switched = update(store, name, bring, Wanted(), agree=agreed, told=told, layers=layers)
    except BaseException:
        with store.catalog.transaction():
            for id_ in noted:
                store.catalog.delete_fit(app.id, id_)
        drop_unused(store)
        raise
    found = hiding(found)
    hidden = tuple(found.hidden.get(app.name, ()))
    return Refreshed(newer, app, found, switched, hidden=hidden, privileged=tuple(privileged))


def _layers_alone(store: Store, newer: Newer, source: PulledSource, agree: Agree) -> Refreshed:
    """Give an app that does not run other layers over the same base; what it was before becomes a snapshot."""
    from layerrun.updates.shadows import layer_shadows

    # The locks are not held for as long as that takes.
    missing = [one.blob for one in newer.layers if known_layer(store, one, newer.app.ids) is None]
    source.pulled.blobs.fetch_all(missing, source.limits.size)
    with profiles.locked(store, newer.app, "bring to its image") as family:
        app = family[0]
        if (app.config, app.base_id) != (newer.app.config, newer.app.base_id):
            raise BusyError(f"{app.name!r} was changed meanwhile", hint="try again")
        snapshots.check_freezable(store, app)
        with taken(store, app.ids, newer.layers, source) as found:
            layers = found.ids + newer.own
            hidden = layer_shadows(store, app, layers)
            if not agree(newer, None, hidden):
                raise LayerrunError("stopped: the answer was no, and nothing was done")
            for one in family:
                forget_plan(store, one.name)
            made = snapshots.exchange(store, app, Restack(snapshot=True))
            with store.catalog.transaction():
                profiles.check_complete(store, family)
                if store.app_again(app).base_id != app.base_id:
                    raise BusyError(f"the base of {app.name!r} was switched meanwhile", hint="try again")
                _record(store, found)
                # One that was here already may have gone with the app that held it, while the question was open.
                if any(store.catalog.layer(one) is None for one in layers):
                    raise BusyError(f"a layer for {app.name!r} was removed meanwhile", hint="try again")
                store.catalog.set_stack(app.id, store.app_again(app).frozen, layers)
                if app.base_id is not None:
                    store.catalog.set_fit(app.id, app.base_id, layers)
    number = None if made is None else made.number
    return Refreshed(newer, app, snapshot=number, hidden=tuple(hidden), privileged=found.privileged)
