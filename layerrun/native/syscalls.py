"""The few system calls that Python 3.11 lacks: the kernel's names and argument order, no policy.

ctypes costs some milliseconds to import, so it is imported by the first call.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ctypes

__all__ = [
    "CLONE_NEWNET",
    "CLONE_NEWUSER",
    "RENAME_EXCHANGE",
    "RENAME_NOREPLACE",
    "landlock_abi",
    "renameat2",
    "setns",
    "syncfs",
    "unshare",
]

RENAME_NOREPLACE = 1
RENAME_EXCHANGE = 2
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000


@functools.cache
def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: str | None = None) -> None:
    if result != 0:
        import ctypes

        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)


def renameat2(old_fd: int, old: str, new_fd: int, new: str, flags: int) -> None:
    """rename(2) with flags; raises `OSError`."""
    _check(_libc().renameat2(old_fd, os.fsencode(old), new_fd, os.fsencode(new), flags), new)


def syncfs(fd: int) -> None:
    """Write out the whole file system of ``fd``, syncfs(2); raises `OSError`."""
    _check(_libc().syncfs(fd))


def landlock_abi() -> int:
    """Return the version of Landlock's interface, 0 where the kernel has none or it is switched off; landlock(7)."""
    version = _libc().syscall(444, None, 0, 1)  # landlock_create_ruleset, LANDLOCK_CREATE_RULESET_VERSION
    return max(int(version), 0)


def unshare(flags: int) -> None:
    """Leave the namespaces in ``flags``, unshare(2); raises `OSError`."""
    _check(_libc().unshare(flags))


def setns(fd: int, kind: int) -> None:
    """Move the calling thread into a namespace, setns(2); raises `OSError`."""
    _check(_libc().setns(fd, kind))
