"""What was committed, and what each commit changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from layerrun.changes import Commit
from layerrun.commit import journal
from layerrun.native import settle

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["File", "entries", "files"]


class File(NamedTuple):
    """A change that a commit made. Sizes are bytes of regular files, else 0, and ``None`` where there is nothing."""

    letter: str
    path: str
    old_size: int | None
    size: int | None


def entries(store: Store) -> list[Commit]:
    """Return the commits to the host, the last one first."""
    return store.catalog.commits()[::-1]


def files(store: Store, commit: Commit) -> list[File]:
    """Return the changes of a commit, as it made them; a folder that it added with all in it."""
    folder = journal.open_folder(store.fd, commit.id)
    try:
        listed = journal.read_json(folder, "files") or []
        names = _names(folder)
    finally:
        os.close(folder)
    found: list[File] = []
    at = 0
    for letter, text, old, new, length in listed:
        path = "/" + os.fsdecode(text.encode("latin-1"))
        found.append(File(letter, path, old, new))
        for kind, size, inside in settle.names_in(names[at : at + length]):
            if inside:
                found.append(File("A", f"{path}/{os.fsdecode(inside)}", None, size if kind == 8 else 0))
        at += length
    return found


def _names(folder: int) -> bytes:
    try:
        fd = os.open("names", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return b""
    with os.fdopen(fd, "rb") as file:
        return file.read()
