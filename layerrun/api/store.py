"""The way in: a store and its apps, for programs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.api.running import Running
from layerrun.model import App as AppRecord
from layerrun.model import (
    AppConfig,
    AppKind,
    Base,
    Change,
    Home,
    IdMode,
    Share,
    check_name,
    check_path,
)
from layerrun.policy import Network, Policy
from layerrun.store.store import Store as OpenStore

if TYPE_CHECKING:
    from layerrun.native.trees import Usage
    from layerrun.runtime.data import Where
    from layerrun.runtime.instances import Instance
    from layerrun.runtime.reach import Reach

__all__ = ["App", "Store"]


class Store:
    """The apps of a store, which is made if it is not there.

    Nothing is kept open between two calls, so one object may be used by several threads, and there is nothing that must
    be closed. As a context manager, or by `close`, it ends its use: afterwards it and its apps raise ValueError. What
    runs goes on.

    Args:
        path: the store's folder. Without it: ``$LAYERRUN_STORE``, else /var/lib/layerrun for root, else
            ``$XDG_DATA_HOME/layerrun`` or ~/.local/share/layerrun.

    Attributes:
        path: the folder, absolute.
        closed: whether it was closed.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        from layerrun.store.paths import default_store

        self.path = default_store() if path is None else os.path.abspath(path)
        self.closed = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the use of this object; may be called again."""
        self.closed = True

    def opened(self) -> AbstractContextManager[OpenStore]:
        """Open the store, for one call. Raises `layerrun.errors.StoreError` where it cannot be used."""
        if self.closed:
            raise ValueError("the store is closed")
        return OpenStore.open(self.path)

    def apps(self) -> list[App]:
        """Return the apps and their profiles, by name."""
        with self.opened() as store:
            return [App(self, found) for found in store.apps(AppKind.APP)]

    def app(self, name: str) -> App:
        """Return the app, or with ``NAME@PROFILE`` the profile, that has this name.

        Raises:
            layerrun.errors.NotFoundError: there is none; ``hint`` names the nearest.
        """
        with self.opened() as store:
            return App(self, store.app(name, AppKind.APP))

    def bases(self) -> list[Base]:
        """Return what apps can stand on, by name; ``host``, the machine's own ``/``, comes first."""
        with self.opened() as store:
            return store.bases()

    def create(
        self,
        name: str,
        *,
        base: str = "host",
        command: Sequence[str] = (),
        shares: Iterable[str | Share] = (),
        hides: Iterable[str] = (),
        home: Home | str = Home.OVERLAY,
        caches: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
        network: Network | str | None = None,
        policy: Policy | Mapping[str, Any] | None = None,
        ids: IdMode | str | None = None,
    ) -> App:
        """Make an app without running anything, as ``layerrun create`` does.

        Args:
            name: 1 to 63 of a-z 0-9 . _ -
            base: what it stands on.
            command: its own command, which `App.run` runs if it is given none.
            shares: host paths bound into it, ``SRC[:DST][:ro]``; a reset spares them.
            hides: paths that are empty inside.
            home: ``overlay`` (the base's), ``fresh`` (an empty one of its own) or ``share`` (the real one).
            caches: paths that `App.clear_cache` drops as well.
            env: variables that are set at each start.
            network: ``host``, ``none`` (a loopback of its own), ``private`` or ``link:APP``.
            policy: what it may reach, a `layerrun.policy.Policy` or its fields; ``network`` goes before it.
            ids: how ids inside relate to those outside; ``None`` chooses what fits.

        Raises:
            layerrun.errors.ExistsError: the name is taken.
            layerrun.errors.NotFoundError: there is no such base.
            layerrun.errors.UsageError: something makes no sense.
        """
        from layerrun.errors import UsageError
        from layerrun.runtime import apps

        check_name(name)
        if isinstance(command, str | bytes):
            raise UsageError(f"bad command {command!r}: it must be a list of words")
        if not isinstance(policy, Policy):
            policy = Policy.from_json(policy or {})
        if network is not None:
            policy = attrs.evolve(policy, network=network)
        variables = {str(key): str(value) for key, value in (env or {}).items()}
        for key in variables:
            if not key or "=" in key:
                raise UsageError(f"bad variable {key!r}")
        try:
            config = AppConfig(
                base=base,
                command=tuple(command),
                shares=tuple(one if isinstance(one, Share) else Share.parse(one) for one in shares),
                hides=tuple(check_path(path, "hides") for path in hides),
                home=Home(home),
                caches=tuple(check_path(path, "caches") for path in caches),
                env=tuple(f"{key}={value}" for key, value in variables.items()),
                policy=policy,
            )
            mode = None if ids is None else IdMode(ids)
        except UsageError:
            raise
        except ValueError as error:  # of an enum
            raise UsageError(str(error)) from None
        with self.opened() as store:
            return App(self, apps.create(store, name, config, ids=mode))


