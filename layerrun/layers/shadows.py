"""Which of many paths a layer hides, by having an entry there, a whiteout, or an opaque folder above."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from layerrun.layers import overlay

__all__ = ["hidden"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Node = dict[bytes, "Node"]


def hidden(layer: int, paths: Iterable[tuple[bytes, bool]], *, userxattr: bool) -> list[bytes]:
    """Return those of ``paths`` beneath ``layer`` (an open folder) of which it shows nothing from below, sorted.

    Args:
        layer: the root of an upper or of a frozen layer.
        paths: relative paths, each with whether it is a folder below: what is one in both is merged, not hidden.
        userxattr: the flavour of overlayfs's attributes.
    """
    tree: Node = {}
    folders = set()
    for path, is_folder in paths:
        node = tree
        for part in path.split(b"/"):
            node = node.setdefault(part, {})
        node[b"/"] = {}  # it is a path itself; no name has a slash
        if is_folder:
            folders.add(path)
    return sorted(_walk(os.dup(layer), tree, b"", folders, userxattr))


def _walk(fd: int, tree: Node, above: bytes, folders: set[bytes], userxattr: bool) -> Iterator[bytes]:
    """Yield what is hidden beneath the folder ``fd``, which is closed."""
    try:
        # The root of a layer is never opaque: something always shows through there.
        opaque = bool(above) and overlay.is_opaque(fd, userxattr=userxattr)
        for name, node in tree.items():
            if name == b"/":
                continue
            path = above + b"/" + name if above else name
            try:
                info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                if opaque:
                    yield from _all(node, path)
                continue
            if not stat.S_ISDIR(info.st_mode):
                yield from _all(node, path)
                continue
            if b"/" in node and (opaque or path not in folders):
                yield path
            inner = {key: value for key, value in node.items() if key != b"/"}
            if not inner:
                continue
            if opaque:  # what is in an opaque folder need not be opaque itself
                for key, value in inner.items():
                    yield from _all(value, path + b"/" + key)
            else:
                yield from _walk(os.open(name, _FOLDER, dir_fd=fd), inner, path, folders, userxattr)
    finally:
        os.close(fd)


def _all(node: Node, path: bytes) -> Iterator[bytes]:
    for name, value in node.items():
        if name == b"/":
            yield path
        else:
            yield from _all(value, path + b"/" + name)
