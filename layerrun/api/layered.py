"""What apps and throwaways have in common: a layer over a base, and what runs in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from layerrun.api.running import Running
from layerrun.changes import Change
from layerrun.errors import BusyError
from layerrun.model import App as AppRecord
from layerrun.model import AppConfig, Snapshot, check_path

if TYPE_CHECKING:
    from layerrun.api.store import Store
    from layerrun.native.trees import Usage
    from layerrun.runtime.data import Where
    from layerrun.runtime.instances import Instance
    from layerrun.runtime.reach import Reach
    from layerrun.store.store import Store as OpenStore

__all__ = ["Layered"]

_MOMENT = 0.3  # seconds
_PATIENCE = 10.0
_POLL = 0.005


def _named(snapshot: Snapshot | str | int | None) -> str | None:
    """Return a snapshot as the rooms below want it: a tag or a number."""
    if isinstance(snapshot, Snapshot):
        return str(snapshot.number)
    return None if snapshot is None else str(snapshot)


def _in_turn(store: OpenStore, app: AppRecord, change: Callable[[], AppRecord]) -> AppRecord:
    """Change an app as soon as nobody else does, such as another thread; if it runs, raise `BusyError` soon."""
    from layerrun.runtime import instances

    begun = time.monotonic()
    while True:
        try:
            return change()
        except BusyError:
            # What has just ended is seen to run for a moment.
            patience = _MOMENT if instances.pid_of(store, app) is not None else _PATIENCE
            if time.monotonic() > begun + patience:
                raise
            time.sleep(_POLL)


class Layered(Running):
    """An app or a throwaway of a store.

    It stands for the one that had the name then: what is asked of it raises `layerrun.errors.NotFoundError` once that
    one was removed, even if another has taken its name.

    Attributes:
        store: the store it is in.
        name: its name; a profile's is ``NAME@PROFILE``.
        id: what names it for good.
    """

    def __init__(self, store: Store, record: AppRecord) -> None:
        self.store = store
        self.name = record.name
        self.id = record.id
        self._record = record

    def __repr__(self) -> str:
        return f"<layerrun {self.kind.value} {self.name!r} in {self.store.path!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Layered) and (self.id, self.store.path) == (other.id, other.store.path)

    def __hash__(self) -> int:
        return hash((self.id, self.store.path))

    def _store_path(self) -> str:
        if self.store.closed:
            raise ValueError("the store is closed")
        return self.store.path

    @property
    def record(self) -> AppRecord:
        """What the catalog says of it now: its configuration, its ids, its generation, when it was made."""
        with self.store.opened() as store:
            return store.app_again(self._record)

    @property
    def config(self) -> AppConfig:
        """Its configuration as it is now: base, shares, command and the like."""
        return self.record.config

    def reach(self) -> list[Reach]:
        """Return what it can reach, in sentences, and which option or preset each is due to."""
        from layerrun.runtime.reach import reach

        with self.store.opened() as store:
            app = store.app_again(self._record)
            return reach(app, store.app_dir(app))

    # Its data

    def diff(self) -> list[Change]:
        """Return what it has changed over what lies beneath it. Sizes are bytes; see `layerrun.changes.Change`."""
        from layerrun.runtime import data

        with self.store.opened() as store:
            return data.diff(store, store.app_again(self._record))

    def which(self, path: str) -> Where:
        """Return where ``path``, as seen inside, comes from: its own layer, the base, a share.

        Raises:
            layerrun.errors.NotFoundError: there is nothing at that path.
        """
        from layerrun.runtime import data

        with self.store.opened() as store:
            return data.which(store, store.app_again(self._record), check_path(path))

    def usage(self) -> Usage:
        """Return how much its own data holds: entries, and apparent and allocated bytes. It walks all of it."""
        from layerrun.runtime import data

        with self.store.opened() as store:
            return data.usage(store, store.app_again(self._record))

    # Its snapshots

    def snapshots(self) -> list[Snapshot]:
        """Return its snapshots, the first made first: states that it can go back to."""
        from layerrun.runtime import snapshots

        with self.store.opened() as store:
            return snapshots.history(store, store.app_again(self._record))

    def rollback(self, snapshot: Snapshot | str | int | None = None, *, kill: bool = False) -> Snapshot:
        """Let it be as it was at a snapshot, in a moment, whatever it holds.

        What it has now becomes a snapshot first, unless it is one, so that this can be taken back as well.

        Args:
            snapshot: one of `snapshots`, or its tag, or its number; ``None``: the last that was asked for.
            kill: end what runs in it first.

        Returns:
            The snapshot that it is like now.

        Raises:
            layerrun.errors.BusyError: it runs, or somebody else is changing it.
            layerrun.errors.NotFoundError: there is no such snapshot.
        """
        from layerrun.runtime import instances, snapshots

        with self.store.opened() as store:
            app = store.app_again(self._record)
            wanted = _named(snapshot)
            back, _ = instances.ended_first(
                store, [app], lambda: snapshots.rollback(store, app, wanted), kill=kill
            )
            return back

    def pin(self, snapshot: Snapshot | str | int, *, pinned: bool = True) -> Snapshot:
        """Spare a snapshot, until it is unpinned with ``pinned=False``, from ``gc`` and `forget`; return it."""
        from layerrun.runtime import snapshots

        with self.store.opened() as store:
            app = store.app_again(self._record)
            return snapshots.pin(store, app, _named(snapshot) or "", pinned=pinned)

    def forget(self, snapshot: Snapshot | str | int) -> None:
        """Drop a snapshot, with what of its data nothing else stands on.

        Raises:
            layerrun.errors.NotFoundError: there is no such snapshot.
            layerrun.errors.UsageError: it is pinned.
        """
        from layerrun.runtime import snapshots

        with self.store.opened() as store:
            snapshots.forget(store, store.app_again(self._record), _named(snapshot) or "")

    def _snapshot(self, tag: str | None, *, kill: bool) -> Snapshot:
        from layerrun.runtime import instances, snapshots

        with self.store.opened() as store:
            app = store.app_again(self._record)
            return instances.ended_first(store, [app], lambda: snapshots.snapshot(store, app, tag), kill=kill)

    def _branch(self, name: str | None, snapshot: Snapshot | str | int | None) -> AppRecord:
        from layerrun.runtime import snapshots

        with self.store.opened() as store:
            app = store.app_again(self._record)
            return _in_turn(store, app, lambda: snapshots.branch(store, app, name, _named(snapshot)))

    # What runs

    @property
    def running(self) -> bool:
        """Whether anything runs in it now."""
        return self.instance() is not None

    def instance(self) -> Instance | None:
        """Return what runs in it: pids of the host, since when (seconds since the epoch); ``None`` if nothing does."""
        from layerrun.runtime import instances

        with self.store.opened() as store:
            return next(iter(instances.instances(store, [store.app_again(self._record)])), None)

    def stop(self, *, grace: float = 10.0) -> bool:
        """End all that runs in it: SIGTERM, and after ``grace`` seconds SIGKILL; with 0 SIGKILL at once.

        Returns:
            Whether it ran. When this returns, it does not run any more.
        """
        from layerrun.runtime import instances

        with self.store.opened() as store:
            return instances.end(store, store.app_again(self._record), grace=grace)
