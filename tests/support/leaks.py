"""What a test left behind: mounts, processes.

The test process makes itself the reaper of all that descends from it (PR_SET_CHILD_SUBREAPER), so that
whatever a launch orphans comes to light as its child instead of disappearing below the machine's init.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time

PR_SET_CHILD_SUBREAPER = 36
# The names of the folders of this run of the tests; those of another run beside it are its own business.
PREFIX = f"layerrun-test-{os.getpid()}-"
FOREIGN = re.compile(rf"\S+ /var/tmp/layerrun-test-(?!{os.getpid()}-)\d+-")
# Background removal of trash is meant to outlive its command; it gets this long to end.
PATIENCE = 15.0


def become_reaper() -> None:
    """Adopt every orphan that descends from this process."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _mounts() -> set[str]:
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        # Without the mount's own id, the parent's and the device: those of a remount may change.
        found = {" ".join(line.split(" ")[3:5]) + " " + line.split(" - ", 1)[1].strip() for line in file}
    return {mount for mount in found if not FOREIGN.match(mount)}


def _parents() -> dict[int, tuple[int, str]]:
    parents = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
            parents[int(name)] = (int(fields[1]), fields[0])
    return parents


def _descendants() -> set[int]:
    parents = _parents()
    found = {os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in parents.items() if parent in found} - found
        found |= more
        grown = bool(more)
    found.discard(os.getpid())
    return {
        pid for pid in found if not (parents[pid][1] == "Z" and parents[pid][0] == os.getpid() and _reap(pid))
    }


def _reap(pid: int) -> bool:
    """Collect a dead orphan; a child of a live Popen is left to it."""
    if any(child.pid == pid for child in getattr(subprocess, "_active", ())):
        return True
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return True


def _say(pid: int) -> str:
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            line = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
        with open(f"/proc/{pid}/comm") as file:
            return f"process {pid} {line or '(' + file.read().strip() + ')'}"
    return f"process {pid}"


class Watch:
    """What was there before a test, to be compared with what is there after it."""

    def __init__(self) -> None:
        self.mounts = _mounts()
        self.processes = _descendants()

    def leaks(self) -> list[str]:
        """Return what is there now and was not, after giving it time to go; then end it."""
        end = time.monotonic() + PATIENCE
        while True:
            processes = _descendants() - self.processes
            mounts = _mounts() - self.mounts
            if not processes and not mounts:
                return []
            if time.monotonic() > end:
                break
            time.sleep(0.005)
        found = [_say(pid) for pid in sorted(processes)]
        for pid in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for mount in sorted(mounts):
            found.append("mount " + mount)
            target = mount.split(" ")[1].encode().decode("unicode_escape").encode("latin-1")
            subprocess.run(["umount", "-l", target], check=False, capture_output=True)
        return found
