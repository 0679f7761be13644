"""Making apps, throwaways and profiles: staged whole, renamed into place, recorded in one transaction."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import BusyError, ExistsError, UsageError
from layerrun.model import HOST_BASE, App, AppConfig, AppKind, Base, IdMode, Layer, check_name
from layerrun.store.fs import explain, fsync_dir, make_dir, open_dir
from layerrun.store.locks import AppLock
from layerrun.store.pair import make_data
from layerrun.store.profiles import EPHEMERAL, check_profile
from layerrun.store.staging import new_id
from layerrun.store.uids import lowest_free, taken_elsewhere

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = [
    "CHECK",
    "SCRATCH",
    "THROWAWAY",
    "Beginning",
    "image_size",
    "make_app",
    "make_ephemeral",
    "make_profile",
    "make_scratch",
    "make_spare",
    "now",
    "root_status",
    "unused_name",
]


@attrs.frozen
class Beginning:
    """What the data of a new app begins with.

    Attributes:
        frozen: its own frozen layers, the lowest first.
        dress: makes an empty data unit look like what lies beneath; it is given where that lies, a folder and a path.
        record: records more of the app, whose id it is given, within the transaction.
        fresh: layers whose folders are in place, recorded along with the app: nobody drops them as unused before.
    """

    frozen: tuple[str, ...]
    dress: Callable[[int, str], None]
    record: Callable[[str], None] | None = None
    fresh: tuple[Layer, ...] = ()


# What a name that is made up for a throwaway begins with.
THROWAWAY = "try-"
# The same of what a step of a build runs in.
SCRATCH = "build-"
# And of what looks whether a version of a base is well.
CHECK = "check-"


def now() -> str:
    """Return the time as RFC 3339 in UTC, to the second."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def make_app(
    store: Store,
    name: str | None,
    config: AppConfig,
    kind: AppKind,
    ids: IdMode,
    *,
    begin: Beginning | None = None,
) -> App:
    """Make an app or a throwaway; see `Store.create_app`."""
    if name is not None and store.catalog.app(check_name(name)) is not None:
        raise ExistsError(f"the name {name!r} is taken", hint="choose another, or remove that one first")

    def row(id_: str) -> App:
        return App(
            id=id_,
            name=unused_name(store, THROWAWAY) if name is None else name,
            kind=kind,
            config=config,
            ids=ids,
            uid_start=_range(store, ids),
            created=now(),
            generation=1,
            frozen=_begin(store, begin, config.layers),
        )

    return _make(store, name or "the throwaway", config, row, begin=begin)[0]


def make_spare(store: Store, name: str, config: AppConfig, ids: IdMode) -> tuple[App, AppLock]:
    """Make a spare, locked. Raises `ExistsError` when there is one of this name."""

    def row(id_: str) -> App:
        return App(
            id=id_,
            name=name,
            kind=AppKind.SPARE,
            config=config,
            ids=ids,
            uid_start=_range(store, ids),
            created=now(),
            generation=1,
        )

    app, lock = _make(store, "the throwaway", config, row, locked=True)
    assert lock is not None
    lock.write_holder(os.getpid(), "try")
    return app, lock


def make_scratch(
    store: Store,
    config: AppConfig,
    ids: IdMode,
    begin: Beginning | None,
    *,
    kind: AppKind = AppKind.THROWAWAY,
    called: str = SCRATCH,
) -> tuple[App, AppLock]:
    """Make a throwaway for one step of a build, or for a check, locked.

    It goes, as an ephemeral start does, once its lock is free. What it is ``called`` begins like that.
    """

    def row(id_: str) -> App:
        return App(
            id=id_,
            name=unused_name(store, called),
            kind=kind,
            config=config,
            ids=ids,
            uid_start=_range(store, ids),
            created=now(),
            generation=1,
            ephemeral=True,
            frozen=_begin(store, begin, config.layers),
        )

    app, lock = _make(store, "the step", config, row, locked=True, begin=begin)
    assert lock is not None
    lock.name = app.name
    lock.write_holder(os.getpid(), "build" if called == SCRATCH else "check")
    return app, lock


def make_profile(store: Store, parent: App, profile: str, *, begin: Beginning | None = None) -> App:
    """Make a profile of an app; see `Store.create_profile`."""
    check_profile(profile)
    row = _row_of(store, parent, profile, begin)
    return _make(store, f"{parent.name}@{profile}", parent.config, row, begin=begin)[0]


