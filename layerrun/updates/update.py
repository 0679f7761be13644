"""``base update``: the next version is imported beside the current one, looked at, and only then switched to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

import attrs

from layerrun.bases import versions
from layerrun.errors import BuildError, HealthError, LayerrunError, NotFoundError, UsageError
from layerrun.model import HOST_BASE, Base
from layerrun.store.making import now
from layerrun.store.store import Store
from layerrun.updates import health, shadows, switching
from layerrun.updates.guard import updating
from layerrun.updates.health import Check, Outcome
from layerrun.updates.shadows import Shadow
from layerrun.updates.switching import Rebuilt, Switched

__all__ = ["Found", "Wanted", "update"]

# Of what a check that failed has said, the last ones are told.
_LINES = 20


@attrs.frozen
class Wanted:
    """What an update is to do.

    ``checks`` are commands beside those that the base and its apps have; ``timeout`` in seconds, for each of them.
    ``network``: that of the checks that belong to no app (``none``, ``host`` or ``private``). ``tries``: how many
    starts of an app fail after the switch until it goes back by itself. ``stage``: the switch is left to the next start
    of an app of the base. ``dry_run``: look, and change nothing.
    """

    checks: Sequence[str] = ()
    timeout: float = health.TIMEOUT
    network: str = health.NETWORK
    tries: int = switching.TRIES
    stage: bool = False
    dry_run: bool = False

    def __attrs_post_init__(self) -> None:
        if self.network not in health.NETWORKS:
            raise UsageError(
                f"bad network {self.network!r} for checks", hint="one of " + ", ".join(health.NETWORKS)
            )
        if self.tries < 1 or self.timeout <= 0:
            raise UsageError("an app is tried at least once, and a check takes some time")


@attrs.frozen
class Found:
    """What an update has found, before it switches.

    ``changed`` is how many paths differ between the versions; ``outcomes`` are those of the checks, in order;
    ``hidden`` is by the name of the app; ``rebuilt`` are apps whose layers were built anew.
    """

    old: Base
    new: Base
    changed: int = 0
    outcomes: tuple[Outcome, ...] = ()
    hidden: Mapping[str, Sequence[Shadow]] = attrs.field(factory=dict)
    rebuilt: tuple[str, ...] = ()


def _agree(_found: Found) -> bool:
    return True


def _hear(_text: str) -> None:
    pass


def update(
    store: Store,
    name: str,
    bring: Callable[[], Base],
    wanted: Wanted,
    *,
    agree: Callable[[Found], bool] = _agree,
    told: Callable[[str], None] = _hear,
    layers: Callable[[Base], Mapping[str, Rebuilt]] | None = None,
) -> tuple[Found, Switched | None]:
    """Make what ``bring`` imports the current version of the base ``name``, if it passes all checks.

    ``bring`` records it by `BaseRows.add_next_version`, or returns a version that is there already. ``agree`` is asked
    before anything changes for anybody; after a no, and after a failure of any kind, everything is as it was. ``told``
    hears what is being done. ``layers`` gives those that apps are to have over the new version, beside the layers that
    recipes are run for; `SlotRows.set_fit` holds them.

    Return what was found, and the switch; ``None`` where none was made: it is current already, only staged, or this was
    a dry run.

    Raises `HealthError` when a check fails, `BusyError` while another update is under way, `LayerrunError`: the
    answer was no.
    """
    _check_name(store, name)
    with updating(store):
        old = store.base(name)
        new = bring()
        if new.id == old.id:
            return Found(old, new), None
        with _taken_back(store, new):
            switching.check_ids(old, new)
            anew = _rebuild(store, old, new, wanted, told)
            given = layers(new) if layers is not None else {}
            rebuilt = {**anew, **given}
            found = _look(store, old, new, wanted, told, rebuilt, anew.keys() - given.keys())
            if wanted.dry_run:
                _leave(store, new, unseen=True)
                return found, None
            if not agree(found):
                _leave(store, new, unseen=True)
                raise LayerrunError("stopped: the answer was no, and nothing was done")
            if wanted.stage:
                _stage(store, old, new, rebuilt, wanted.tries)
                return found, None
            switched = switching.switch(
                store, new, what="update", layers=rebuilt, note=new.source, trial=True, tries=wanted.tries
            )
        versions.prune(store, name)
        return found, switched


def _check_name(store: Store, name: str) -> None:
    if name == HOST_BASE:
        raise UsageError("the base 'host' is the machine's own /, which its own package manager updates")
    if "@" in name:
        raise UsageError(
            f"{name!r} is one version: a base is updated",
            hint=f"layerrun base update {name.partition('@')[0]}",
        )
    store.base(name)


@contextmanager
def _taken_back(store: Store, new: Base) -> Iterator[None]:
    """Remove a version that was imported for an update, if the update comes to nothing."""
    try:
        yield
    except BaseException:
        _leave(store, new)
        raise


def _leave(store: Store, new: Base, *, unseen: bool = False) -> None:
    slot = store.catalog.slot(new.name)
    if slot is not None and slot.pending == new.id:  # else it was there before
        versions.take_back(store, new, unseen=unseen)


def _look(  # noqa: PLR0917  (what an update knows by then)
    store: Store,
    old: Base,
    new: Base,
    wanted: Wanted,
    told: Callable[[str], None],
    layers: Mapping[str, Rebuilt],
    anew: Iterable[str],
) -> Found:
    """Look at a new version in every way, with the layers that were made for it by app's id; ``anew``: by a recipe."""
    checks = health.checks_of(store, new.name, wanted.checks, network=wanted.network)

    def say(check: Check) -> None:
        told(f"checking {new.full_name} for {check.of}: {check.command}")

    built = {id_: after for id_, (_, after) in layers.items()}
    outcomes = health.run_checks(store, new, checks, timeout=wanted.timeout, layers=built, told=say)
    failed = next((one for one in outcomes if not one.is_well), None)
    if failed is not None:
        for text in failed.output.splitlines()[-_LINES:]:
            told(f"  {text}")
        _fail(store, old, new, failed, dry_run=wanted.dry_run)
    changed = shadows.changes(store, old, new)
    hidden = shadows.all_shadows(store, old, new, changed, built)
    names = [app.name for app in map(store.catalog.app_by_id, anew) if app is not None]
    return Found(old, new, len(changed), tuple(outcomes), hidden, tuple(sorted(names)))


