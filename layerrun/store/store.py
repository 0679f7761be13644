"""The store as one object: what there is, and every change to it as a single step.

The order of every change: stage in a ticket, make it durable, rename into place, one transaction of
the catalog, clean up. See docs/store.md for what lies where and what a crash leaves.
"""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Collection
from types import TracebackType

from layerrun.errors import (
    DamagedError,
    LayerrunError,
    NotFoundError,
    SystemError,
)
from layerrun.model import HOST_BASE, App, AppConfig, AppKind, Base, BaseKind, IdMode
from layerrun.store import freezing, making, paths, removing, reserve, trash
from layerrun.store.catalog import HOST, Catalog
from layerrun.store.fs import DIR_FLAGS, explain, open_dir, present
from layerrun.store.locks import PATIENCE, AppLock
from layerrun.store.making import now
from layerrun.store.names import unknown
from layerrun.store.opening import open_root
from layerrun.store.staging import Ticket

__all__ = ["Store", "now"]


def _open_folder(path: str, fd: int, name: str) -> int:
    with explain("open the store", path):
        try:
            return open_dir(fd, name)
        except FileNotFoundError:
            raise DamagedError(f"the store {path!r} is damaged: {name!r} is missing") from None


class Store:
    """An open store. Make it with `Store.open`; use it as a context manager.

    Attributes:
        path: its real path. fd: its folder. rootless: whether it belongs to a plain user.
        catalog: the database; staging_fd, trash_fd: those folders. lent: see `layerrun.store.reserve`.
        recovered: what is to be said of a commit to the host that was cut short; ``""`` if none was.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.rootless = os.geteuid() != 0
        self.lent = False
        self.recovered = ""
        opened: list[int] = []
        try:
            for name in ("staging", "trash"):
                opened.append(_open_folder(path, fd, name))
            # Even to read it SQLite needs room, for the shared memory of its log: two of the reserve's files.
            self.catalog = reserve.using(self, lambda: Catalog(os.path.join(path, "catalog.db")), most=2)
        except BaseException:
            for other in opened:
                os.close(other)
            raise
        self.staging_fd, self.trash_fd = opened

    @classmethod
    def open(cls, path: str | None = None, *, create: bool = True) -> Store:
        """Open the store at ``path`` (default: `paths.default_store`), making it if ``create``.

        What an earlier process left half done is finished or taken back. Raises `StoreError` when the
        folder is not a store that the caller may use, `DamagedError` when it is damaged.
        """
        path = os.path.abspath(path) if path is not None else paths.default_store()
        real, fd = open_root(path, create=create)
        try:
            store = cls(real, fd)
        except BaseException:
            os.close(fd)
            raise
        try:
            with reserve.without_fail():
                trash.sweep(store)
                store.sweep()
                store._recover()
            if not store.lent:
                reserve.keep(fd)
        except BaseException:
            store.close()
            raise
        return store

    def _recover(self) -> None:
        """Have a commit to the host that was cut short finished or taken back, by a room above this one."""
        if present(self.fd, "unfinished"):
            # What cannot be done now (a file system that is not mounted) must not stop every other command.
            try:
                self.recovered = importlib.import_module("layerrun.commit.engine").recover(self)
            except (LayerrunError, OSError) as error:
                self.recovered = f"a commit was cut short, and cannot be taken back or finished yet: {error}"

    def close(self) -> None:
        """Close the catalog and the descriptors."""
        self.catalog.close()
        if self.lent:
            reserve.keep(self.fd, ample=False)
        for fd in (self.staging_fd, self.trash_fd, self.fd):
            os.close(fd)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def worst_ids(self) -> IdMode | None:
        """The id mode to assume of files whose owner is not recorded: `IdMode.SUBIDS` where there are any."""
        if not self.rootless:
            return None
        from layerrun.native.subids import subids

        return IdMode.SUBIDS if subids() is not None else None

    def ticket(self, ids: IdMode | None = None) -> Ticket:
        """Return a new `Ticket` to stage a change in; ``ids`` says whose files it will hold."""
        return Ticket(self, ids)

    # What there is

    def apps(self, kind: AppKind | None = None) -> list[App]:
        """Return the apps and throwaways, or those of one kind, by name. Spares are none of them."""
        return [app for app in self.catalog.apps(kind) if app.kind is not AppKind.SPARE]

    def profiles(self, app: App) -> list[App]:
        """Return the profiles of an app, by name."""
        return self.catalog.profiles(app.id)

    def app(self, name: str, kind: AppKind | None = None) -> App:
        """Return the app or throwaway called ``name``; `NotFoundError` hints at the nearest names."""
        app = self.catalog.app(name)
        if app is None or app.kind is AppKind.SPARE or (kind is not None and app.kind is not kind):
            raise unknown(kind.value if kind else "app", name, [a.name for a in self.apps(kind)])
        return app

    def bases(self) -> list[Base]:
        """Return the bases by name, the host's own ``/`` first."""
        return [HOST, *self.catalog.bases()]

    def base(self, name: str) -> Base:
        """Return the base called ``name``; `NotFoundError` hints at the nearest names."""
        base = HOST if name == HOST_BASE else self.catalog.base(name)
        if base is None:
            raise unknown("base", name, [b.name for b in self.bases()])
        return base

    def base_of(self, app: App) -> Base:
        """Return the version of a base that an app stood on when it was read, whichever is the current one by now.

        What is beneath it is of one moment only if its base is found by this, as its layers are.
        """
        base = None if app.base_id is None else self.catalog.base_by_id(app.base_id)
        return base or self.base(app.config.base)

    # Folders and locks

    def app_dir(self, app: App) -> str:
        """Return the path of the app's folder."""
        return os.path.join(self.path, "apps", app.id)

    def open_app_dir(self, app: App, sub: str = "") -> int:
        """Open the app's folder, or ``sub`` (such as ``data/upper``) in it; the caller closes it."""
        path = f"apps/{app.id}/{sub}".rstrip("/")
        try:
            # Closed: an app may take the permissions of its own root away.
            return open_dir(self.fd, path, closed=True)
        except FileNotFoundError:
            self.app_again(app)  # perhaps it is not damaged, but gone
            raise DamagedError(
                f"the files of {app.name!r} are missing: {os.path.join(self.path, path)!r}",
                hint=f"`layerrun reset {app.name}` starts it afresh, `layerrun remove {app.name}` forgets it",
            ) from None
        except OSError as error:
            raise DamagedError(
                f"{os.path.join(self.path, path)!r} is not as it should be: {error.strerror}"
            ) from None

    def open_data(self, app: App, sub: str = "") -> int:
        """Open the folder that holds the app's data, or ``sub`` (such as ``upper``) in it; the caller closes it.

        It may lie in an image, which is mounted for as long as a descriptor in it is open.
        """
        data = self.open_app_dir(app, "data")
        try:
            if not present(data, "image"):
                return self.open_app_dir(app, f"data/{sub}".rstrip("/"))
            from layerrun.native import volumes  # seldom needed

            top = volumes.open_image(data)
        finally:
            os.close(data)
        try:
            return open_dir(top, sub, closed=True)
        except OSError as error:
            raise DamagedError(
                f"{sub!r} of the data of {app.name!r} is not as it should be: {error.strerror}",
                hint=f"`layerrun reset {app.name}` starts it afresh",
            ) from None
        finally:
            os.close(top)

    def lower_fds(self, app: App) -> list[int]:
        """Open what lies beneath the app's upper, top first, the base last; the caller closes them."""
        fds: list[int] = []
        try:
            for layer in reversed(app.stack):
                fds.append(self._open_lower(f"layers/{layer}/tree", f"layer {layer!r} of {app.name!r}"))
            fds.append(self.open_base(self.base_of(app)))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return fds

    def open_layer(self, layer: str) -> int:
        """Open the root folder of a frozen layer; the caller closes it."""
        return self._open_lower(f"layers/{layer}/tree", f"layer {layer!r}")

    def open_base(self, base: Base) -> int:
        """Open the root folder of a base; the caller closes it."""
        if base.name == HOST_BASE:
            with explain("open", "/"):
                return os.open("/", DIR_FLAGS)
        if base.kind is BaseKind.IMAGE:
            return self._open_image(base)
        return self._open_lower(f"bases/{base.id}/tree", f"base {base.name!r}")

    def _open_image(self, base: Base) -> int:
        """Mount a base that is an image, for this process alone."""
        from layerrun.native.volumes import open_lower_image

        try:
            return open_lower_image(self.fd, f"bases/{base.id}/image")
        except SystemError as error:
            if error.errno != errno.ENOENT:
                raise
            raise DamagedError(
                f"base {base.name!r} is missing: {self.base_path(base)!r}", hint="run `layerrun doctor`"
            ) from None

    def base_path(self, base: Base) -> str:
        """Return where a base lies: a folder, or the file of an image."""
        if base.name == HOST_BASE:
            return "/"
        return os.path.join(self.path, "bases", base.id, "image" if base.kind is BaseKind.IMAGE else "tree")

    def _open_lower(self, path: str, what: str) -> int:
        try:
            return open_dir(self.fd, path)
        except (FileNotFoundError, NotADirectoryError):
            where = os.path.join(self.path, path)
            raise DamagedError(f"{what} is missing: {where!r}", hint="run `layerrun doctor`") from None
        except OSError as error:
            raise DamagedError(
                f"{what} cannot be opened: {error.strerror}", hint="run `layerrun doctor`"
            ) from None

    def app_lock(self, app: App, what: str, wait: float = 0.0, *, patience: float = PATIENCE) -> AppLock:
        """Lock an app to run or change it; `BusyError` names who else has it. For the times see `AppLock.acquire`.

        Read the app again after locking: until then it may have been renamed or configured anew.
        """
        fd = self.open_app_dir(app)
        try:
            lock = AppLock.acquire(fd, app.name, wait=wait, what=what, patience=patience)
            try:
                freezing.finish(self, self.app_again(app), fd)
            except BaseException:
                lock.release()
                raise
        finally:
            os.close(fd)
        return lock

    # Changes

    def create_app(
        self, name: str | None, config: AppConfig, *, kind: AppKind = AppKind.APP, ids: IdMode
    ) -> App:
        """Make an app or a throwaway with empty data; ``name=None`` generates one such as ``try-3f2a``.

        `IdMode.RANGE` gives it the lowest free range of uids. Raises `ExistsError`, `NotFoundError`
        (no such base), `UsageError`.
        """
        return making.make_app(self, name, config, kind, ids)

    def create_profile(self, parent: App, profile: str) -> App:
        """Make a profile of an app, with empty data; it has the app's configuration, and always will.

        Raises `ExistsError`, `UsageError`, `BusyError` when the app is given another configuration meanwhile.
        """
        return making.make_profile(self, parent, profile)

    def create_ephemeral(self, parent: App) -> tuple[App, AppLock]:
        """Make a profile for one start, with a name such as ``web@tmp-3f2a``, and lock it.

        Whoever opens the store removes it once its lock is free. Raises as `create_profile`.
        """
        return making.make_ephemeral(self, parent)

    def rename_app(self, old: str, new: str) -> App:
        """Give an app another name; it and its profiles, whose names change with it, may be running.

        A profile is renamed to another of the same app. Returns it as it is now.
        """
        from layerrun.store import changing

        return changing.rename(self, old, new)

    def update_app(self, name: str, config: AppConfig) -> App:
        """Give an app another configuration; neither it nor any of its profiles, whose it is too, may run.

        Returns it as it is now.
        """
        from layerrun.store import changing

        return changing.configure(self, name, config)

    def app_again(self, app: App) -> App:
        """Return the app as the catalog has it now; `NotFoundError` if it was removed."""
        found = self.catalog.app_by_id(app.id)
        if found is None:
            raise NotFoundError(f"{app.name!r} was removed meanwhile")
        return found

    def reset_app(self, name: str, *, only: str | None = None) -> None:
        """Clear the data of an app that is not running, at a cost that does not depend on its size.

        With ``only``, an app's id, `NotFoundError` if the name has become another's meanwhile.
        """
        from layerrun.store import changing

        reserve.using(self, lambda: changing.reset(self, self._meant(name, only)))

    def _meant(self, name: str, only: str | None) -> App:
        app = self.app(name)
        if only not in (None, app.id):
            raise NotFoundError(
                f"{name!r} is another app now", hint="look at `layerrun list`, then say it again"
            )
        return app

    def remove_app(
        self,
        name: str,
        *,
        keep_data: bool = False,
        only: str | None = None,
        along: Collection[str] | None = None,
    ) -> list[str]:
        """Remove an app and its profiles, none of which may run. With ``keep_data`` return where it stays.

        ``only``: as for `reset_app`. With ``along``, ids, `BusyError` if it has got other profiles meanwhile.
        """
        return reserve.using(
            self,
            lambda: removing.remove(self, self._meant(name, only), keep_data=keep_data, along=along),
        )

    def sweep(self) -> None:
        """Remove the ephemeral apps that are not running any more, and layers that those had; waits for nobody."""
        removing.sweep(self)
        if self.catalog.users():
            freezing.drop_unused(self)

    def kept(self, name: str) -> list[str]:
        """Return the paths of data that ``remove --keep-data`` left of apps of this name."""
        return removing.kept_of(self, name)
