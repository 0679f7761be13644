"""A tree or a frozen layer on disk as records, in the order of its names: what a layer of an image is written from."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from layerrun.errors import UsageError
from layerrun.images.stream import Record
from layerrun.native import trees

__all__ = ["records_of"]

_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
}


def records_of(root_fd: int, *, layer: bool = False, hard_links: bool = True) -> Iterator[Record]:
    """Yield the records of the tree ``root_fd``: the root, then each folder before what is in it.

    Args:
        root_fd: the tree's root folder.
        layer: it is what overlayfs wrote: its marks become kinds ``w`` and ``o``.
        hard_links: whether files that share an inode were hard links where they come from.

    Sockets are left out, and all attributes but ``user.*`` and file capabilities, which are all that an image of others
    can hold. Raises `UsageError` for a layer that means nothing away from where it was made.
    """
    first: dict[tuple[int, int], bytes] = {}
    status = os.fstat(root_fd)
    xattrs = {os.fsencode(key): os.getxattr(root_fd, key) for key in os.listxattr(root_fd)}
    yield Record(
        "d",
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        xattrs=_kept(xattrs),
    )
    if layer and _is_opaque(xattrs):
        yield Record("o")
    for entry in trees.list_tree(root_fd):
        kind = _KINDS.get(stat.S_IFMT(entry.mode))
        if kind is None:
            continue
        if layer and kind == "c" and entry.rdev == 0:
            yield Record("w", entry.path)
            continue
        if layer and any(_is_mark(key, ("redirect", "metacopy")) for key in entry.xattrs):
            raise UsageError(
                f"the layer refers at {os.fsdecode(entry.path)!r} to what lies beneath it, and means nothing elsewhere"
            )
        link = entry.link_target
        if kind == "f" and entry.nlink > 1 and hard_links:
            link = first.setdefault((entry.dev, entry.ino), entry.path)
            kind, link = ("f", b"") if link == entry.path else ("h", link)
        yield Record(
            kind,
            entry.path,
            mode=stat.S_IMODE(entry.mode),
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=entry.mtime_ns,
            link=link,
            xattrs={} if kind == "h" else _kept(entry.xattrs),
            size=entry.size if kind == "f" else 0,
            major=os.major(entry.rdev),
            minor=os.minor(entry.rdev),
        )
        if layer and kind == "d" and _is_opaque(entry.xattrs):
            yield Record("o", entry.path)


def _is_mark(key: bytes, names: tuple[str, ...]) -> bool:
    """Say whether an attribute is one of overlayfs's own, by either of the names that it has for it."""
    return any(key == f"{space}.overlay.{name}".encode() for space in ("trusted", "user") for name in names)


def _is_opaque(xattrs: Mapping[bytes, bytes]) -> bool:
    return any(_is_mark(key, ("opaque",)) and value == b"y" for key, value in xattrs.items())


def _kept(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    return {
        key: value
        for key, value in xattrs.items()
        if key == b"security.capability"
        or (key.startswith(b"user.") and not key.startswith(b"user.overlay."))
    }
