"""The way in: a store and its apps, for programs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.api.app import App
from layerrun.api.base import Base
from layerrun.api.throwaway import Throwaway
from layerrun.changes import Commit, CommitState
from layerrun.model import AppConfig, AppKind, Home, IdMode, Share, check_name, check_path
from layerrun.policy import Network, Policy
from layerrun.store.store import Store as OpenStore

if TYPE_CHECKING:
    from layerrun.api.building import Built

__all__ = ["Store"]


def _policy(policy: Policy | Mapping[str, Any] | None, network: Network | str | None) -> Policy:
    """Return a policy as it is given to a call, with ``network`` before what it says of that."""
    if not isinstance(policy, Policy):
        policy = Policy.from_json(policy or {})
    return policy if network is None else attrs.evolve(policy, network=network)


def _number(commit: Commit | int | None) -> int | None:
    return commit.number if isinstance(commit, Commit) else commit


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
            return [Base(self, found.name) for found in store.bases()]

    def base(self, name: str) -> Base:
        """Return the base that has this name, or with ``NAME@VERSION`` one version of it.

        Raises:
            layerrun.errors.NotFoundError: there is none; ``hint`` names the nearest.
        """
        with self.opened() as store:
            store.base(name)
            return Base(self, name)

    def import_base(
        self,
        name: str,
        source: str | os.PathLike[str],
        *,
        platform: str | None = None,
        max_size: int | str | None = None,
    ) -> Base:
        """Copy a root file system into the store as a base, which never changes from then on.

        Args:
            name: 1 to 63 of a-z 0-9 . _ -
            source: a folder, a tar archive, an OCI image layout, a docker archive, an image of erofs or squashfs,
                ``oci://registry/name:tag``, or a delta: as ``layerrun base import`` takes it.
            platform: which image of several is taken, as ``linux/arm64``; ``None``: this machine's.
            max_size: how much an archive may come to, in bytes, or as ``4G``; ``None``: 64G.

        Raises:
            layerrun.errors.ArchiveError: it is damaged, or holds what must not be in a base; nothing was kept.
            layerrun.errors.ExistsError: the name is taken by a base with another content.
            layerrun.errors.UsageError: there is no such source, or it is none.
        """
        from layerrun.updates.sources import bring

        most = None if max_size is None else str(max_size)
        with self.opened() as store:
            bring(store, name, os.fspath(source), platform=platform, max_size=most)
        return Base(self, name)

    def build(
        self,
        recipe: str | os.PathLike[str] | Mapping[str, Any],
        name: str | None = None,
        *,
        base: str | None = None,
        fresh: bool = False,
        kill: bool = False,
    ) -> Built:
        """Build an app by a recipe, step by step; what it has written stays above what is built.

        Args:
            recipe: a file, a folder that has a ``build.toml``, or what such a file would be read as.
            name: what the app is called; ``None``: as the recipe says.
            base: another base than the recipe's.
            fresh: run all steps, also those that are known.
            kill: end the app, and its profiles, first if they run.

        Raises:
            layerrun.errors.BuildError: a step has failed; the app is as it was.
            layerrun.errors.BusyError: it runs, or was changed meanwhile.
            layerrun.errors.UsageError: the recipe makes no sense.
        """
        from layerrun.api.building import build

        return build(self, recipe, name, base, fresh=fresh, kill=kill)

    def commits(self) -> list[Commit]:
        """Return the commits of throwaways to this machine, the last one first."""
        from layerrun.commit import log

        with self.opened() as store:
            return log.entries(store)

    def undo(self, commit: Commit | int | None = None, *, force: bool = False) -> Commit:
        """Take a commit back: the machine is then exactly as before it.

        Args:
            commit: one of `commits`, or its number; ``None``: the last that was not taken back.
            force: do it even where something has been changed since; that is kept aside, for `redo`.

        Returns:
            The commit as it is now.

        Raises:
            layerrun.errors.ChangedError: what it made has been changed since; nothing was done.
            layerrun.errors.NotFoundError: there is no such commit, or none to take back.
            layerrun.errors.UsageError: it is undone already.
        """
        from layerrun.commit import engine

        with self.opened() as store:
            found = engine.find(store, _number(commit), [CommitState.DONE], "undo")
            return engine.undo(store, found, force=force)

    def redo(self, commit: Commit | int | None = None) -> Commit:
        """Do a commit again that was taken back.

        Args:
            commit: one of `commits`, or its number; ``None``: the last that was taken back.

        Returns:
            The commit as it is now.

        Raises:
            layerrun.errors.ChangedError: what it changes has been changed since; nothing was done.
            layerrun.errors.NotFoundError: there is no such commit, or none to do again.
            layerrun.errors.UsageError: it was not taken back.
        """
        from layerrun.commit import engine

        with self.opened() as store:
            return engine.redo(store, engine.find(store, _number(commit), [CommitState.UNDONE], "redo"))

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
                policy=_policy(policy, network),
            )
            mode = None if ids is None else IdMode(ids)
        except UsageError:
            raise
        except ValueError as error:  # of an enum
            raise UsageError(str(error)) from None
        with self.opened() as store:
            return App(self, apps.create(store, name, config, ids=mode))

    def throwaways(self) -> list[Throwaway]:
        """Return the throwaways that were kept, or are in use, by name."""
        with self.opened() as store:
            return [Throwaway(self, found, kept=True) for found in store.apps(AppKind.THROWAWAY)]

    def throwaway(
        self,
        *,
        base: str = "host",
        name: str | None = None,
        hides: Iterable[str] = (),
        network: Network | str | None = None,
        policy: Policy | Mapping[str, Any] | None = None,
        ids: IdMode | str | None = None,
    ) -> Throwaway:
        """Make a throwaway: a layer to run commands in, which is discarded at the end of a ``with`` block.

        Nothing is run. See `Throwaway` for what to do with it.

        Args:
            base: what it stands on; ``host`` is the machine as it is.
            name: what it is called, by which it is found again if it is kept; without it a name is made up.
            hides: paths that are empty inside.
            network: ``host``, ``none`` (a loopback of its own) or ``private``.
            policy: what it may reach, a `layerrun.policy.Policy` or its fields; ``network`` goes before it.
            ids: how ids inside relate to those outside; ``None`` chooses what fits.

        Raises:
            layerrun.errors.ExistsError: the name is taken.
            layerrun.errors.NotFoundError: there is no such base.
            layerrun.errors.UsageError: something makes no sense.
        """
        from layerrun.errors import UsageError
        from layerrun.runtime import apps

        if name is not None:
            check_name(name)
        try:
            mode = None if ids is None else IdMode(ids)
            config = AppConfig(
                base=base,
                hides=tuple(check_path(path, "hides") for path in hides),
                policy=_policy(policy, network),
            )
        except UsageError:
            raise
        except ValueError as error:  # of an enum
            raise UsageError(str(error)) from None
        with self.opened() as store:
            return Throwaway(self, apps.create(store, name, config, ids=mode, kind=AppKind.THROWAWAY))
