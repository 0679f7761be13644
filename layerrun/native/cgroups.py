"""Control groups, cgroups(7), as the C core makes them: one for each app that runs, where the caller may make one.

csrc/cgroup.c makes it beneath the caller's own group and leaves a link to it in the app's folder.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

__all__ = ["controllers", "group_name", "kill", "mount_point", "processes", "remove", "sweep"]

_LINK = "cgroup"
_PREFIX = "layerrun-"
_OLD = 86400.0
_TRIES = 10
_MOMENT = 0.005
_ESCAPES = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


def group_name(app_id: str) -> str:
    """Return the name of an app's group."""
    return f"{_PREFIX}{app_id}"


def controllers(mount: str) -> frozenset[str]:
    """Return the controllers that the group of a limited app would have if this process started it."""
    from layerrun.native import lib

    found = lib.lr_cgroup_controllers(os.fsencode(mount))
    names = {
        "cpu": lib.LR_CONTROLLER_CPU,
        "io": lib.LR_CONTROLLER_IO,
        "memory": lib.LR_CONTROLLER_MEMORY,
        "pids": lib.LR_CONTROLLER_PIDS,
    }
    return frozenset(name for name, bit in names.items() if found & bit)


def mount_point() -> str | None:
    """Return where the hierarchy of version 2 can be written to, proc_pid_mountinfo(5), or ``None``."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            before, _, after = line.partition(" - ")
            fields = before.split(" ")
            if after.startswith("cgroup2 ") and fields[3] == "/" and "rw" in fields[5].split(","):
                path = fields[4]
                for escape, char in _ESCAPES:
                    path = path.replace(escape, char)
                return path
    return None


def _group(folder: str, app_id: str) -> str | None:
    """Return the path of the group of the app whose folder is ``folder``, if it has had one."""
    try:
        path = os.readlink(f"{folder}/{_LINK}")
    except OSError:
        return None
    return path if os.path.basename(path) == group_name(app_id) else None


def processes(folder: str, app_id: str, pid: int) -> list[int] | None:
    """Return the pids in an app's group, if ``pid``, the app's pid 1, is one of them; else ``None``."""
    group = _group(folder, app_id)
    if group is None:
        return None
    try:
        with open(f"{group}/cgroup.procs", encoding="ascii") as file:
            pids = [int(line) for line in file]
    except (OSError, ValueError):
        return None
    return pids if pid in pids else None


def kill(folder: str, app_id: str, pid: int) -> bool:
    """Send SIGKILL to all of an app's group at once, if ``pid`` is in it; say whether that was done."""
    if processes(folder, app_id, pid) is None:
        return False
    try:
        with open(f"{_group(folder, app_id)}/cgroup.kill", "w", encoding="ascii") as file:
            file.write("1")
    except OSError:  # before Linux 5.14; or it is not ours to kill from here
        return False
    return True


def remove(folder: str, app_id: str) -> None:
    """Remove the group of an app, if it does not run. The link stays: a later start makes the group again.

    Call it after `kill`. The kernel (Linux 6.18) takes a process that is cloned into a group to be killed with it
    if the group it came from has seen another number of kills, and the launcher then has to begin anew.
    """
    group = _group(folder, app_id)
    if group is not None:
        for _ in range(_TRIES):
            try:
                os.rmdir(group)
            except OSError as error:
                if error.errno != errno.EBUSY:  # a process leaves its group a moment after it was waited for
                    break
                time.sleep(_MOMENT)
            else:
                break
        sweep(os.path.dirname(group), older=_OLD)


def sweep(parent: str, *, older: float) -> None:
    """Remove the groups beneath ``parent`` that hold nobody and were made more than ``older`` seconds ago.

    Their stores may be gone. Of an app that still is, the next start makes it again; one that is just starting
    does without.
    """
    with suppress(OSError):
        names = [name for name in os.listdir(parent) if name.startswith(_PREFIX)]
        for path in (os.path.join(parent, name) for name in names):
            with suppress(OSError):
                if time.time() - os.stat(path).st_ctime > older:
                    os.rmdir(path)
