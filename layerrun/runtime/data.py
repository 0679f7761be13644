"""The verbs on what an app has written: diff, usage, reset, caches, and where a path comes from."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from layerrun.changes import Change
from layerrun.errors import DamagedError, NotFoundError
from layerrun.layers.delta import Delta
from layerrun.layers.diff import change_of
from layerrun.layers.globs import Globs
from layerrun.model import HOST_BASE, App, Home, IdMode
from layerrun.native.trees import Usage, open_beneath
from layerrun.runtime import identity, jobs
from layerrun.runtime.uppers import read_roots
from layerrun.store import reserve
from layerrun.store.fs import open_dir
from layerrun.store.plans import forget_plan

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = [
    "Where",
    "cache_usage",
    "clear_cache",
    "deltas",
    "diff",
    "discard",
    "literal",
    "matching",
    "put_together",
    "reset",
    "reset_paths",
    "tidy",
    "together",
    "usage",
    "usages",
    "which",
]


@attrs.frozen
class Where:
    """Where a path inside comes from.

    ``layer`` is ``upper``, ``layer``, ``base``, ``share``, ``home``, ``hidden`` or ``private``;
    ``whiteout`` says that the upper deletes it.
    """

    path: str
    layer: str
    whiteout: bool
    detail: str


@contextlib.contextmanager
def _opened(store: Store, app: App, data: int | None = None) -> Iterator[tuple[int, list[int]]]:
    """Yield the upper and what lies beneath it, open. ``data``: its folder, if it is open already."""
    with contextlib.ExitStack() as stack:
        upper = store.open_data(app, "upper") if data is None else open_dir(data, "upper", closed=True)
        stack.callback(os.close, upper)
        lowers = store.lower_fds(app)
        for fd in lowers:
            stack.callback(os.close, fd)
        yield upper, lowers


def _over_host(app: App) -> bool:
    return app.config.base == HOST_BASE


def diff(store: Store, app: App) -> list[Change]:
    """Return what the app changes against its factory state, sorted by path within each folder."""
    from layerrun.runtime import comparing

    old, new = comparing.factory_of(store, app), comparing.of_app(store, app)
    return list(map(change_of, comparing.rows(store, old, new)))


def _roots(store: Store, app: App) -> list[str]:
    if not _over_host(app):
        return []
    fd = store.open_data(app)
    try:
        return ["/", *(os.fsdecode(path) for path in read_roots(fd))]
    finally:
        os.close(fd)


def deltas(store: Store, app: App) -> list[Delta]:
    """Return every entry of the app's upper and everything it hides, both sides in full; in the order of `diff`."""
    with _opened(store, app) as (upper, lowers):
        arguments = app.ids.userxattr, _over_host(app), _roots(store, app)
        try:
            if app.ids is IdMode.SUBIDS:
                raise PermissionError(errno.EACCES, "the files are other ids'")
            # Flattened for a helper they would take three times as long.
            changes = list(jobs.walk_deltas(upper, *lowers, *arguments))
        except OSError as error:
            if error.errno != errno.EACCES or os.geteuid() == 0:
                raise
            changes = jobs.deltas_from(jobs.on_files(app, jobs.deltas_job, [upper, *lowers], *arguments))
    begun = put_together(store, app)
    return changes if begun is None else [delta._replace(since_ns=begun) for delta in changes]


def put_together(store: Store, app: App) -> int | None:
    """Return since when (ns) there may be changes in an upper that was put together of layers; ``None``: it was not.

    Its entries are copies, and younger than what they hold.
    """
    from layerrun.runtime.units import noted_since

    data = store.open_data(app)
    try:
        return noted_since(data)
    finally:
        os.close(data)


def usage(store: Store, app: App) -> Usage:
    """Return how much a reset would clear: the upper, the layers that snapshots made of it, a fresh home."""
    own, layers = _usages(store, app, app.frozen)
    return together([own, *layers.values()])


def usages(store: Store, app: App, known: Mapping[str, Usage]) -> tuple[Usage, dict[str, Usage]]:
    """Return how much the upper and a fresh home hold, and, by its id, each layer that it or a snapshot stands on.

    ``known``: layers that were measured before.
    """
    stacks = [app.stack, *(found.stack for found in store.catalog.snapshots(app.id))]
    layers = list(dict.fromkeys(layer for stack in stacks for layer in stack))
    own, measured = _usages(store, app, [layer for layer in layers if layer not in known])
    return own, {layer: known[layer] for layer in layers if layer in known} | measured


