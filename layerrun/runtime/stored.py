"""A plan as the front door wants it: with what it was made from, so that it can be seen to be current.

What is in the catalog needs no check (see `layerrun.store.plans`). What is not is compared at each
start: the caller, the host's mounts, the files that decided something, layerrun itself. The format is
prose in docs/plan.md; csrc/stored.c reads it, csrc/door.c compares.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from layerrun.model import HOST_BASE, App, Home
from layerrun.policy import NetworkKind
from layerrun.runtime import door, pasta
from layerrun.runtime.sums import fnv, names
from layerrun.store.plans import signature, upper_state, write_plan

if TYPE_CHECKING:
    from layerrun.runtime.plan import Plan
    from layerrun.store.store import Store

__all__ = ["caller", "mode", "mounts_sum", "signature", "store_plan", "stored_plan", "upper_states"]

_MOUNTS = "/proc/self/mountinfo"


def mode(path: str) -> str:
    """Return what decides who may do what with a file: mode, owner, group; ``-``: not there."""
    try:
        info = os.lstat(path)
    except OSError:
        return "-"
    return f"{info.st_mode:o}:{info.st_uid}:{info.st_gid}"


def caller() -> str:
    """Return the ids and the groups of this process: they decide what can be read, mapped and shown."""
    groups = ",".join(map(str, os.getgroups()))
    return f"{os.geteuid()}:{os.getegid()}:{os.getuid()}:{os.getgid()}:{groups}"


def _real(path: str) -> str:
    return os.path.realpath(path) if os.path.exists(path) else "-"


def _files(app: App, plan: Plan) -> list[str]:
    """Return the files outside the catalog whose content a plan depends on."""
    from layerrun import runtime

    # Where passwd and its kin came from elsewhere (LDAP), a change there is not seen: see docs/plan.md.
    files = ["/etc/passwd", "/etc/subuid", "/etc/subgid"]
    files.append(door.locate() or door.beside())
    files += sorted(entry.path for top in runtime.__path__ for entry in os.scandir(top) if entry.is_file())
    return files


def mounts_sum() -> str:
    """Return the sum of what is mounted now. Take it before a plan is compiled: a mount made since outdates it."""
    with open(_MOUNTS, "rb") as file:
        return fnv(file.read())


def _conditions(app: App, plan: Plan, mounts: str) -> Iterator[tuple[str, str, str]]:
    """Yield what must be as it is now for the plan to hold: key, subject, what it is now."""
    yield "sum", _MOUNTS, mounts
    for path in _files(app, plan):
        yield "file", path, signature(path)
    over_host = app.config.base == HOST_BASE
    for path, entries in ({"/": names("/")} | plan.listed if over_host else {}).items():
        yield "names", path, entries
    for path in dict.fromkeys(["/", *plan.judged] if over_host else plan.judged):
        yield "mode", path, mode(path)
    if app.config.policy.grants().network.kind is NetworkKind.PRIVATE:
        for path in pasta.sources():
            yield "file", path, signature(path)
    for path in ("/etc/resolv.conf", "/etc/hosts"):
        yield "real", path, _real(path)
    if app.config.home is Home.SHARE or not _is_known(os.geteuid()):
        home = os.environ.get("HOME")
        yield "env", "HOME", "-" if home is None else f"={home}"
    # The plan of a start by a service manager listens for what the manager wants to hear.
    manager = os.environ.get("NOTIFY_SOCKET")
    yield "env", "NOTIFY_SOCKET", "-" if manager is None else f"={manager}"
    for (key, subject), was in plan.seen.items():
        yield key, subject, was
    for top in ["/"] if over_host else [share.target for share in app.config.shares]:
        yield "cwd", top, "keep"


def _is_known(uid: int) -> bool:
    import pwd

    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


def stored_plan(
    store: Store, app: App, plan: Plan, mounts: str, uppers: Mapping[str, str] | None = None
) -> bytes:
    """Return a plan as it is stored; ``plan`` has the app's own command.

    ``mounts`` is the `mounts_sum` of before the plan was compiled. ``uppers``, a spare's, is what
    `upper_states` gave.
    """
    info = os.fstat(store.fd)
    words = [
        "layerrun-stored",
        "1",
        caller(),
        f"{info.st_dev}:{info.st_ino}",
        store.path,
        f"apps/{app.id}",
        app.name,
    ]
    for condition in _conditions(app, plan, mounts):
        words += condition
    for path, state in (uppers or {}).items():
        words += ["upper", path, state]
    words.append("plan")
    data = b"".join(os.fsencode(word) + b"\0" for word in words) + plan.to_bytes()
    return data + fnv(data).encode("ascii") + b"\0"


def store_plan(store: Store, app: App, plan: Plan, mounts: str) -> None:
    """Store the plan of an app that is locked, for later starts; see `stored_plan`.

    What cannot be stored (a full disk) is not: the next start asks Python again.
    """
    write_plan(store, app, stored_plan(store, app, plan, mounts))


def upper_states(data: str) -> dict[str, str] | None:
    """Return the folders of a data unit's upper with their `upper_state`; ``None`` if it holds anything else."""
    states = {}
    for path, _, files in os.walk(os.path.join(data, "upper")):
        if files:
            return None
        states[path] = upper_state(path)
    return states
