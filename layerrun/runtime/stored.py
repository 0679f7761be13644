"""A plan as the front door wants it: with what it was made from, so that it can be seen to be current.

What is in the catalog needs no check (see `layerrun.store.plans`). What is not is compared at each
start: the host's mounts, the files that decided something, layerrun itself. Mirrors csrc/door.c.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from layerrun.model import HOST_BASE, App
from layerrun.runtime import compile as compiler
from layerrun.store.plans import write_plan

if TYPE_CHECKING:
    from layerrun.runtime.plan import Plan
    from layerrun.store.store import Store

__all__ = ["fnv", "signature", "store_plan"]

_MASK = (1 << 64) - 1


def fnv(data: bytes) -> str:
    """Return the 64-bit FNV-1a hash of ``data`` in hexadecimal."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & _MASK
    return f"{value:016x}"


def signature(path: str) -> str:
    """Return what identifies a file as unchanged: device, inode, modification, mode, size; ``-``: not there."""
    try:
        info = os.lstat(path)
    except OSError:
        return "-"
    seconds, rest = divmod(info.st_mtime_ns, 1_000_000_000)
    return f"{info.st_dev}:{info.st_ino}:{seconds}.{rest:09d}:{info.st_mode:o}:{info.st_size}"


def _files(app: App, plan: Plan) -> list[str]:
    """Return the files outside the catalog that a plan depends on."""
    files = ["/etc/resolv.conf", "/etc/passwd", "/etc/subuid", "/etc/subgid"]
    files += [os.path.join(os.path.dirname(sys.executable), "layerrun"), compiler.__file__]
    if app.config.base == HOST_BASE:
        files += ["/", *plan.listed]
    return files


def store_plan(store: Store, app: App, plan: Plan) -> None:
    """Store the plan of an app that is locked, for later starts. ``plan`` has the app's own command."""
    with open("/proc/self/mountinfo", "rb") as file:
        mounts = fnv(file.read())
    info = os.fstat(store.fd)
    words = ["layerrun-stored", "1", str(os.geteuid()), f"{info.st_dev}:{info.st_ino}", f"apps/{app.id}"]
    words += ["mounts", mounts]
    for path in _files(app, plan):
        words += ["file", path, signature(path)]
    tops = ["/"] if app.config.base == HOST_BASE else [share.target for share in app.config.shares]
    for top in tops:
        words += ["cwd", top]
    words.append("plan")
    data = b"".join(os.fsencode(word) + b"\0" for word in words) + plan.to_bytes()
    write_plan(store, app, data + fnv(data).encode("ascii") + b"\0")