def together(found: Iterable[Usage]) -> Usage:
    """Return the sums."""
    return Usage(*map(sum, zip(*found, strict=True)))


def _usages(store: Store, app: App, layers: Iterable[str]) -> tuple[Usage, dict[str, Usage]]:
    with contextlib.ExitStack() as stack:
        fds, there = [], []
        for name in ("upper", "home") if app.config.home is Home.FRESH else ("upper",):
            fds.append(store.open_data(app, name))
            stack.callback(os.close, fds[-1])
        own = len(fds)
        for layer in layers:
            # One that is gone was squashed meanwhile, or the store is damaged, which is doctor's to say.
            with contextlib.suppress(DamagedError):
                fds.append(store.open_layer(layer))
                stack.callback(os.close, fds[-1])
                there.append(layer)
        found = [Usage(*values) for values in jobs.on_files(app, jobs.usage_job, fds)]
        return together(found[:own]), dict(zip(there, found[own:], strict=True))


def reset(store: Store, apps: Sequence[App]) -> None:
    """Clear the data of each app, each in one step. Stops at the first that is running, `BusyError`."""
    for app in apps:
        store.reset_app(app.name, only=app.id)


def matching(store: Store, app: App, globs: Sequence[str]) -> list[Change]:
    """Return the changes that `reset_paths` would take back, without doing anything."""
    patterns = Globs(globs)
    return [change for change in diff(store, app) if patterns.matches_within(change.path)]


def reset_paths(store: Store, app: App, globs: Sequence[str]) -> list[str]:
    """Let what lies beneath show through again where a pattern matches; return the paths that came back."""
    Globs(globs)  # a bad pattern is an error before anything is locked

    def work() -> list[str]:
        if app.frozen:
            return _to_factory(store, app, _topmost(change.path for change in matching(store, app, globs)))
        with _changing(store, app, "reset") as (data, trash_fd):
            return _restore(store, app, data, trash_fd, globs)

    return reserve.using(store, work)


def _topmost(paths: Iterable[str]) -> list[str]:
    """Leave out the paths that lie in another of them."""
    found: list[str] = []
    for path in sorted(paths, key=lambda path: path.split("/")):
        if not found or not f"{path}/".startswith(f"{found[-1]}/"):
            found.append(path)
    return found


def _to_factory(store: Store, app: App, paths: list[str]) -> list[str]:
    """Take back what an app with frozen layers has at paths, wherever in them it lies; return those that came back."""
    from layerrun.runtime import restoring

    return restoring.to_factory(store, app, paths) if paths else []


def tidy(store: Store, app: App, *, dry_run: bool = False) -> list[str]:
    """Drop what the app's upper has and what is the same beneath; return the paths, a folder after what was in it.

    With ``dry_run`` nothing is done, and the app may run.
    """
    if dry_run:
        with _opened(store, app) as (upper, lowers):
            found = _droppable(store, app, upper, lowers)
    else:
        with _changing(store, app, "tidy") as (data, trash_fd), _opened(store, app, data) as (upper, lowers):
            found = _droppable(store, app, upper, lowers)
            jobs.on_files(app, jobs.drop_job, [upper, trash_fd], found)
    return ["/" + path for path in found]


def _droppable(store: Store, app: App, upper: int, lowers: list[int]) -> list[str]:
    options = app.ids.userxattr, _over_host(app), _roots(store, app)
    found: list[str] = jobs.on_files(app, jobs.tidy_job, [upper, *lowers], *options)
    return found


@contextlib.contextmanager
def _changing(store: Store, app: App, what: str) -> Iterator[tuple[int, int]]:
    """Lock an app to take things out of its data; yield that, and a folder for them, which is then deleted.

    Its plan is forgotten: the roots of overlays may be among what goes, and only Python makes them again.
    """
    with store.app_lock(app, what), store.ticket(app.ids) as ticket:
        forget_plan(store, store.app_again(app).name)
        data = store.open_data(app)
        try:
            if os.fstat(data).st_dev == os.fstat(ticket.fd).st_dev:
                yield data, ticket.fd
            else:
                with _trash_in(data) as trash:
                    yield data, trash
        finally:
            os.close(data)


@contextlib.contextmanager
def _trash_in(data: int) -> Iterator[int]:
    """Yield a folder in an image for what is taken out of an upper there: nothing is renamed to another file system."""
    from layerrun.native.trees import remove_tree

    fd = os.open("trash", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=data)

    def empty() -> None:
        for name in os.listdir(fd):
            remove_tree(fd, os.fsencode(name))

    try:
        empty()  # after one that was cut short
        yield fd
        empty()
    finally:
        os.close(fd)


