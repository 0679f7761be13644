"""A tree or a frozen layer on disk as records, in the order of its names: what a layer of an image is written from."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping

from layerrun.errors import UsageError
from layerrun.images.stream import Record
from layerrun.native import trees

__all__ = ["kept", "records_of"]

_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFIFO: "p",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
}


Owners = Mapping[bytes, tuple[int, int]]


def records_of(
    root_fd: int,
    *,
    layer: bool = False,
    groups: Mapping[bytes, bytes] | None = None,
    owners: Owners | None = None,
) -> Iterator[Record]:
    """Yield the records of the tree ``root_fd``: the root, then each folder before what is in it.

    Args:
        root_fd: the tree's root folder.
        layer: it is what overlayfs wrote: its marks become kinds ``w`` and ``o``.
        groups: which path is a hard link to which; ``None``: those are that share an inode.
        owners: whose each path is; ``None``: as on disk.

    Sockets are left out, and all attributes but ``user.*`` and file capabilities, which are all that an image of others
    can hold. Raises `UsageError` for a layer that means nothing away from where it was made.
    """
    first: dict[object, bytes] = {}
    ends = None if groups is None else {*groups, *groups.values()}
    status = os.fstat(root_fd)
    xattrs = {os.fsencode(key): os.getxattr(root_fd, key) for key in os.listxattr(root_fd)}
    yield Record(
        "d",
        mode=stat.S_IMODE(status.st_mode),
        uid=_owner(owners, b".", status.st_uid, status.st_gid)[0],
        gid=_owner(owners, b".", status.st_uid, status.st_gid)[1],
        mtime_ns=status.st_mtime_ns,
        xattrs=kept(xattrs),
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
        if kind == "f" and (entry.nlink > 1 if ends is None else entry.path in ends):
            key = (entry.dev, entry.ino) if groups is None else groups.get(entry.path, entry.path)
            link = first.setdefault(key, entry.path)
            kind, link = ("f", b"") if link == entry.path else ("h", link)
        uid, gid = _owner(owners, entry.path, entry.uid, entry.gid)
        yield Record(
            kind,
            entry.path,
            mode=stat.S_IMODE(entry.mode),
            uid=uid,
            gid=gid,
            mtime_ns=entry.mtime_ns,
            link=link,
            xattrs={} if kind == "h" else kept(entry.xattrs),
            size=entry.size if kind == "f" else 0,
            major=os.major(entry.rdev),
            minor=os.minor(entry.rdev),
        )
        if layer and kind == "d" and _is_opaque(entry.xattrs):
            yield Record("o", entry.path)


def _owner(owners: Owners | None, path: bytes, uid: int, gid: int) -> tuple[int, int]:
    return (uid, gid) if owners is None else owners.get(path, (uid, gid))


def _is_mark(key: bytes, names: tuple[str, ...]) -> bool:
    """Say whether an attribute is one of overlayfs's own, by either of the names that it has for it."""
    return any(key == f"{space}.overlay.{name}".encode() for space in ("trusted", "user") for name in names)


def _is_opaque(xattrs: Mapping[bytes, bytes]) -> bool:
    return any(_is_mark(key, ("opaque",)) and value == b"y" for key, value in xattrs.items())


def kept(xattrs: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return the attributes that an image of others can hold."""
    return {
        key: value
        for key, value in xattrs.items()
        if key == b"security.capability"
        or (key.startswith(b"user.") and not key.startswith(b"user.overlay."))
    }
