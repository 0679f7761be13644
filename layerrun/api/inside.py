"""What a front door keeps running inside, to wait for its end once the front door was killed.

A kill reaches the inside through the kernel: pid 1 of the sandbox is told by its parent's death, or finds its socket
closed. That takes a moment, in which the app is still in use.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from contextlib import suppress

__all__ = ["Inside"]

_EXITING = 0x4  # PF_EXITING of the kernel's include/linux/sched.h, in field 9 of proc_pid_stat(5)
_LIMIT = 10.0  # seconds: a process that waits for a disk or a server can take long to end
_MOMENT = 1.0


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


def _open(pids: Iterable[int]) -> list[int]:
    fds = []
    for pid in pids:
        with suppress(OSError):
            fds.append(os.pidfd_open(pid))
    return fds


def _wait(fds: Iterable[int], seconds: float) -> None:
    """Wait until one of some processes has ended."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    poll.poll(seconds * 1000)


class Inside:
    """What a front door has made, or has joined: pid 1 of the sandbox and its command.

    Make it before the front door is killed: until that is waited for, its pid is its own, and so are its children.
    ``joined`` is the pid 1 that it has joined, as it has said.
    """

    def __init__(self, door: int, joined: int | None = None) -> None:
        self._init = joined or next(iter(_children(door)), 0)
        beside = _children(self._init) if self._init else []
        if joined:
            # Beside each command that has joined stands a copy of pid 1; nobody says which is whose.
            own = _words(joined)
            self._fds = _open(pid for pid in beside if own and _words(pid) == own)
        else:
            self._fds = _open([self._init] if self._init else [])
            self._fds += _open(filter(_is_command, beside))
        self._joined = joined is not None

    def wait(self) -> None:
        """Wait until the command has ended, and all of the sandbox if nobody else is in it."""
        try:
            if self._joined and self._fds:
                _wait(self._fds, _MOMENT)
            elif self._fds:
                _wait(self._fds[1:] or self._fds, _LIMIT)
                # If nobody else keeps pid 1 alive, the command has ended because pid 1 is ending.
                if len(self._fds) > 1 and _is_exiting(self._init):
                    _wait(self._fds[:1], _LIMIT)
        finally:
            self.close()

    def close(self) -> None:
        """Stop watching."""
        while self._fds:
            os.close(self._fds.pop())

    def __del__(self) -> None:
        self.close()
