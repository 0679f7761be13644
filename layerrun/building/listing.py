"""The listing of a layer's tree, whose SHA-256 is the layer's digest: docs/build.md has the format.

It is that of a base (`layerrun.bases.manifest`), and of what a layer has beside files: whiteouts, and the mark of
folders that hide what lies beneath them. So it is the same in a store of root's and in a plain user's, where
overlayfs writes these down in other ways.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from typing import NamedTuple

from layerrun.bases.manifest import HEADER, Summary, escape, unescape
from layerrun.layers import overlay
from layerrun.native import trees
from layerrun.store.fs import explain

__all__ = ["Difference", "differences", "lines", "read_lines", "write_listing"]

_LETTERS = {
    stat.S_IFREG: b"f",
    stat.S_IFDIR: b"d",
    stat.S_IFLNK: b"l",
    stat.S_IFIFO: b"p",
    stat.S_IFCHR: b"c",
    stat.S_IFBLK: b"b",
}
_LABEL = b"security.selinux"  # of the machine's policy, not of the tree


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
    info = os.fstat(tree_fd)
    found = {os.fsencode(key): os.getxattr(tree_fd, key) for key in os.listxattr(tree_fd)}
    attributes = _attributes(found, userxattr=userxattr)
    yield Line(
        _line(b"d", (info.st_mode, info.st_uid, info.st_gid), b"-", b".", attributes), 0, info.st_mtime_ns
    )
    hashed: dict[tuple[int, int], bytes] = {}
    for entry in trees.list_tree(tree_fd):
        kind, size = stat.S_IFMT(entry.mode), 0
        if kind == stat.S_IFCHR and entry.rdev == 0:
            yield Line(_line(b"w", (0, 0, 0), b"-", entry.path, []), 0, entry.mtime_ns)
            continue
        if kind not in _LETTERS:  # a socket, which no layer keeps
            continue
        if kind == stat.S_IFREG:
            key, size = (entry.dev, entry.ino), entry.size
            value = hashed.get(key) or _content(tree_fd, entry.path)
            size = 0 if key in hashed else size
            if entry.nlink > 1:
                hashed[key] = value
        elif kind == stat.S_IFLNK:
            value = escape(entry.link_target)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            value = b"%d:%d" % (os.major(entry.rdev), os.minor(entry.rdev))
        else:
            value = b"-"
        attributes = _attributes(entry.xattrs, userxattr=userxattr)
        text = _line(_LETTERS[kind], (entry.mode, entry.uid, entry.gid), value, entry.path, attributes)
        yield Line(text, size, entry.mtime_ns)


def _attributes(found: dict[bytes, bytes], *, userxattr: bool) -> list[bytes]:
    """Return the fields of the attributes: overlayfs's own are left out, but for the mark of an opaque folder."""
    opaque = os.fsencode(overlay.xattr_name("opaque", userxattr=userxattr))
    shown = {b"overlay.opaque" if key == opaque else key: value for key, value in found.items()}
    return [
        escape(key) + b"=" + escape(value)
        for key, value in sorted(shown.items())
        if key != _LABEL and not overlay.is_private_xattr(os.fsdecode(key), userxattr=userxattr)
    ]


def _line(
    letter: bytes, meta: tuple[int, int, int], value: bytes, path: bytes, attributes: list[bytes]
) -> bytes:
    """``meta``: the mode, the owner and the group. What is a plain user's own is root's inside."""
    uid, gid = (
        0 if own == mine else own for own, mine in zip(meta[1:], (os.geteuid(), os.getegid()), strict=True)
    )
    fields = [letter, b"%04o" % stat.S_IMODE(meta[0]), b"%d" % uid, b"%d" % gid, value]
    return b" ".join([*fields, path if path == b"." else escape(path), *attributes]) + b"\n"


def _content(tree_fd: int, path: bytes) -> bytes:
    with os.fdopen(trees.open_beneath(tree_fd, path, os.O_RDONLY), "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode()


def write_listing(folder_fd: int, *, userxattr: bool) -> Summary:
    """Write the listing of ``tree`` in a folder to ``manifest`` beside it."""
    digest, entries, size = hashlib.sha256(HEADER), 0, 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    tree = trees.open_beneath(folder_fd, b"tree", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with (
            explain("list the layer"),
            os.fdopen(os.open("manifest", flags, 0o600, dir_fd=folder_fd), "wb") as file,
        ):
            file.write(HEADER)
            for line in lines(tree, userxattr=userxattr):
                file.write(line.text)
                digest.update(line.text)
                entries, size = entries + 1, size + line.size
    finally:
        os.close(tree)
    return Summary(f"sha256:{digest.hexdigest()}", entries, size)


def read_lines(tree_fd: int, *, userxattr: bool) -> dict[bytes, tuple[bytes, int]]:
    """Return, by path, each line of a layer's tree with the time of modification in nanoseconds."""
    return {_path(line.text): (line.text, line.mtime_ns) for line in lines(tree_fd, userxattr=userxattr)}


def _path(line: bytes) -> bytes:
    return unescape(line.split(b" ", 6)[5].rstrip(b"\n"))


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