def _fail(store: Store, old: Base, new: Base, failed: Outcome, *, dry_run: bool) -> None:
    """Note why an update comes to nothing, and raise it."""
    whose = "" if failed.check.app is None else f" of {failed.check.app.name}"
    _refuse(store, old, new, f"{failed.check.command!r}{whose} failed over it: {failed.why}", dry_run=dry_run)


def _refuse(store: Store, old: Base, new: Base, reason: str, *, dry_run: bool) -> NoReturn:
    """Note why a version is not switched to, and raise it."""
    if not dry_run:
        with store.catalog.transaction():
            store.catalog.set_slot(new.name, failed=f"{now()} {new.source}: {reason}")
            store.catalog.add_move(new.name, now(), "failed", new.version, note=reason)
    raise HealthError(
        f"{new.name!r} stays at {old.full_name}: {reason}",
        hint="layerrun status  (says it again)",
    )


def _rebuild(
    store: Store, old: Base, new: Base, wanted: Wanted, told: Callable[[str], None]
) -> dict[str, Rebuilt]:
    """Build the layers of the apps that have a recipe anew, over a version; return them by app's id."""
    from layerrun.building.result import rebuild_all

    try:
        return rebuild_all(store, new, told)
    except BuildError as error:
        _refuse(store, old, new, str(error), dry_run=wanted.dry_run)


def _stage(store: Store, old: Base, new: Base, layers: Mapping[str, Rebuilt], tries: int) -> None:
    """Let the next start of an app of the base switch to a version that has passed."""
    from layerrun.store.plans import forget_plan

    catalog = store.catalog
    with catalog.transaction():
        if catalog.base_by_id(new.id) is None:
            raise NotFoundError(f"{new.full_name!r} was removed meanwhile")
        for id_, (before, built) in layers.items():
            app = catalog.app_by_id(id_)
            if app is not None and app.config.base.partition("@")[0] == new.name:
                switching.check_unchanged(store, app, (before, built))
                catalog.set_fit(id_, app.base_id or old.id, before)
                catalog.set_fit(id_, new.id, built)
        catalog.set_slot(new.name, staged=new.id, tries=tries, pending=None, failed="")
        catalog.add_move(new.name, now(), "staged", new.version, note=new.source)
        for id_ in catalog.slot_apps(new.name):
            app = catalog.app_by_id(id_)
            if app is not None:
                forget_plan(store, app.name)  # its next start is to ask


def apply_staged(store: Store, name: str) -> Switched | None:
    """Switch a base to the version that is staged for it, if one is. Waits a while for another update."""
    with updating(store, wait=10.0):
        slot = store.catalog.slot(name)
        staged = None if slot is None or slot.staged is None else store.catalog.base_by_id(slot.staged)
        if slot is None or staged is None:
            return None
        switched = switching.switch(store, staged, what="update", note="staged", trial=True, tries=slot.tries)
        versions.prune(store, name)
        return switched
