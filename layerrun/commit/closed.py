"""Looking into and copying what its owner has closed to all, also to themselves.

Root does so by right. For a plain user a helper process does it, as root of a user namespace with that one user.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any, TypeVar

from layerrun.commit.entries import held
from layerrun.native import settle, trees

__all__ = ["copy_entry", "copy_job", "disk_use", "disk_use_job", "newer", "newer_job", "scan", "scan_job"]

T = TypeVar("T")


def _or_else(first: Callable[[], T], second: Callable[[], T]) -> T:
    try:
        return first()
    except OSError as error:
        if error.errno != errno.EACCES or os.geteuid() == 0:
            raise
    return second()


def _as_root(job: str, fds: tuple[int, ...], *words: Any) -> Any:
    from layerrun.native.worker import run_in_userns

    return run_in_userns(f"{__name__}:{job}", *fds, *words, own=True, pass_fds=fds)


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def scan(fd: int, name: bytes, *, userxattr: bool, drop: frozenset[str]) -> tuple[bytes, bytes, int]:
    """Do `layerrun.native.settle.scan`."""

    def helped() -> tuple[bytes, bytes, int]:
        marks, names, count = _as_root("scan_job", (fd,), _text(name), userxattr, sorted(drop))
        return marks.encode("latin-1"), names.encode("latin-1"), count

    return _or_else(lambda: settle.scan(fd, name, userxattr=userxattr, drop=drop), helped)


def scan_job(fd: int, name: str, userxattr: bool, drop: list[str]) -> tuple[str, str, int]:
    """Do it in the helper."""
    marks, names, count = settle.scan(fd, name.encode("latin-1"), userxattr=userxattr, drop=frozenset(drop))
    return _text(marks), _text(names), count


def newer(fd: int, name: bytes, since: int, most: int) -> list[tuple[bytes, int]]:
    """Do `layerrun.native.settle.newer`."""

    def helped() -> list[tuple[bytes, int]]:
        found = _as_root("newer_job", (fd,), _text(name), since, most)
        return [(path.encode("latin-1"), changed) for path, changed in found]

    return _or_else(lambda: settle.newer(fd, name, since, most), helped)


def newer_job(fd: int, name: str, since: int, most: int) -> list[tuple[str, int]]:
    """Do it in the helper."""
    return [(_text(path), changed) for path, changed in settle.newer(fd, name.encode("latin-1"), since, most)]


def disk_use(fd: int) -> int:
    """Return how many bytes of disk a folder takes, with all in it."""
    return _or_else(lambda: trees.usage(fd).allocated, lambda: int(_as_root("disk_use_job", (fd,))))


def disk_use_job(fd: int) -> int:
    """Do it in the helper."""
    return trees.usage(fd).allocated


def copy_entry(
    fd: int, name: bytes, slot: int, new: bytes, *, userxattr: bool, drop: frozenset[str] = frozenset()
) -> None:
    """Do `layerrun.native.settle.copy_entry`; a plain user's copies are the user's own."""
    owners = os.geteuid() == 0

    def helped() -> None:
        trees.remove_tree(slot, new)
        _as_root("copy_job", (fd, slot), [_text(name), _text(new)], userxattr, sorted(drop))

    def direct() -> None:
        settle.copy_entry(fd, name, slot, new, owners=owners, userxattr=userxattr, drop=drop)

    _or_else(direct, helped)
    if not owners:
        _give_group(fd, name, slot, new)


def copy_job(fd: int, slot: int, names: list[str], userxattr: bool, drop: list[str]) -> None:
    """Do it in the helper."""
    old, new = (name.encode("latin-1") for name in names)
    settle.copy_entry(fd, old, slot, new, owners=False, userxattr=userxattr, drop=frozenset(drop))


def _give_group(fd: int, name: bytes, slot: int, new: bytes) -> None:
    """Give a copy the group of what it was copied from, as far as its owner may."""
    with held(fd, name) as (source, _), held(slot, new) as (target, path):
        status = os.fstat(source)
        if status.st_gid == os.fstat(target).st_gid:
            return
        try:
            os.chown(path, -1, status.st_gid)
        except PermissionError:
            return
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(path, stat.S_IMODE(status.st_mode))
