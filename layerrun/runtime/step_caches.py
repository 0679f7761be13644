"""Folders that steps of builds keep for the next build, ``caches/KEY`` of a store, and what gc takes of them."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import BusyError, LayerrunError
from layerrun.model import IdMode
from layerrun.runtime import jobs
from layerrun.store.fs import explain, make_dir, open_dir, present, write_file
from layerrun.store.garbage import Garbage
from layerrun.store.locks import lock_file
from layerrun.store.trash import to_trash

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["Kept", "garbage", "kept", "key_of", "locked"]

_FOLDER = "caches"
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
# A step that another build has the folder for may take its time.
_PATIENCE = 3600.0


def key_of(base: str, ids: IdMode, path: str) -> str:
    """Return the name of the folder for a path, over all versions of a base."""
    return hashlib.sha256(json.dumps([base, ids.value, path]).encode()).hexdigest()[:32]


@contextmanager
def locked(store: Store, base: str, ids: IdMode, path: str) -> Iterator[int]:
    """Hold the folder for a path, which is made if it is not there, and give it open; others wait.

    Raises `BusyError` if another build has it for an hour.
    """
    with ExitStack() as opened:
        with explain("open the cache for", path):
            folder, lock = _take(store, key_of(base, ids, path), path, opened)
            write_file(folder, "what", json.dumps({"base": base, "ids": ids.value, "path": path}))
            os.utime(lock)
        yield folder


def _take(store: Store, key: str, path: str, opened: ExitStack) -> tuple[int, int]:
    """Open the folder KEY and take its lock; return both."""
    deadline = time.monotonic() + _PATIENCE
    with suppress(FileExistsError):
        make_dir(store.fd, _FOLDER)
    caches = opened.enter_context(_opened(store.fd, _FOLDER))
    while True:
        with suppress(FileExistsError):
            make_dir(caches, key)
        try:
            folder = opened.enter_context(_opened(caches, key))
            lock = os.open("lock", _FLAGS, 0o600, dir_fd=folder)
        except FileNotFoundError:  # gc was quicker
            continue
        opened.callback(os.close, lock)
        if not lock_file(lock, exclusive=True, wait=deadline - time.monotonic()):
            raise BusyError(f"another build has the cache for {path!r}", hint="build again when it has ended")
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(key, dir_fd=caches, follow_symlinks=False), os.fstat(folder)):
                return folder, lock
        # Else gc has taken it away meanwhile.


@contextmanager
def _opened(dir_fd: int, path: str) -> Iterator[int]:
    fd = open_dir(dir_fd, path)
    try:
        yield fd
    finally:
        os.close(fd)


@attrs.frozen
class Kept:
    """A cache: its folder's name, the base's, the path as seen inside, and the bytes of disk that it takes."""

    key: str
    base: str
    ids: IdMode
    path: str
    allocated: int
    used: float


def kept(store: Store) -> Iterator[Kept]:
    """Yield the caches of a store; ``used`` is when a build wanted it last, in seconds since 1970."""
    if not present(store.fd, _FOLDER):
        return
    with _opened(store.fd, _FOLDER) as caches:
        for key in sorted(os.listdir(caches)):
            # One that is just being made, or is on its way out.
            with suppress(OSError, LayerrunError, ValueError, KeyError), _opened(caches, key) as folder:
                yield _kept(key, folder)


def _kept(key: str, folder: int) -> Kept:
    with open(os.open("what", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        said = json.load(file)
    ids = IdMode(said["ids"])
    used = os.stat("lock", dir_fd=folder, follow_symlinks=False).st_mtime
    size = jobs.on_ids(ids, jobs.usage_job, [folder])[0][2]
    return Kept(key, str(said["base"]), ids, str(said["path"]), int(size), used)


def garbage(store: Store, older_than: float) -> list[Garbage]:
    """Return the folders that no build has wanted for so many seconds; one that is gone is filled again."""
    there = list(kept(store))
    known = [
        Garbage(
            f"what steps of builds over {one.base} keep at {one.path}",
            one.allocated,
            partial(_remove, store, one.key, one.ids),
        )
        for one in there
        if time.time() - one.used >= older_than
    ]
    return known + [
        Garbage(f"a cache of builds that never began, {key}", 0, partial(_remove, store, key, None))
        for key in _unknown(store, {one.key for one in there}, older_than)
    ]


def _unknown(store: Store, known: Container[str], older_than: float) -> list[str]:
    """Return the folders that do not say what they are: of builds that were killed before a step had them."""
    found = []
    if present(store.fd, _FOLDER):
        with _opened(store.fd, _FOLDER) as caches:
            for key in sorted(os.listdir(caches)):
                with suppress(FileNotFoundError):
                    changed = os.stat(key, dir_fd=caches, follow_symlinks=False).st_mtime
                    if key not in known and time.time() - changed >= older_than:
                        found.append(key)
    return found


def _remove(store: Store, key: str, ids: IdMode | None) -> None:
    with _opened(store.fd, _FOLDER) as caches, suppress(FileNotFoundError), _opened(caches, key) as folder:
        lock = os.open("lock", _FLAGS, 0o600, dir_fd=folder)
        try:
            if lock_file(lock, exclusive=True, wait=0.0):  # else a build has it just now
                to_trash(store, caches, key, ids)
        finally:
            os.close(lock)
