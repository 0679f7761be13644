"""Records of layers (`records/`): which of them nothing in the store stands on any more."""

from __future__ import annotations

import os
import stat
import struct
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

from layerrun.store.fs import open_dir, present
from layerrun.store.garbage import Garbage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerrun.store.store import Store

__all__ = ["garbage"]

# The head of a record, csrc/stream.h: kind, lengths of path, link and attributes.
_HEAD = struct.Struct("<B35xIII16x")
_KNOWN, _END = ord("k"), ord("e")


def garbage(store: Store, older_than: float) -> list[Garbage]:
    """Return the records that were not made or used for ``older_than`` seconds, of layers that no tree has whole.

    Such a record saves nothing: some of its files have gone, so its layer has to be read anyway.
    """
    if not present(store.fd, "records"):
        return []
    found = []
    with ExitStack() as stack:
        records = open_dir(store.fd, "records")
        stack.callback(os.close, records)
        objects = open_dir(store.fd, "objects")
        stack.callback(os.close, objects)
        for name in sorted(os.listdir(records)):
            with suppress(FileNotFoundError):  # somebody else has removed it
                status = os.stat(name, dir_fd=records, follow_symlinks=False)
                if status.st_mtime <= time.time() - older_than and not _is_used(records, name, objects):
                    found.append((name, status.st_blocks * 512))
    if not found:
        return []
    names = [name for name, _ in found]
    what = f"records of {len(names):,} layers that no base has"
    return [Garbage(what, sum(size for _, size in found), partial(_remove, store, names))]


def _remove(store: Store, names: list[str]) -> None:
    """Remove records; an import that counts on one reads its layer instead."""
    records = open_dir(store.fd, "records")
    try:
        for name in names:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=records)
    finally:
        os.close(records)


def _is_used(records: int, name: str, objects: int) -> bool:
    """Say whether each file of a layer has a name in some tree; a layer without files is not worth a record."""
    some = False
    try:
        for known in _objects(records, name):
            status = os.stat(f"{known[:2]}/{known[2:]}", dir_fd=objects, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode) or status.st_nlink < 2:
                return False
            some = True
    except (FileNotFoundError, ValueError):
        return False
    return some


def _objects(records: int, name: str) -> Iterator[str]:
    """Yield the objects that a record names. Raises `ValueError` where it is damaged."""
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=records)
    with os.fdopen(fd, "rb", buffering=1 << 18) as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            kind, path, link, xattrs = _HEAD.unpack(head)
            if kind == _END:
                return
            rest = file.read(path + link + xattrs) if path + link + xattrs < 1 << 22 else b""
            if len(rest) != path + link + xattrs:
                break
            if kind == _KNOWN:
                yield rest[path : path + link].decode("ascii")
    raise ValueError("the record is damaged")
