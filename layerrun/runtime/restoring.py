"""Chosen paths of an app as they were at a snapshot, or as the factory state has them; all else stays."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import NotFoundError
from layerrun.model import HOST_BASE, App, Home, Snapshot, check_path
from layerrun.runtime import identity, jobs, snapshots
from layerrun.store.freezing import Restack
from layerrun.store.fs import open_dir, present

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["restore", "to_base", "to_factory"]


def restore(store: Store, app: App, snapshot: str, paths: Sequence[str]) -> Snapshot | None:
    """Let an app have at ``paths`` what it had there at a snapshot; each with all in it.

    ``paths`` are absolute, as seen inside. What the app has now, if that is no snapshot already, becomes one first,
    which is returned. Nothing changes unless all can be done. Raises `BusyError`, `UsageError`, `NotFoundError`: no
    such snapshot, or neither it nor the app has anything at a path.
    """
    wanted = [check_path(path) for path in paths]
    with snapshots.locked(store, app, "restore") as now:
        found = snapshots.find(store, now, snapshot)
        like = attrs.evolve(now, config=attrs.evolve(now.config, layers=found.layers), frozen=found.frozen)
        return _put_back(store, now, like, wanted)


def to_factory(store: Store, app: App, paths: Sequence[str]) -> list[str]:
    """Let an app have at ``paths`` what its factory state has there; return those at which it had something else."""
    wanted = [check_path(path) for path in paths]
    with snapshots.locked(store, app, "reset") as now:
        alike: list[str] = []

        def fill(data: int) -> None:
            same, missing = _fill(store, now, attrs.evolve(now, frozen=()), data, wanted)
            alike.extend(same + missing)

        snapshots.exchange(store, now, Restack(), fill=fill)
        return [path for path in wanted if path not in alike]


def to_base(store: Store, app: App, paths: Sequence[str]) -> tuple[list[str], Snapshot | None]:
    """Let an app have at ``paths`` what its base alone has there; return those at which it had something else.

    No layer is changed, since other apps and snapshots may have it: what the base has is copied into the upper, and
    what it does not have gets a whiteout. What the app was like before is a snapshot
    then, which is returned. Raises `BusyError`.
    """
    wanted = [check_path(path) for path in paths]
    with snapshots.locked(store, app, "take the base's files into") as now:
        bare = attrs.evolve(now, config=attrs.evolve(now.config, layers=()), frozen=())
        alike: list[str] = []

        def fill(data: int) -> None:
            same, missing = _fill(store, now, bare, data, wanted)
            alike.extend(same + missing)

        kept = snapshots.exchange(store, now, Restack(snapshot=True, automatic=True), fill=fill)
        return [path for path in wanted if path not in alike], kept


def _put_back(store: Store, app: App, like: App, paths: Sequence[str]) -> Snapshot | None:
    def fill(data: int) -> None:
        _, missing = _fill(store, app, like, data, paths)
        if missing:
            raise NotFoundError(f"there is nothing at {missing[0]!r}, neither then nor now")

    keep = snapshots.is_worth_keeping(store, app)
    return snapshots.exchange(store, app, Restack(snapshot=keep, automatic=keep), fill=fill)


def _fill(store: Store, app: App, like: App, data: int, paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Fill the empty data unit ``data``, which is to lie over what ``app`` has, with what ``like`` has at ``paths``.

    Return the paths at which both have the same, and those at which neither has anything.
    """
    home = identity.person(app).home if app.config.home is Home.FRESH else None
    in_home = [path for path in paths if home is not None and f"{path}/".startswith(f"{home.rstrip('/')}/")]
    same: list[str] = []
    missing: list[str] = []
    for part, chosen in (("upper", [path for path in paths if path not in in_home]), ("home", in_home)):
        if not chosen:
            continue
        top = home.rstrip("/") if part == "home" and home is not None else ""
        cross = part == "upper" and app.config.base == HOST_BASE
        with ExitStack() as opened:
            fds = [_folder(opened, data, part)]
            beneath = _stack(store, app, part, opened, upper=True)
            fds += beneath + _stack(store, like, part, opened, upper=False)
            words = (len(beneath), [path[len(top) :].strip("/") for path in chosen], app.ids.userxattr, cross)
            found = jobs.on_files(app, jobs.put_back_job, fds, *words, helped=store.rootless)
        for shown, part_of in zip((same, missing), found, strict=True):
            shown += [f"{top}/{path}".rstrip("/") or "/" for path in part_of]
    return same, missing


def _folder(opened: ExitStack, dir_fd: int, path: str) -> int:
    fd = open_dir(dir_fd, path, closed=True)
    opened.callback(os.close, fd)
    return fd


def _stack(store: Store, app: App, part: str, opened: ExitStack, *, upper: bool) -> list[int]:
    """Open what an app shows, the topmost first: with its upper, or without."""
    fds = []
    if upper:
        fds.append(store.open_data(app, part))
        opened.callback(os.close, fds[0])
    if part == "upper":
        lowers = store.lower_fds(app)
        for fd in lowers:
            opened.callback(os.close, fd)
        return fds + lowers
    homes = [f"layers/{layer}/home" for layer in reversed(app.stack)]
    return fds + [_folder(opened, store.fd, home) for home in homes if present(store.fd, home)]
