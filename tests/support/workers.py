"""A worker of a run in parallel (pytest-xdist): what it has to itself, and which tests it gets.

It has plain users and, as every run has, a mount namespace of its own, so that what a test of another worker mounts,
or writes into a home, is not seen. Folders and leaks go by the process in any case, see `leaks`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

import pytest

# Folders whose tests share what takes long to make: Debian trees with packages, a probe that has run in every mode.
SHARED = ("programs", "escape")
LONG = ("programs", "test_sanitizers", "test_wheel", "test_both_ways", "test_crash", "test_profiles_crash")

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE, MS_SHARED = 0x4000, 0x40000, 0x100000

ID = ""


def settle(config: pytest.Config) -> None:
    """Have mounts of one's own, and become the worker that the run's first process made, if it did.

    A run in one process needs its own mounts too: what another run beside it mounts (its containers do, anywhere)
    would be taken for something that a test has left behind, and unmounted.
    """
    global ID  # noqa: PLW0603  (of the process; not of its environment, which runs within a test inherit)
    ID = getattr(config, "workerinput", {}).get("workerid", "")
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):  # where we may not, no test may mount either
            _leave_the_mounts()
    if ID and os.geteuid() == 0:
        from support import users

        for kind in (users.PLAIN, users.SINGLE):
            users.ensure(
                kind
            )  # before anybody's first test: /etc/passwd is part of what a stored plan depends on


def named(kind: str) -> str:
    """Return the name of a plain user of this worker's."""
    return f"{kind}-{ID}" if ID else kind


def _leave_the_mounts() -> None:
    """Have a copy of the mounts, which propagate among themselves as they did, but to nobody else's."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/mountinfo", errors="replace") as file:
        shared = any(line.split(" ")[4] == "/" and " shared:" in line for line in file)
    done = libc.unshare(CLONE_NEWNS) or libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None)
    if done or (shared and libc.mount(None, b"/", None, MS_REC | MS_SHARED, None)):
        raise OSError(ctypes.get_errno(), "have mounts of its own")


def group(nodeid: str) -> str:
    """Return the name of those tests that stay with one worker."""
    file = nodeid.partition("::")[0]
    folder = os.path.dirname(file)
    return folder if os.path.basename(folder) in SHARED else file


def scheduler(config: pytest.Config, log: object) -> object:
    """Return who deals the tests out, a group at a time. (--dist loadgroup does nothing with pytest 9.1.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return ByGroup(config, log)


def comes_last(item: pytest.Item) -> bool:
    """Say whether a test is none of those that take long."""
    return not {item.path.parent.name, item.path.stem} & set(LONG)
