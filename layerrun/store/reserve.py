"""The reserve: a little space kept back, so that a full disk never keeps anyone from clearing data.

Clearing data needs some blocks and some inodes before it gives any back: a folder to stage in, a page of
the catalog's log, the log's shared memory. ``reserve/`` holds files of just that use: they are deleted
when there is no room, and made again once there is.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from layerrun.errors import SystemError
from layerrun.store.fs import DIR_FLAGS, make_dir

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["FOLDER", "keep", "lend", "using", "without_fail"]

T = TypeVar("T")

FOLDER = "reserve"
FILES = 16
SIZE = 65536

# With less than this beside it the reserve would itself be what fills the disk.
_AMPLE = 16 * FILES * SIZE
_FULL = (errno.ENOSPC, errno.EDQUOT)


def using(store: Store, work: Callable[[], T], most: int = FILES) -> T:
    """Do what makes room; where there is none to do it in, again with that of ``most`` files of the reserve.

    ``store.lent`` then says that the reserve is to be made good when the store is closed.
    """
    try:
        return work()
    except SystemError as error:
        if error.errno not in _FULL or not lend(store.fd, most):
            raise
        store.lent = True
        return work()


@contextmanager
def without_fail() -> Iterator[None]:
    """Tidy up, or not: a full disk may keep us from that, but not from what makes room."""
    try:
        yield
    except SystemError as error:
        if error.errno not in _FULL:
            raise


def keep(store_fd: int, *, ample: bool = True) -> None:
    """Make what the reserve lacks; with ``ample`` only where there is much more room than it takes."""
    with suppress(OSError):
        os.stat(f"{FOLDER}/{FILES - 1}", dir_fd=store_fd, follow_symlinks=False)
        return
    space = os.fstatvfs(store_fd)
    if ample and space.f_bavail * space.f_frsize < _AMPLE:
        return
    # Whatever goes wrong, it is only a precaution that is not taken.
    with suppress(OSError):
        with suppress(FileExistsError):
            make_dir(store_fd, FOLDER)
        fd = os.open(FOLDER, DIR_FLAGS, dir_fd=store_fd)
        try:
            _fill(fd)
        finally:
            os.close(fd)


def _fill(fd: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    # The last one, which says that all are there, comes last.
    for name in map(str, range(FILES)):
        with suppress(FileExistsError):
            file = os.open(name, flags, 0o600, dir_fd=fd)
            try:
                os.posix_fallocate(file, 0, SIZE)
            except OSError:
                os.unlink(name, dir_fd=fd)
                raise
            finally:
                os.close(file)


def lend(store_fd: int, most: int = FILES) -> bool:
    """Give up to ``most`` files of the reserve back to the disk; say whether there were any."""
    found = 0
    for name in reversed(range(FILES)):
        if found == most:
            break
        with suppress(OSError):
            os.unlink(f"{FOLDER}/{name}", dir_fd=store_fd)
            found += 1
    return found > 0
