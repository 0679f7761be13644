"""What a front door keeps running inside, to wait for its end once the front door was killed.

A kill reaches the inside through the kernel: pid 1 of the sandbox is told by its parent's death, or finds its socket
closed. That takes a moment, in which the app is still in use.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Collection, Iterable
from contextlib import suppress

__all__ = ["Inside"]

_EXITING = 0x4  # PF_EXITING of the kernel's include/linux/sched.h, in field 9 of proc_pid_stat(5)
_LIMIT = 10.0  # seconds: a process that waits for a disk or a server can take long to end
_MOMENT = 1.0
_STEP = 0.05


def _children(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _is_command(pid: int) -> bool:
    """Say whether this child of a sandbox's pid 1 is the first process it made, proc_pid_status(5)."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            return any(line.startswith("NSpid:") and line.split()[-1] == "2" for line in file)
    except OSError:
        return False


def _is_exiting(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return bool(int(file.read().rpartition(b")")[2].split()[6]) & _EXITING)
    except (OSError, IndexError):
        return True


def _words(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _open(pids: Iterable[int]) -> dict[int, int]:
    """Return pidfds of those that there still are."""
    fds = {}
    for pid in pids:
        with suppress(OSError):
            fds[pid] = os.pidfd_open(pid)
    return fds


def _copies(init: int) -> list[int]:
    """Return the processes of a sandbox that are copies of its pid 1: there is one for each command that has joined."""
    own = _words(init)
    return [pid for pid in _children(init) if own and _words(pid) == own]


def _wait(fds: Collection[int], seconds: float) -> bool:
    """Wait until one of some processes has ended, if there are any; say whether one has."""
    if not fds:
        return False
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return bool(poll.poll(max(seconds, 0) * 1000))


class Inside:
    """What a front door has made, or has joined: pid 1 of the sandbox and its command.

    Make it before the front door is killed: until that is waited for, its pid is its own, and so are its children.
    ``joined`` is the pid 1 that it has joined, as it has said.
    """

    def __init__(self, door: int, joined: int | None = None) -> None:
        self._inits: dict[int, int] = {}
        if joined:
            # Beside each command that has joined stands a copy of pid 1; nobody says which is whose.
            self._commands = _open(_copies(joined))
            return
        # Pid 1, and for a moment of the start what helps to make it.
        self._inits = _open(_children(door))
        self._commands = _open(pid for init in self._inits for pid in _children(init) if _is_command(pid))

    def wait(self) -> None:
        """Wait until the command has ended, and all of the sandbox if nobody else is in it."""
        try:
            if not self._inits:
                _wait(self._commands.values(), _MOMENT)
                return
            end = time.monotonic() + _LIMIT
            _wait(self._commands.values(), _LIMIT)
            # Pid 1 ends as well, in a moment, unless others have joined it.
            for pid, fd in self._inits.items():
                while not _wait([fd], _STEP) and time.monotonic() < end:
                    if not _is_exiting(pid) and _copies(pid):
                        break
        finally:
            self.close()

    def close(self) -> None:
        """Stop watching."""
        for held in (self._inits, self._commands):
            while held:
                os.close(held.popitem()[1])

    def __del__(self) -> None:
        self.close()
