"""Dropping what an upper has and what is the same beneath it: nothing that is seen changes but times of folders."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence

from layerrun.layers import overlay
from layerrun.layers.delta import Delta
from layerrun.layers.diff import deltas
from layerrun.native.trees import open_beneath

__all__ = ["drop", "droppable"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


def droppable(
    upper_fd: int,
    lower_fds: Sequence[int],
    *,
    userxattr: bool,
    cross_mounts: bool = False,
    roots: Iterable[str] = (),
) -> list[bytes]:
    """Return the relative paths that can be dropped, in an order in which they can: a folder after what is in it.

    Kept are: what lies in a folder that hides what is beneath it, names of one file that are not names of one
    beneath, and folders that layerrun made.
    """
    hiding: bytes | None = None
    files: list[Delta] = []
    folders: list[bytes] = []
    kept: set[bytes] = set()
    found = deltas(upper_fd, lower_fds, userxattr=userxattr, cross_mounts=cross_mounts, roots=roots)
    for delta in found:
        if hiding is not None and not delta.path.startswith(hiding):
            hiding = None
        is_folder = delta.new is not None and delta.new.is_dir
        if delta.letter != "=" or delta.root or hiding is not None or not delta.path:
            kept.add(delta.path)
        elif is_folder:
            folders.append(delta.path)
        else:
            files.append(delta)
        if is_folder and hiding is None and delta.path and _hides(upper_fd, delta.path, userxattr=userxattr):
            hiding = delta.path + b"/"
    gone = _one_file_beneath(files)
    kept |= {delta.path for delta in files} - set(gone)
    needed = {above for path in kept for above in _above(path)}
    return gone + [path for path in reversed(folders) if path not in needed]


def _above(path: bytes) -> Iterable[bytes]:
    while path:
        path = path.rpartition(b"/")[0]
        yield path


def _hides(upper_fd: int, path: bytes, *, userxattr: bool) -> bool:
    fd = open_beneath(upper_fd, path, _FOLDER)
    try:
        return overlay.is_opaque(fd, userxattr=userxattr)
    finally:
        os.close(fd)


def _one_file_beneath(files: Iterable[Delta]) -> list[bytes]:
    """Return the paths of files but those whose names are of one file here and not beneath, or not all found."""
    groups: dict[int, list[Delta]] = defaultdict(list)
    for delta in files:
        assert delta.new is not None
        groups[delta.new.ino].append(delta)
    gone = []
    for group in groups.values():
        beneath = {(delta.old.dev, delta.old.ino) for delta in group if delta.old is not None}
        if len(beneath) == 1 and group[0].new is not None and group[0].new.nlink == len(group):
            gone += [delta.path for delta in group]
    return gone


def drop(upper_fd: int, trash_fd: int, paths: Iterable[bytes]) -> None:
    """Move what is at the paths into the trash, in the order given.

    Nobody may have the upper mounted. ``trash_fd`` is an open folder on the upper's file system. Being killed halfway
    costs nothing: each step by itself changes nothing that is seen.
    """
    for number, path in enumerate(paths):
        above, _, name = path.rpartition(b"/")
        parent = open_beneath(upper_fd, above, _FOLDER)
        try:
            os.rename(name, b"tidy-%d" % number, src_dir_fd=parent, dst_dir_fd=trash_fd)
        finally:
            os.close(parent)
