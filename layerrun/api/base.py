"""Bases, for programs: what apps stand on, from version to version."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from layerrun.api.store import Store
    from layerrun.bases.tree import Problem
    from layerrun.model import Base as Record
    from layerrun.model import Move
    from layerrun.updates.switching import Switched
    from layerrun.updates.update import Found

__all__ = ["Base", "Update"]


@attrs.frozen
class Update:
    """What `Base.update` has come to.

    Attributes:
        found: ``old``, ``new``, ``changed`` (paths that differ), ``outcomes`` of the checks, ``hidden`` by apps.
        switched: the versions and the apps that moved; ``None``: it was current already, staged, or a dry run.
    """

    found: Found
    switched: Switched | None


class Base:
    """A base of a store. Get one by `Store.base` or `Store.import_base`.

    Attributes:
        store: the store it is in.
        name: ``debian`` is the base, whichever version is current; ``debian@2`` that version alone.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name

    def __repr__(self) -> str:
        return f"<Base {self.name!r} of {self.store.path!r}>"

    @property
    def record(self) -> Record:
        """What the catalog has of it now: ``version``, ``digest``, ``entries``, ``size``, ``source``, ``pinned``.

        Raises:
            layerrun.errors.NotFoundError: it was removed.
        """
        with self.store.opened() as store:
            return store.base(self.name)

    @property
    def version(self) -> int:
        """The number of the version that its name means now."""
        return self.record.version

    @property
    def digest(self) -> str | None:
        """The digest of that version; ``None`` for ``host``, the machine's own ``/``."""
        return self.record.digest

    def versions(self) -> list[Base]:
        """Return the versions that are kept, the oldest first; ``[]`` for ``host``."""
        name = self.name.partition("@")[0]
        with self.store.opened() as store:
            return [Base(self.store, found.full_name) for found in store.catalog.versions(name)]

    def history(self) -> list[Move]:
        """Return what happened to it, the last thing last."""
        with self.store.opened() as store:
            return store.catalog.moves(store.base(self.name).name)

    def verify(self, repair: str | os.PathLike[str] | None = None) -> list[Problem]:
        """Read all of it, and return what is not as it was imported: each has ``kind`` and ``path``.

        Args:
            repair: a source from which what is wrong is put right first; what is returned is then still wrong.

        Raises:
            layerrun.errors.BusyError: an app runs on it, so it cannot be repaired.
            layerrun.errors.DamagedError: its manifest is not the one that was recorded.
        """
        with self.store.opened() as store:
            from layerrun.bases import tree

            found = store.base(self.name)
            problems = list(tree.verify(store, found))
            if repair is None or not problems:
                return problems
            from layerrun.bases import repair as library
            from layerrun.updates.guard import updating

            with updating(store):
                return library.repair(store, found, os.fspath(repair))[1]

    def update(
        self,
        source: str | os.PathLike[str] | None = None,
        *,
        checks: Iterable[str] = (),
        timeout: float = 60.0,
        network: str = "none",
        tries: int = 3,
        stage: bool = False,
        dry_run: bool = False,
        agree: Callable[[Found], bool] | None = None,
    ) -> Update:
        """Give it another version, once that has passed every check; what runs keeps what it has.

        Args:
            source: all that `Store.import_base` takes, or a delta; ``None``: where the current version came from.
            checks: command lines that must go well over it, beside its own and those of its apps.
            timeout: seconds for each check.
            network: that of the checks that belong to no app: ``none``, ``host`` or ``private``.
            tries: an app goes back by itself once so many of its starts in a row have failed.
            stage: leave the switch to the next start of an app of this base.
            dry_run: import and look, and leave everything as it is.
            agree: is asked, with what was found, before anything changes for anybody.

        Raises:
            layerrun.errors.HealthError: a check failed; everything is as it was.
            layerrun.errors.BusyError: another update is under way in this store.
            layerrun.errors.UsageError: there is no such source, or something makes no sense.
            layerrun.errors.LayerrunError: the answer was no.
        """
        from layerrun.updates.sources import bring
        from layerrun.updates.update import Wanted, update

        wanted = Wanted(tuple(checks), timeout, network, tries, stage, dry_run)
        with self.store.opened() as store:
            from layerrun.bases.sources import source_of

            place = source_of(store, self.name) if source is None else os.fspath(source)

            def brought() -> Record:
                return bring(store, self.name, place, version=True)

            found = update(store, self.name, brought, wanted, agree=agree or (lambda _found: True))
            return Update(*found)

    def switch(self, version: int | str | Base) -> Switched:
        """Make another version that is kept the current one, without any check; each app moves at its next start.

        Raises:
            layerrun.errors.NotFoundError: there is no such version.
        """
        return self._switch("switch", version)

    def rollback(self, version: int | str | Base | None = None) -> Switched:
        """Go back to the version that was current before, or to another; once more: forth again.

        Raises:
            layerrun.errors.NotFoundError: there is no such version, or none before.
        """
        return self._switch("rollback", version)

    def _switch(self, what: str, version: int | str | Base | None) -> Switched:
        from layerrun.updates import switching
        from layerrun.updates.guard import updating

        wanted = version.name if isinstance(version, Base) else version
        with self.store.opened() as store, updating(store, wait=10.0):
            name = self.name.partition("@")[0]  # that of the base, also of what `versions` has given
            target = switching.back_to(store, name) if wanted is None else switching.find(store, name, wanted)
            return switching.switch(store, target, what=what, trial=False if what == "rollback" else None)

    def pin(self, pinned: bool = True) -> None:
        """Keep this version, however many come after it; with ``False`` let it go again."""
        with self.store.opened() as store, store.catalog.transaction():
            store.catalog.pin_base(store.base(self.name).id, pinned)

    def remove(self) -> None:
        """Remove it with all its versions; of ``NAME@VERSION`` that version alone.

        Raises:
            layerrun.errors.BaseInUseError: an app stands on it, or runs on it.
        """
        from layerrun.bases import versions
        from layerrun.updates.guard import updating

        with self.store.opened() as store, updating(store, wait=10.0):
            versions.remove(store, self.name)
