"""What this machine and this store can do, found out by doing it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Literal

import attrs

from layerrun.errors import LayerrunError, NotFoundError
from layerrun.model import AppConfig, AppKind

__all__ = ["Check", "checks"]


@attrs.frozen
class Check:
    """One finding: ``ok``, ``warn`` (works, with less) or ``fail``, what was seen, and what to do."""

    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    hint: str | None = None


def _kernel() -> Check:
    release = os.uname().release
    numbers = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in release.split(".")[:2])
    # Since 6.15 a mount that is attached nowhere can be a layer: the idmapped ones of root's apps are.
    if numbers < (6, 15):
        hint = "root's apps need Linux 6.15, without --no-userns; plain users 6.12"
        return Check("kernel", "warn", f"Linux {release}", hint)
    return Check("kernel", "ok", f"Linux {release}")


def _landlock() -> Check:
    from layerrun.native.syscalls import landlock_abi

    version = landlock_abi()
    if version >= 6:
        return Check("landlock", "ok", f"version {version}: abstract sockets of the host are cut off")
    return Check(
        "landlock",
        "warn",
        f"version {version}: with the machine's network an app reaches the abstract sockets of the host",
        "Linux 6.12 or newer with landlock among the security modules, or --network none or private",
    )


def _overlay() -> Check:
    with open("/proc/filesystems", encoding="ascii") as file:
        known = "overlay" in file.read().split()
    if known:
        return Check("overlay", "ok", "the kernel has the overlay file system")
    return Check("overlay", "fail", "the kernel does not offer the overlay file system", "modprobe overlay")


def _namespaces() -> Check:
    from layerrun.runtime.explain import user_namespaces_forbidden

    found = user_namespaces_forbidden()
    if found:
        return Check("user namespaces", "fail", found, "change it with sysctl")
    return Check("user namespaces", "ok", "not forbidden by a sysctl")


def _subordinate_ids() -> Check:
    from layerrun.native.subids import subids

    if os.geteuid() == 0:
        return Check("ids", "ok", "each app gets a range of 65,536 ids of its own")
    found = subids()
    if found is None:
        return Check(
            "ids",
            "warn",
            "no subordinate ids: an imported base has one owner inside, and package managers may fail",
            "install uidmap, and add you to /etc/subuid and /etc/subgid",
        )
    return Check("ids", "ok", f"{found[2]} subordinate ids from {found[0]}")


def _groups() -> Check | None:
    from layerrun.native.subids import subids

    if os.geteuid() == 0 or len(set(os.getgroups()) | {os.getegid()}) == 1 or subids() is not None:
        return None
    return Check(
        "groups",
        "warn",
        "your supplementary groups stay in force inside: without subordinate ids they cannot be dropped",
        "install uidmap, and add you to /etc/subuid and /etc/subgid; or hide what only a group may read with --hide",
    )


def _host_files() -> Check | None:
    if os.geteuid() == 0:
        return None
    return Check(
        "files of root",
        "warn",
        "over the host, files of other owners can be read inside but not changed, as outside",
        "import a base with `layerrun base import` to have a root file system of your own",
    )


def _store(path: str | None) -> Iterator[Check]:
    from layerrun.store.store import Store

    try:
        with Store.open(path) as store:
            free = shutil.disk_usage(store.path).free
            status: Literal["ok", "warn"] = "warn" if free < 1 << 28 else "ok"
            yield Check("store", status, f"{store.path}, {free // (1 << 20)} MiB free")
            yield from _contents(store)
    except LayerrunError as error:
        yield Check("store", "fail", str(error), error.hint)


def _contents(store: object) -> Iterator[Check]:
    from layerrun.store.store import Store

    assert isinstance(store, Store)
    damaged = 0
    for app in store.apps():
        try:
            for fd in (store.open_data(app, "upper"), *store.lower_fds(app)):
                os.close(fd)
        except NotFoundError:  # removed meanwhile
            continue
        except LayerrunError as error:
            damaged += 1
            yield Check(f"{app.kind.value} {app.name}", "fail", str(error), error.hint)
    if not damaged:
        yield Check("contents", "ok", "everything that the catalog names is there")


def _start(path: str | None) -> Check:
    """Start ``true`` in a throwaway: every step of a start, once."""
    from layerrun.runtime import apps, launch
    from layerrun.store.store import Store

    name = "a start"
    try:
        with Store.open(path) as store:
            app = apps.create(store, None, AppConfig(), kind=AppKind.THROWAWAY)
            try:
                status = launch.run(store, app, ["true"])
            finally:
                store.remove_app(app.name)
    except LayerrunError as error:
        return Check(name, "fail", str(error), error.hint)
    if status:
        return Check(name, "fail", f"`true` over the host ended with {status}")
    return Check(name, "ok", "`true` ran in a throwaway over the host")


def checks(store_path: str | None) -> list[Check]:
    """Return every finding; nothing is left behind. ``store_path=None``: the default store."""
    single: list[Callable[[], Check | None]] = [
        _kernel, _overlay, _namespaces, _landlock, _subordinate_ids, _groups, _host_files,
    ]  # fmt: skip
    found = [check for check in (make() for make in single) if check is not None]
    found += _store(store_path)
    if not any(check.status == "fail" for check in found):
        found.append(_start(store_path))
    return found
