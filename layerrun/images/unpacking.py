"""Images of file systems, unpacked: what runs in the jail, `layerrun.native.jail`, and the source that starts it.

The readers (`squashfs`, `erofs`) yield entries; here is decided what of them may pass, as for archives (csrc/tar.h).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from typing import IO, Any

import attrs

from layerrun.errors import ArchiveError
from layerrun.images.erofs import Erofs
from layerrun.images.limits import Limits
from layerrun.images.nodes import Node, Reader, refuse
from layerrun.images.squashfs import Squashfs
from layerrun.images.stream import Feed, Record, write_chunk, write_end_of_content, write_record
from layerrun.images.tar import ids_of_archives
from layerrun.model import IdMode

__all__ = ["UnpackedSource", "read_here"]

_RLIMITS = {"RLIMIT_AS": 2 << 30, "RLIMIT_CPU": 4 * 3600, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 64}
_COUNT = 65536


_DAMAGED = (struct.error, IndexError, ValueError, EOFError, OverflowError, KeyError)


@attrs.frozen
class UnpackedSource:
    """An image of a file system as a source of its tree (`layerrun.images.stream.Source`)."""

    fd: int
    text: str
    kind: str
    limits: Limits = attrs.field(factory=Limits)

    def ids(self, *, rootless: bool) -> IdMode:
        """Choose whose ids the tree keeps."""
        return ids_of_archives(rootless=rootless)

    def feed(self, to: Feed) -> Mapping[str, Any]:
        """Write the whole stream."""
        from layerrun.native.jail import run_jailed

        count = _COUNT if to.ids.one_owner else sum(line[2] for line in to.uid_map)
        limits = attrs.evolve(
            self.limits,
            ids=count,
            size=min(self.limits.size, to.size),
            entries=min(self.limits.entries, to.entries),
        )
        run_jailed(
            f"{__name__}:read_here",
            self.kind,
            attrs.asdict(limits),
            folder=None,
            pass_fds=(to.out, self.fd),
            uid_map=to.uid_map,
            gid_map=to.gid_map,
            mapped=to.mapped,
            limits=_RLIMITS,
        )
        with os.fdopen(os.dup(to.out), "wb") as file:
            write_record(file, Record(kind="e"))
        return {}


# What follows runs in the jail.


def read_here(out: int, image: int, kind: str, limits: dict[str, int]) -> None:
    """Write the records of an image, but for the last."""
    with os.fdopen(os.dup(out), "wb", buffering=1 << 18) as file:
        try:
            reader: Reader = Squashfs(image) if kind == "squashfs" else Erofs(image)
            _Writer(file, reader, Limits(**limits)).run()
        except _DAMAGED as error:
            if isinstance(error, ArchiveError):
                raise
            raise ArchiveError(f"the image is damaged: {type(error).__name__}: {error}") from None


class _Writer:
    def __init__(self, file: IO[bytes], reader: Reader, limits: Limits) -> None:
        self._file, self._reader, self._limits = file, reader, limits
        self._entries = self._size = 0
        self._first: dict[int, bytes] = {}

    def run(self) -> None:
        root = self._reader.root()
        if root.kind != "d":
            refuse("has a root that is no folder")
        self._record(b"", root)
        todo = [(b"", root, 1)]
        while todo:
            path, folder, depth = todo.pop()
            folders = []
            for name, node in self._reader.entries(folder):
                if name in (b"", b".", b"..") or b"/" in name or b"\0" in name or len(name) > 255:
                    refuse("has a name that none can be", path + b"/" + name)
                deeper = path + b"/" + name if path else name
                self._one(deeper, node)
                if node.kind == "d":
                    if depth > self._limits.depth:
                        refuse(f"lies deeper than {self._limits.depth} folders", deeper)
                    folders.append((deeper, node, depth + 1))
            todo += reversed(folders)  # in the order of the image: what lies together is read together

    def _one(self, path: bytes, node: Node) -> None:
        self._entries += 1
        if self._entries > self._limits.entries:
            refuse(f"holds more than {self._limits.entries:,} entries")
        if node.kind == "s":
            return
        if node.kind in "cb" and (not path.startswith(b"dev/") or not (node.major or node.minor)):
            refuse("is a device node", path)
        if node.kind == "f" and node.links > 1:
            first = self._first.setdefault(node.number, path)
            if first != path:
                write_record(self._file, Record(kind="h", path=path, link=first))
                return
        self._record(path, node)

    def _record(self, path: bytes, node: Node) -> None:
        if not (node.uid < self._limits.ids and node.gid < self._limits.ids):
            refuse(f"belongs to {node.uid}:{node.gid}, and ids go up to {self._limits.ids - 1}", path)
        if node.kind == "l" and not 0 < len(node.target) < 4096:
            refuse("is a link to nowhere", path)
        record = Record(
            kind=node.kind,
            path=path,
            mode=node.mode & 0o7777,
            uid=node.uid,
            gid=node.gid,
            mtime_ns=min(max(node.mtime, 0), 1 << 34) * 10**9,
            link=node.target,
            xattrs={key: value for key, value in node.xattrs.items() if is_kept(key, value)},
            size=node.size if node.kind == "f" else 0,
            major=node.major,
            minor=node.minor,
        )
        if node.kind == "f":
            self._size += node.size
            if self._size > self._limits.size:
                refuse(f"holds more than {self._limits.size:,} bytes of files")
        write_record(self._file, record)
        if node.kind == "f":
            for offset, data in self._reader.content(node):
                write_chunk(self._file, offset, data)
            write_end_of_content(self._file, node.size)


def is_kept(key: bytes, value: bytes) -> bool:
    """Say whether an attribute passes: users' own without overlayfs's, and file capabilities of no user namespace."""
    if key == b"security.capability":
        return len(value) == 20 and value[3] == 2
    return key.startswith(b"user.") and not key.startswith(b"user.overlay.") and len(key) <= 255
