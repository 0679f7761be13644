"""Limits: by what each is held on this machine, and the operations of a plan that hold it. See docs/limits.md."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

import attrs

from layerrun.model import App, AppKind, IdMode
from layerrun.native import cgroups
from layerrun.policy import RLIMITS, UNLIMITED, Grants, Limit
from layerrun.runtime.mountinfo import visible_mounts
from layerrun.runtime.plan import Plan

__all__ = ["Held", "add_limits", "held", "warnings"]

# The file of a control group, and of what number of getrlimit(2) there is less to be had without one.
_FILES = {
    "memory": "memory.max",
    "swap": "memory.swap.max",
    "pids": "pids.max",
    "cpu": "cpu.max",
    "io": "io.max",
}
_STANDS_IN = {"memory": RLIMITS["data"], "pids": RLIMITS["nproc"]}
# Microseconds: the usual one, and one in which a thousandth of a processor can be said (quotas are 1 ms and more).
_PERIOD, _LONG_PERIOD = 100_000, 1_000_000


@attrs.frozen
class Held:
    """By what a limit is held: ``cgroup``, ``rlimit`` or ``nothing``; and what there is to know about that."""

    name: str
    by: str
    note: str


def held(app: App, folder: str) -> list[Held]:
    """Return by what each limit of an app is held if it is started as this process is; ``folder`` is the app's."""
    grants = app.config.policy.grants()
    given = _controllers(app)
    return [_held(app, limit, given, folder) for limit in grants.limits.values()]


def warnings(app: App, folder: str) -> list[str]:
    """Return a line for each limit of an app that nothing holds here."""
    return [
        f"nothing holds the limit {one.name} here: {one.note}"
        for one in held(app, folder)
        if one.by == "nothing"
    ]


def _controllers(app: App) -> frozenset[str]:
    mount = cgroups.mount_point() if app.kind is AppKind.APP else None
    return frozenset() if mount is None else cgroups.controllers(mount)


def _held(app: App, limit: Limit, given: frozenset[str], folder: str) -> Held:
    name = limit.name
    if name in RLIMITS:
        return Held(name, "rlimit", "for each process by itself")
    if _FILES[name].partition(".")[0] in given and (name != "io" or _disk(folder) is not None):
        return Held(name, "cgroup", "for all of the app together")
    why = "this caller has no control group with that controller, see docs/limits.md"
    if name == "memory":
        return Held(name, "rlimit", f"for the private memory of each process by itself: {why}")
    if name == "pids" and app.ids is not IdMode.NONE:
        return Held(name, "rlimit", f"for each user inside by itself: {why}")
    if name == "io" and "io" in given:
        why = "the store is on no disk of its own"
    return Held(name, "nothing", why)


def add_limits(plan: Plan, app: App, grants: Grants, folder: str) -> None:
    """Add what holds the limits: in the app's control group, and where the start finds none, what stands in."""
    for limit in grants.limits.values():
        if limit.name in RLIMITS:
            plan.add("rlimit", RLIMITS[limit.name], limit.soft, limit.hard, "")
            continue
        file, value = _FILES[limit.name], _value(limit, folder)
        if value is not None and any(op.name == "cgroup" for op in plan.ops):
            plan.add("limit", file, value)
        if limit.name in _STANDS_IN and limit.soft != UNLIMITED:
            plan.add("rlimit", _STANDS_IN[limit.name], limit.soft, limit.soft, file)


def _value(limit: Limit, folder: str) -> str | None:
    if limit.name == "io":
        disk = _disk(folder)
        speed = "max" if limit.soft == UNLIMITED else str(limit.soft)
        return None if disk is None else f"{disk} rbps={speed} wbps={speed}"
    if limit.soft == UNLIMITED:
        return "max"
    if limit.name == "cpu":
        period = _PERIOD if limit.soft >= 10 else _LONG_PERIOD
        return f"{limit.soft * period // 1000} {period}"
    return str(limit.soft)


def _devices(folder: str) -> Iterator[int]:
    """Yield the device numbers that the file system of ``folder`` may lie on."""
    number = os.stat(folder).st_dev
    if os.major(number):
        yield number
        return
    # Some (btrfs) have a number of their own for each subvolume; the mount knows the device.
    found = [m for m in visible_mounts() if folder == m.path or folder.startswith(m.path.rstrip("/") + "/")]
    source = max(found, key=lambda mount: len(mount.path)).source if found else ""
    if source.startswith("/dev/"):
        info = os.stat(source)
        if stat.S_ISBLK(info.st_mode):
            yield info.st_rdev


def _disk(folder: str) -> str | None:
    """Return the disk that ``folder`` lies on, as ``MAJOR:MINOR``; io.max knows no partitions."""
    try:
        for number in _devices(folder):
            place = f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
            if os.path.exists(f"{place}/partition"):
                place = os.path.dirname(os.path.realpath(place))
            with open(f"{place}/dev", encoding="ascii") as file:
                return file.read().strip()
    except OSError:
        pass
    return None
