"""The listing of a layer's tree, whose SHA-256 is the layer's digest: docs/build.md has the format.

It is that of a base (`layerrun.bases.manifest`), and of what a layer has beside files: whiteouts, and the mark of
folders that hide what lies beneath them. So it is the same in a store of root's and in a plain user's, where
overlayfs writes these down in other ways.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from layerrun.bases.manifest import LETTERS, Summary, contents, line, unescape, write_lines
from layerrun.layers import overlay
from layerrun.native import trees
from layerrun.store.fs import explain

__all__ = ["Difference", "differences", "lines", "path_of", "read_lines", "write_listing"]


class Line(NamedTuple):
    """A line, the bytes of content it stands for, and the time of modification in nanoseconds."""

    text: bytes
    size: int
    mtime_ns: int


class Difference(NamedTuple):
    """A path at which two layers differ: ``how`` is words such as ``content`` or ``only in the second``."""

    path: bytes
    how: str


def lines(tree_fd: int, *, userxattr: bool) -> Iterator[Line]:
    """Yield the lines of a layer's tree (an open folder), its root first, a folder before what is in it."""
    opaque = os.fsencode(overlay.xattr_name("opaque", userxattr=userxattr))
    for entry, value, size in contents(tree_fd):
        if stat.S_ISSOCK(entry.mode):  # which no layer keeps
            continue
        if stat.S_ISCHR(entry.mode) and entry.rdev == 0:
            text = line(b"w", entry._replace(mode=0, uid=0, gid=0, xattrs={}), b"-")
        else:
            attributes = {
                b"overlay.opaque" if key == opaque else key: found
                for key, found in entry.xattrs.items()
                if key == opaque or not overlay.is_private_xattr(os.fsdecode(key), userxattr=userxattr)
            }
            text = line(LETTERS[stat.S_IFMT(entry.mode)], _inside(entry)._replace(xattrs=attributes), value)
        yield Line(text, size, entry.mtime_ns)


def _inside(entry: trees.Entry) -> trees.Entry:
    """Return an entry with the owners that it has inside, where what is a plain user's own is root's."""
    uid = 0 if entry.uid == os.geteuid() else entry.uid
    return entry._replace(uid=uid, gid=0 if entry.gid == os.getegid() else entry.gid)


def write_listing(folder_fd: int, *, userxattr: bool) -> Summary:
    """Write the listing of ``tree`` in a folder to ``manifest`` beside it."""
    tree = trees.open_beneath(folder_fd, b"tree", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with explain("list the layer"):
            found = ((one.text, one.size) for one in lines(tree, userxattr=userxattr))
            return write_lines(folder_fd, "manifest", found)
    finally:
        os.close(tree)


def read_lines(tree_fd: int, *, userxattr: bool) -> dict[bytes, tuple[bytes, int]]:
    """Return, by path, each line of a layer's tree with the time of modification in nanoseconds."""
    return {path_of(one.text): (one.text, one.mtime_ns) for one in lines(tree_fd, userxattr=userxattr)}


def path_of(text: bytes) -> bytes:
    """Return the path that a line is about; ``.``: the root."""
    return unescape(text.split(b" ", 6)[5].rstrip(b"\n"))


_FIELDS = ("type", "mode", "owner", "group", "content", "path")


def differences(
    first: dict[bytes, tuple[bytes, int]], second: dict[bytes, tuple[bytes, int]]
) -> list[Difference]:
    """Return where two layers differ, by path; each is what `read_lines` gave."""
    found = []
    for path in sorted(first.keys() | second.keys()):
        if path not in second or path not in first:
            found.append(Difference(path, f"only in the {'first' if path in first else 'second'}"))
        elif first[path] != second[path]:
            old, new = (re.split(rb" ", one[path][0].rstrip(b"\n")) for one in (first, second))
            how = [name for name, a, b in zip(_FIELDS, old, new, strict=False) if a != b]
            how += ["attributes"] if old[6:] != new[6:] else []
            how += ["time"] if first[path][1] != second[path][1] else []
            found.append(Difference(path, ", ".join(how)))
    return found
