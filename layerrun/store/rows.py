"""What the parts of the catalog have in common: one connection, and SQLite's errors in layerrun's words."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from layerrun.errors import BusyError, DamagedError, StoreError, SystemError

__all__ = ["Rows", "translated"]


@contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn SQLite's errors into layerrun's."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error, path) from error


def _out_of_descriptors() -> bool:
    """Say whether no more descriptors are to be had; SQLite, which needs several, keeps errno to itself."""
    import errno

    fds: list[int] = []
    try:
        for _ in range(4):
            fds.append(os.open("/", os.O_PATH | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EMFILE
    finally:
        for fd in fds:
            os.close(fd)
    return False


def _translate(error: sqlite3.Error, path: str) -> Exception:
    import errno

    # The low byte is the primary result code, sqlite.org/rescode.html
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return BusyError(f"the catalog {path!r} is in use by another process", hint="try again")
    starved = code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _no_room(path)
    if code == sqlite3.SQLITE_FULL or starved:
        return SystemError(
            f"cannot write the catalog {path!r}: {os.strerror(errno.ENOSPC)}",
            errno=errno.ENOSPC,
            path=path,
            hint="free some space, or put the store elsewhere with LAYERRUN_STORE",
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return DamagedError(
            f"the catalog {path!r} is damaged: {error}",
            hint="restore it from a backup; `layerrun doctor` tells more",
        )
    if code == sqlite3.SQLITE_CANTOPEN and _out_of_descriptors():
        return SystemError(
            f"cannot open the catalog {path!r}: {os.strerror(errno.EMFILE)}",
            errno=errno.EMFILE,
            path=path,
            hint="too few descriptors are allowed: raise `ulimit -n`",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN):
        return StoreError(
            f"cannot open the catalog {path!r}: {error}",
            hint="the store needs a writable file system with room; put it elsewhere with LAYERRUN_STORE",
        )
    if code == sqlite3.SQLITE_IOERR:
        return StoreError(
            f"cannot read or write the catalog {path!r}: {error}",
            hint="is the disk full or failing? see the kernel log",
        )
    return StoreError(f"the catalog {path!r} refused: {error}")


def _no_room(path: str) -> bool:
    """Say whether the disk has no space or no inodes left: SQLite says no more than that it failed."""
    try:
        space = os.statvfs(path)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < 65536 or (space.f_files > 0 and space.f_favail < 4)


class Rows:
    """A connection to the database at ``path``. `layerrun.store.catalog.Catalog` alone makes it."""

    path: str
    _db: sqlite3.Connection

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with translated(self.path):
            return self._db.execute(query, values).fetchall()
