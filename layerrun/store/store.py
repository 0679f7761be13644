"""The store as one object: what there is, and every change to it as a single step.

The order of every change: stage in a ticket, make it durable, rename into place, one transaction of
the catalog, clean up. See docs/store.md for what lies where and what a crash leaves.
"""

from __future__ import annotations

import os
import time
from types import TracebackType

import attrs

from layerrun.errors import DamagedError, ExistsError, NotFoundError
from layerrun.model import HOST_BASE, App, AppConfig, AppKind, Base, Home, IdMode, check_name
from layerrun.native.syscalls import RENAME_EXCHANGE, renameat2
from layerrun.store import paths, reserve, trash
from layerrun.store.catalog import HOST, Catalog
from layerrun.store.fs import DIR_FLAGS, explain, fsync_dir, make_dir, open_dir, present
from layerrun.store.locks import AppLock
from layerrun.store.names import unknown
from layerrun.store.opening import open_root
from layerrun.store.pair import make_data
from layerrun.store.plans import forget_plan
from layerrun.store.staging import Ticket, finish_keep, new_id
from layerrun.store.uids import lowest_free, taken_elsewhere

__all__ = ["Store", "now"]


def now() -> str:
    """Return the time as RFC 3339 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


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
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.rootless = os.geteuid() != 0
        self.lent = False
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
            if not store.lent:
                reserve.keep(fd)
        except BaseException:
            store.close()
            raise
        return store

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
        """Return the apps and throwaways, or those of one kind, by name."""
        return self.catalog.apps(kind)

    def app(self, name: str, kind: AppKind | None = None) -> App:
        """Return the app or throwaway called ``name``; `NotFoundError` hints at the nearest names."""
        app = self.catalog.app(name)
        if app is None or (kind is not None and app.kind is not kind):
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
            raise DamagedError(
                f"the files of {app.name!r} are missing: {os.path.join(self.path, path)!r}",
                hint=f"`layerrun reset {app.name}` starts it afresh, `layerrun remove {app.name}` forgets it",
            ) from None
        except OSError as error:
            raise DamagedError(
                f"{os.path.join(self.path, path)!r} is not as it should be: {error.strerror}"
            ) from None

    def lower_fds(self, app: App) -> list[int]:
        """Open what lies beneath the app's upper, top first, the base last; the caller closes them."""
        fds: list[int] = []
        try:
            for layer in reversed(app.config.layers):
                fds.append(self._open_lower(f"layers/{layer}/tree", f"layer {layer!r} of {app.name!r}"))
            fds.append(self.open_base(self.base(app.config.base)))
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        return fds

    def open_base(self, base: Base) -> int:
        """Open the root folder of a base; the caller closes it."""
        if base.name == HOST_BASE:
            with explain("open", "/"):
                return os.open("/", DIR_FLAGS)
        return self._open_lower(f"bases/{base.id}/tree", f"base {base.name!r}")

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

    def app_lock(self, app: App, what: str, wait: float = 0.0) -> AppLock:
        """Lock an app to run or change it; `BusyError` names who else has it.

        Read the app again after locking: until then it may have been renamed or configured anew.
        """
        try:
            fd = self.open_app_dir(app)
        except DamagedError:
            self.app_again(app)  # perhaps it is not damaged, but gone
            raise
        try:
            lock = AppLock.acquire(fd, app.name, wait=wait, what=what)
        finally:
            os.close(fd)
        try:
            self.app_again(app)
        except BaseException:
            lock.release()
            raise
        return lock

    # Changes

    def create_app(
        self, name: str | None, config: AppConfig, *, kind: AppKind = AppKind.APP, ids: IdMode
    ) -> App:
        """Make an app or a throwaway with empty data; ``name=None`` generates one such as ``try-3f2a``.

        `IdMode.RANGE` gives it the lowest free range of uids. Raises `ExistsError`, `NotFoundError`
        (no such base), `UsageError`.
        """
        if name is not None and self.catalog.app(check_name(name)) is not None:
            raise ExistsError(f"the name {name!r} is taken", hint="choose another, or remove that one first")
        base = self.base(config.base)
        with self.ticket() as ticket:
            id_ = new_id()
            with explain("make the files of", name or "the throwaway"):
                make_dir(ticket.fd, "app")
                self._fill_app(ticket.fd, config.home, base)
                os.fsync(ticket.fd)
                os.rename("app", f"apps/{id_}", src_dir_fd=ticket.fd, dst_dir_fd=self.fd)
                fsync_dir(self.fd, "apps")
            try:
                return self._record_app(id_, name, config, kind, ids)
            except BaseException:
                os.rename(f"apps/{id_}", "app", src_dir_fd=self.fd, dst_dir_fd=ticket.fd)
                raise

    def _fill_app(self, ticket_fd: int, home: Home, base: Base) -> None:
        fd = open_dir(ticket_fd, "app")
        try:
            os.close(os.open("lock", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fd))
            make_data(fd, "data", home=home, root=self._root_status(base))
            os.fsync(fd)
        finally:
            os.close(fd)

    def _root_status(self, base: Base) -> os.stat_result | None:
        if base.name == HOST_BASE and self.rootless:
            return None
        fd = self.open_base(base)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _record_app(self, id_: str, name: str | None, config: AppConfig, kind: AppKind, ids: IdMode) -> App:
        with self.catalog.transaction():
            base_id = self._base_id(config)
            while name is None:
                name = f"try-{os.urandom(2).hex()}"
                name = name if self.catalog.app(name) is None else None
            uid_start = None
            if ids is IdMode.RANGE:
                uid_start = lowest_free(self.catalog.uid_starts(), taken_elsewhere())
            app = App(
                id=id_,
                name=name,
                kind=kind,
                config=config,
                ids=ids,
                uid_start=uid_start,
                created=now(),
                generation=1,
            )
            self.catalog.add_app(app, base_id)
        return app

    def _base_id(self, config: AppConfig) -> str | None:
        return None if config.base == HOST_BASE else self.base(config.base).id

    def rename_app(self, old: str, new: str) -> App:
        """Give an app another name; it may be running. Returns it as it is now."""
        check_name(new)
        with self.catalog.transaction():
            app = self.app(old)
            forget_plan(self, old)
            if new != old and self.catalog.app(new) is not None:
                raise ExistsError(
                    f"the name {new!r} is taken", hint="choose another, or remove that one first"
                )
            self.catalog.rename_app(app.id, new)
        return attrs.evolve(app, name=new)

    def update_app(self, name: str, config: AppConfig) -> App:
        """Give an app that is not running another configuration. Returns it as it is now."""
        app = self.app(name)
        with self.app_lock(app, "edit"):
            self.base(config.base)
            if config.home is Home.FRESH:
                self._ensure_home(app)
            forget_plan(self, self.app_again(app).name)
            with self.catalog.transaction():
                self.catalog.configure_app(app.id, config, self._base_id(config))
            return self.app_again(app)

    def app_again(self, app: App) -> App:
        """Return the app as the catalog has it now; `NotFoundError` if it was removed."""
        found = self.catalog.app_by_id(app.id)
        if found is None:
            raise NotFoundError(f"{app.name!r} was removed meanwhile")
        return found

    def _ensure_home(self, app: App) -> None:
        data = self.open_app_dir(app, "data")
        try:
            with explain("make the home of", app.name):
                if not present(data, "home"):
                    make_dir(data, "home")
                    os.fsync(data)
        finally:
            os.close(data)

    def reset_app(self, name: str, *, only: str | None = None) -> None:
        """Clear the data of an app that is not running, at a cost that does not depend on its size.

        With ``only``, an app's id, `NotFoundError` if the name has become another's meanwhile.
        """
        reserve.using(self, lambda: self._reset_app(name, only))

    def _meant(self, name: str, only: str | None) -> App:
        app = self.app(name)
        if only not in (None, app.id):
            raise NotFoundError(
                f"{name!r} is another app now", hint="look at `layerrun list`, then say it again"
            )
        return app

    def _reset_app(self, name: str, only: str | None) -> None:
        app = self._meant(name, only)
        with self.app_lock(app, "reset"), self.ticket(app.ids) as ticket:
            app = self.app_again(app)
            base = self.base(app.config.base)
            forget_plan(self, app.name)
            fd = self.open_app_dir(app)
            try:
                with explain("clear the data of", name):
                    make_data(ticket.fd, "data", home=app.config.home, root=self._root_status(base))
                    inode = os.stat("data", dir_fd=ticket.fd).st_ino
                    ticket.note(
                        {"what": "reset", "app": app.id, "inode": inode, "generation": app.generation}
                    )
                    if present(fd, "data"):
                        renameat2(ticket.fd, "data", fd, "data", RENAME_EXCHANGE)
                    else:
                        os.rename("data", "data", src_dir_fd=ticket.fd, dst_dir_fd=fd)
                    os.fsync(fd)
            finally:
                os.close(fd)
            with self.catalog.transaction():
                self.catalog.advance_app(app.id, app.generation)

    def remove_app(self, name: str, *, keep_data: bool = False, only: str | None = None) -> str | None:
        """Remove an app that is not running. With ``keep_data`` its data stays, and its path is returned.

        ``only``: as for `reset_app`.
        """
        return reserve.using(self, lambda: self._remove_app(name, only, keep_data=keep_data))

    def _remove_app(self, name: str, only: str | None, *, keep_data: bool) -> str | None:
        app = self._meant(name, only)
        with self._lock_to_remove(app), self.ticket(app.ids) as ticket:
            app = self.app_again(app)
            kept = f"{app.name}-{app.id}"
            forget_plan(self, app.name)
            if keep_data:
                ticket.note({"what": "keep", "app": app.id, "as": kept})
            with self.catalog.transaction():
                self.catalog.delete_app(app.id)
            with explain("remove the files of", name):
                if keep_data:
                    finish_keep(self, app.id, kept)
                if present(self.fd, f"apps/{app.id}"):
                    os.rename(f"apps/{app.id}", "app", src_dir_fd=self.fd, dst_dir_fd=ticket.fd)
                fsync_dir(self.fd, "apps")
        return os.path.join(self.path, "kept", kept) if keep_data else None

    def _lock_to_remove(self, app: App) -> AppLock:
        """Lock an app; one whose folder is missing gets a folder to lock, so that it can be removed."""
        if not present(self.fd, f"apps/{app.id}"):
            with explain("remove", app.name):
                os.makedirs(os.path.join(self.path, "apps", app.id), mode=0o700, exist_ok=True)
        return self.app_lock(app, "remove")

    def kept(self, name: str) -> list[str]:
        """Return the paths of data that ``remove --keep-data`` left of apps of this name."""
        try:
            found = os.listdir(os.path.join(self.path, "kept"))
        except FileNotFoundError:
            return []
        return [os.path.join(self.path, "kept", k) for k in sorted(found) if k.rpartition("-")[0] == name]
