"""Bases that are images of a file system (erofs, squashfs), kept as they are: root mounts them at each start.

The kernel reads them, which trusts them more than an archive needs to be trusted: docs/images.md says when not to.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from layerrun.bases import recording
from layerrun.bases.intake import settle
from layerrun.bases.manifest import Progress, Summary, write_manifest
from layerrun.errors import ArchiveError, SystemError, UsageError
from layerrun.model import Base, BaseKind, IdMode
from layerrun.native import trees
from layerrun.native.volumes import open_lower_image
from layerrun.store.fs import DIR_FLAGS, explain, make_dir
from layerrun.store.staging import new_id
from layerrun.store.store import Store, now
from layerrun.store.uids import COUNT

__all__ = ["import_image"]

_TYPES = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK = 16 << 20
_BELIEVED = (b"trusted.overlay.", b"user.overlay.")
_MAX_ENTRIES = 2_000_000


def import_image(
    store: Store,
    name: str,
    image: int,
    source: str,
    *,
    progress: Progress | None = None,
    version: bool = False,
) -> Base:
    """Copy an erofs or squashfs image, read from a descriptor, into the store as the base ``name``; root only.

    Its digest is that of the tree in it, as if that had been imported; with ``version`` it becomes the next version.
    Raises `ArchiveError` when there is in it what a base must not hold, `ExistsError` when the name stands for another
    tree.
    """
    recording.check_new(name)
    with store.ticket(IdMode.RANGE) as ticket:
        with explain("stage the base", name):
            make_dir(ticket.fd, "base")
            base_fd = os.open("base", DIR_FLAGS, dir_fd=ticket.fd)
        try:
            _copy(image, base_fd, source)
            summary = _seal(base_fd, source, progress)
        finally:
            os.close(base_fd)
        base = Base(
            id=new_id(),
            name=name,
            kind=BaseKind.IMAGE,
            digest=summary.digest,
            ids=IdMode.RANGE,
            source=source,
            created=now(),
            entries=summary.entries,
            size=summary.size,
        )
        return settle(store, ticket, base, version=version)


def _copy(image: int, base_fd: int, source: str) -> None:
    """Copy the image."""
    found = os.fstat(image)
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{source!r} is no regular file")
    with explain("copy", source):
        out = os.open("image", _NEW, 0o400, dir_fd=base_fd)
        try:
            done = 0
            while done < found.st_size:
                copied = os.sendfile(out, image, done, min(_CHUNK, found.st_size - done))
                if not copied:
                    raise ArchiveError(f"{source!r} became shorter while it was read")
                done += copied
        finally:
            os.close(out)


def _seal(base_fd: int, source: str, progress: Progress | None) -> Summary:
    """Look through what is in the image, and write its manifest."""
    try:
        tree = open_lower_image(base_fd, "image")
    except SystemError as error:
        raise ArchiveError(f"{source!r} cannot be mounted: {error}", hint="is the image damaged?") from None
    try:
        _look_through(tree, source)
        return write_manifest(tree, base_fd, "manifest", progress)
    finally:
        os.close(tree)


def _look_through(tree: int, source: str) -> None:
    """Refuse what an archive is refused for: nothing of a mounted image can be left out."""
    if not {"usr", "bin"} & set(os.listdir(tree)):
        raise UsageError(f"the image {source!r} holds no root file system: it has neither usr nor bin")
    own: list[str] = []
    with suppress(OSError):  # a kernel without attributes in squashfs
        own = os.listxattr(tree)
    if any(os.fsencode(key).startswith(_BELIEVED) for key in own):
        raise ArchiveError("the image's root has an attribute that overlayfs would believe")
    for count, entry in enumerate(trees.list_tree(tree), 1):
        if (why := _wrong(entry)) is not None:
            raise ArchiveError(
                f"the image's entry {os.fsdecode(entry.path)!r} {why}",
                hint="nothing of it was kept; unpack it, take that out, and import the folder",
            )
        if count > _MAX_ENTRIES:
            raise ArchiveError(f"the image holds more than {_MAX_ENTRIES:,} entries")


def _wrong(entry: trees.Entry) -> str | None:
    kind = stat.S_IFMT(entry.mode)
    if kind not in _TYPES:
        return "is a socket"
    if kind in (stat.S_IFCHR, stat.S_IFBLK) and (not entry.path.startswith(b"dev/") or not entry.rdev):
        return "is a device node"
    if not (entry.uid < COUNT and entry.gid < COUNT):
        return f"belongs to {entry.uid}:{entry.gid}, and ids go up to {COUNT - 1}"
    if any(key.startswith(_BELIEVED) for key in entry.xattrs):
        return "has an attribute that overlayfs would believe"
    return None