def make_ephemeral(store: Store, parent: App) -> tuple[App, AppLock]:
    """Make a profile for one start, locked; see `Store.create_ephemeral`."""
    name = f"{parent.name}@{EPHEMERAL}…"
    app, lock = _make(store, name, parent.config, _row_of(store, parent, None), locked=True)
    assert lock is not None
    lock.name = app.name
    lock.write_holder(os.getpid(), f"run app {app.name}")
    return app, lock


def _begin(store: Store, begin: Beginning | None, layers: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return the frozen layers to begin with, if all that is to lie beneath is there; within a transaction."""
    if begin is None:
        return ()
    for one in begin.fresh:
        store.catalog.add_layer(one)
    if any(store.catalog.layer(layer) is None for layer in (*layers, *begin.frozen)):
        raise BusyError("what it was to begin with has changed meanwhile", hint="try again")
    return begin.frozen


def _row_of(
    store: Store, parent: App, profile: str | None, begin: Beginning | None = None
) -> Callable[[str], App]:
    """Return what gives the row of a profile (``None``: of an ephemeral start), within the transaction."""
    if parent.kind is not AppKind.APP or parent.parent is not None:
        what = "a throwaway" if parent.kind is AppKind.THROWAWAY else "a profile itself"
        raise UsageError(f"{parent.name!r} is {what}, and has no profiles")

    def row(id_: str) -> App:
        above = store.app_again(parent)
        if above.config != parent.config:  # the files were made for the earlier one
            raise BusyError(f"{above.name!r} was given another configuration meanwhile", hint="try again")
        name = (
            unused_name(store, f"{above.name}@{EPHEMERAL}") if profile is None else f"{above.name}@{profile}"
        )
        return App(
            id=id_,
            name=name,
            kind=AppKind.APP,
            config=above.config,
            ids=above.ids,
            uid_start=_range(store, above.ids),
            created=now(),
            generation=1,
            parent=above.id,
            profile=name.partition("@")[2],
            ephemeral=profile is None,
            frozen=_begin(store, begin),
        )

    return row


def unused_name(store: Store, prefix: str) -> str:
    """Return a name with this beginning that nobody has; within a transaction."""
    while True:
        name = prefix + os.urandom(2).hex()
        if store.catalog.app(name) is None:
            return name


def _range(store: Store, ids: IdMode) -> int | None:
    return lowest_free(store.catalog.uid_starts(), taken_elsewhere()) if ids is IdMode.RANGE else None


def _make(
    store: Store,
    what: str,
    config: AppConfig,
    row: Callable[[str], App],
    *,
    locked: bool = False,
    begin: Beginning | None = None,
) -> tuple[App, AppLock | None]:
    """Stage the files, put them in place, record what ``row`` gives for the new id.

    With ``locked`` its lock is taken before anybody else can see the app, so that no sweep takes it away.
    """
    base = store.base(config.base)
    lock = None
    try:
        with store.ticket() as ticket:
            id_ = new_id()
            with explain("make the files of", what):
                make_dir(ticket.fd, "app")
                lock = _fill(store, ticket.fd, config, base, what if locked else None)
                if begin is not None:
                    begin.dress(ticket.fd, "app/data")
                os.fsync(ticket.fd)
                os.rename("app", f"apps/{id_}", src_dir_fd=ticket.fd, dst_dir_fd=store.fd)
                fsync_dir(store.fd, "apps")
            try:
                with store.catalog.transaction():
                    base_id = None if config.base == HOST_BASE else store.base(config.base).id
                    app = attrs.evolve(row(id_), base_id=base_id)
                    store.catalog.add_app(app, base_id)
                    if begin is not None and begin.record is not None:
                        begin.record(id_)
            except BaseException:
                os.rename(f"apps/{id_}", "app", src_dir_fd=store.fd, dst_dir_fd=ticket.fd)
                raise
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    return app, lock


def _fill(
    store: Store, ticket_fd: int, config: AppConfig, base: Base, locked_as: str | None
) -> AppLock | None:
    fd = open_dir(ticket_fd, "app")
    try:
        os.close(os.open("lock", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=fd))
        make_data(
            fd, "data", home=config.home, root=root_status(store, base), max_size=image_size(store, config)
        )
        os.fsync(fd)
        return None if locked_as is None else AppLock.acquire(fd, locked_as)
    finally:
        os.close(fd)


def image_size(store: Store, config: AppConfig) -> int | None:
    """Return the size of the image that the data of an app lies in; a plain user can mount none."""
    return None if store.rootless else config.policy.max_size


def root_status(store: Store, base: Base) -> os.stat_result | None:
    """Return what an upper over ``base`` is to look like, `make_data`."""
    if base.name == HOST_BASE and store.rootless:
        return None
    fd = store.open_base(base)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)
