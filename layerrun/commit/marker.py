"""That a commit is under way in a store: its lock, and the file ``unfinished``, which every command looks for.

The front door does (csrc/current.c), and leaves what is to be done to Python then; so does `Store.open`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerrun.commit import journal
from layerrun.errors import BusyError, DamagedError
from layerrun.store.fs import explain, make_dir, present, read_text
from layerrun.store.locks import lock_file

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["NAME", "clear", "locked", "next_number", "read", "write"]

NAME = "unfinished"
_PATIENCE = 10.0


@contextmanager
def locked(store: Store, *, wait: float = _PATIENCE) -> Iterator[None]:
    """Hold the lock that one commit, undo or redo at a time has. Raises `BusyError`."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with explain("open the lock of the commits of", store.path):
        if not present(store.fd, "commits"):  # a store from before there were commits
            with contextlib.suppress(FileExistsError):
                make_dir(store.fd, "commits")
        fd = os.open("commits/lock", flags, 0o600, dir_fd=store.fd)
    try:
        if not lock_file(fd, exclusive=True, wait=wait):
            raise BusyError("another commit is under way", hint="wait for it to end, then try again")
        yield
    finally:
        os.close(fd)


def write(store: Store, id_: str, doing: str) -> None:
    """Say durably what is under way; ``doing`` is ``commit``, ``undo`` or ``redo``."""
    with explain("begin a commit in", store.path):
        journal.write_json(store.fd, NAME, {"commit": id_, "doing": doing})


def read(store: Store) -> tuple[str, str] | None:
    """Return the id of what is under way or was cut short, and what was being done. Raises `DamagedError`."""
    text = read_text(store.fd, NAME)
    if text is None:
        return None
    try:
        data = json.loads(text)
        id_, doing = str(data["commit"]), str(data["doing"])
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{NAME!r} in the store {store.path!r} is damaged: {error}") from error
    if not (len(id_) == 16 and id_.isalnum()):
        raise DamagedError(f"{NAME!r} in the store {store.path!r} is damaged: {id_!r}")
    return id_, doing


def clear(store: Store) -> None:
    """Say durably that nothing is under way any more."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(NAME, dir_fd=store.fd)
    os.fsync(store.fd)


def next_number(store: Store) -> int:
    """Return a number that no commit had; within a transaction."""
    commits = store.catalog.commits()
    last = read_text(store.fd, "commits/last") or "0"
    number = max(commits[-1].number if commits else 0, int(last) if last.strip().isdigit() else 0) + 1
    with explain("number a commit in", store.path):
        fd = os.open("commits", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=store.fd)
        try:
            journal.put(fd, "last", b"%d\n" % number)
        finally:
            os.close(fd)
    return number