class App(Running):
    """An app of a store. Get one by `Store.app` or `Store.create`.

    It stands for the app that had the name then: `reset`, `remove` and the like raise `layerrun.errors.NotFoundError`
    once that one was removed, even if another has taken its name.

    Attributes:
        store: the store it is in.
        name: its name; a profile's is ``NAME@PROFILE``.
        id: what names it for good; an app keeps it when it is renamed.
    """

    def __init__(self, store: Store, record: AppRecord) -> None:
        self.store = store
        self.name = record.name
        self.id = record.id
        self._record = record

    def __repr__(self) -> str:
        return f"<layerrun app {self.name!r} in {self.store.path!r}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, App) and (self.id, self.store.path) == (other.id, other.store.path)

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

    def configure(self, config: AppConfig, *, kill: bool = False) -> None:
        """Give it another configuration, such as ``attrs.evolve(app.config, hides=("/srv",))``; its data stays.

        Args:
            config: all of it; the base and the layers must be what they are.
            kill: end it, and its profiles, first if they run.

        Raises:
            layerrun.errors.BusyError: it runs, or a profile of it does.
            layerrun.errors.UsageError: something makes no sense.
        """
        from layerrun.runtime import apps, instances

        with self.store.opened() as store:
            app = store.app_again(self._record)
            family = [app, *store.profiles(app)]
            instances.ended_first(store, family, lambda: apps.configure(store, app, config), kill=kill)

    def reach(self) -> list[Reach]:
        """Return what it can reach, in sentences, and which option or preset each is due to."""
        from layerrun.runtime.reach import reach

        with self.store.opened() as store:
            app = store.app_again(self._record)
            return reach(app, store.app_dir(app))

    # Profiles

    def profiles(self) -> list[App]:
        """Return its profiles, by name: the same app, with data of their own."""
        with self.store.opened() as store:
            return [App(self.store, found) for found in store.profiles(store.app_again(self._record))]

    def profile(self, profile: str) -> App:
        """Return one of its profiles, which is made if it is new.

        Raises:
            layerrun.errors.UsageError: the name makes no sense, or this is a profile itself.
        """
        from layerrun.runtime import apps

        check_name(profile, "name of a profile")
        with self.store.opened() as store:
            record = store.app_again(self._record)
            return App(self.store, apps.profile(store, record.name, profile)[0])

    # Its data

    def diff(self) -> list[Change]:
        """Return what it has changed over what lies beneath it. Sizes are bytes; see `layerrun.model.Change`."""
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

    def reset(self, *paths: str, kill: bool = False) -> list[str]:
        """Clear its data; with ``paths``, let the base show through where one of these patterns matches.

        Without patterns it takes a moment, whatever it holds; the deleting is done in the background.

        Args:
            paths: patterns such as ``/etc/**``.
            kill: end it first if it runs.

        Returns:
            The paths that came back; without patterns an empty list.

        Raises:
            layerrun.errors.BusyError: it runs, or somebody else is changing it.
        """
        from layerrun.runtime import data, instances

        with self.store.opened() as store:
            app = store.app_again(self._record)

            def change() -> list[str]:
                if paths:
                    return data.reset_paths(store, app, paths)
                data.reset(store, [app])
                return []

            return instances.ended_first(store, [app], change, kill=kill)

    def clear_cache(self) -> list[str]:
        """Drop what it keeps in its cache folders; return those that held anything.

        Raises:
            layerrun.errors.BusyError: it runs, or somebody else is changing it.
        """
        from layerrun.runtime import data

        with self.store.opened() as store:
            return data.clear_cache(store, store.app_again(self._record))

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

    # The app itself

    def rename(self, name: str) -> None:
        """Give it another name, while it runs if need be; its profiles go along.

        Raises:
            layerrun.errors.ExistsError: the name is taken.
        """
        with self.store.opened() as store:
            self._record = store.rename_app(store.app_again(self._record).name, name)
        self.name = self._record.name

    def remove(self, *, kill: bool = False, keep_data: bool = False) -> list[str]:
        """Remove it with its profiles and their data.

        Args:
            kill: end what runs first.
            keep_data: leave the data in the store's folder ``kept``.

        Returns:
            With ``keep_data``, where it is kept: paths.

        Raises:
            layerrun.errors.BusyError: it runs, or somebody else is changing it.
        """
        from layerrun.runtime import instances

        with self.store.opened() as store:
            app = store.app_again(self._record)
            return instances.ended_first(
                store,
                [app, *store.profiles(app)],
                lambda: store.remove_app(app.name, keep_data=keep_data, only=app.id),
                kill=kill,
            )