def _restore(store: Store, app: App, data: int, trash_fd: int, globs: Sequence[str]) -> list[str]:
    with _opened(store, app, data) as (upper, lowers):
        restored: list[str] = jobs.on_files(
            app, jobs.restore_job, [trash_fd, upper, *lowers], app.ids.userxattr, _over_host(app), list(globs)
        )
    return restored


def _caches(app: App) -> list[str]:
    home = identity.person(app).home
    paths = ["/var/cache", *app.config.caches]
    if app.config.home is Home.OVERLAY:
        paths.append(posixpath.join(home, ".cache"))
    shares = [share.target for share in app.config.shares]
    return sorted({path for path in paths if not any(f"{path}/".startswith(f"{s}/") for s in shares)})


def literal(path: str) -> str:
    """Return a pattern that matches just this path."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def clear_cache(store: Store, app: App) -> list[str]:
    """Drop the app's cache paths from its upper and its fresh home; return those that held anything."""
    return reserve.using(store, lambda: _clear_cache(store, app))


def _clear_cache(store: Store, app: App) -> list[str]:
    if app.frozen:
        fresh = [posixpath.join(identity.person(app).home, ".cache")] * (app.config.home is Home.FRESH)
        return _to_factory(store, app, sorted([*_caches(app), *fresh]))
    with _changing(store, app, "clear the cache") as (data, trash_fd):
        dropped = _restore(store, app, data, trash_fd, [literal(path) for path in _caches(app)])
        if app.config.home is Home.FRESH:
            home = open_dir(data, "home", closed=True)
            try:
                if jobs.on_files(app, jobs.home_cache_job, [home, trash_fd]):
                    dropped.append(posixpath.join(identity.person(app).home, ".cache"))
            finally:
                os.close(home)
        return dropped


def cache_usage(store: Store, app: App) -> list[tuple[str, Usage]]:
    """Return each cache path that holds something, and how much."""
    found = []
    with contextlib.ExitStack() as stack:
        places = [("upper", path, path) for path in _caches(app)]
        if app.config.home is Home.FRESH:
            places.append(("home", "/.cache", posixpath.join(identity.person(app).home, ".cache")))
        for sub, relative, shown in places:
            top = store.open_data(app, sub)
            stack.callback(os.close, top)
            try:
                fd = open_beneath(top, os.fsencode(relative.strip("/")), os.O_RDONLY | os.O_DIRECTORY)
            except OSError:
                continue
            stack.callback(os.close, fd)
            found.append((shown, Usage(*jobs.on_files(app, jobs.usage_job, [fd])[0])))
    return found


def discard(store: Store, app: App) -> None:
    """Remove a throwaway, or an app, with its data."""
    store.remove_app(app.name, only=app.id)


def _by_configuration(app: App, path: str) -> Where | None:
    def within(top: str) -> bool:
        return path == top or path.startswith(top + "/")

    for share in app.config.shares:
        if within(share.target):
            return Where(path, "share", False, share.source + path[len(share.target) :])
    for top in app.config.hides:
        if within(top):
            return Where(path, "hidden", False, top)
    home = identity.person(app).home
    if app.config.home is not Home.OVERLAY and within(home):
        return Where(path, "home", False, app.config.home.value)
    tops = ("/dev", "/proc", "/run", "/sys") + (() if app.kind.value == "throwaway" else ("/tmp",))
    for top in tops:
        if within(top):
            return Where(path, "private", False, top)
    return None


def which(store: Store, app: App, path: str) -> Where:
    """Return where ``path``, as seen inside, comes from. Raises `NotFoundError` where there is nothing."""
    found = _by_configuration(app, path)
    if found is not None:
        return found
    with _opened(store, app) as (upper, lowers):
        state, at, beneath = jobs.on_files(
            app, jobs.which_job, [upper, *lowers], path, app.ids.userxattr, _over_host(app)
        )
        if state == "has":
            return Where(path, "upper", False, "the app's own layer")
        if state == "deletes" and beneath is not None:
            return Where(path, "upper", True, "" if at == path else f"{at} is deleted")
        if beneath is None or state in ("hides", "deletes"):
            raise NotFoundError(f"there is nothing at {path!r} in {app.name!r}")
    last = beneath == len(lowers) - 1
    return Where(path, "base" if last else "layer", False, app.config.base if last else f"layer {beneath}")
