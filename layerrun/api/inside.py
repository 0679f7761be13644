"""What a front door keeps running inside, to wait for its end once the front door was killed.

A kill reaches the inside through the kernel: pid 1 of the sandbox is told by its parent's death, or finds its socket
closed. That takes a moment, in which the app is still in use.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress

__all__ = ["Inside"]

_EXITING = 0x4  # PF_EXITING of the kernel's include/linux/sched.h, in field 9 of proc_pid_stat(5)
_LIMIT = 10  # seconds: a process that waits for a disk or a server can take long to end


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


class Inside:
    """The sandbox that a front door has made, and its command. Make it before the front door is killed.

    Until that is waited for, its pid is its own, and so are its children.
    """

    def __init__(self, door: int) -> None:
        self._init = next(iter(_children(door)), None)
        self._fds: list[int] = []
        command = next(filter(_is_command, _children(self._init)), None) if self._init else None
        for pid in (self._init, command):
            if pid is not None:
                with suppress(OSError):
                    self._fds.append(os.pidfd_open(pid))

    def wait(self) -> None:
        """Wait until the command has ended, and all of the sandbox unless others have joined it."""
        try:
            for fd in reversed(self._fds):
                # Others keep pid 1 alive. If nobody does, the command ends because pid 1 is ending.
                if fd == self._fds[0] and len(self._fds) > 1 and self._init and not _is_exiting(self._init):
                    break
                poll = select.poll()
                poll.register(fd, select.POLLIN)
                poll.poll(_LIMIT * 1000)
        finally:
            while self._fds:
                os.close(self._fds.pop())

    def __del__(self) -> None:
        while self._fds:
            os.close(self._fds.pop())
