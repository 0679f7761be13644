"""Objects of the store (docs/store.md, objects) by what they are: what the old base has is not read again."""

from __future__ import annotations

import hashlib
import os
import stat
import struct

import attrs

from layerrun.images.stream import Record

__all__ = ["Known", "object_name"]

# As lr_object_name() of csrc/reader.c has it: time, mode, owners, in the machine's own order.
_FIXED = struct.Struct("=qIIII")
# Names that an object may have for more to be sure: ext4 allows 65,000.
_MANY = 50_000
_SIZE = struct.Struct("=I")


def object_name(record: Record, digest: bytes, scheme: str) -> str:
    """Return the name of the object of a file: ``digest`` is of its content, in hexadecimal."""
    seconds, rest = divmod(record.mtime_ns, 10**9)
    meta = hashlib.sha256(scheme.encode("ascii") + b"\0")
    meta.update(_FIXED.pack(seconds, rest, record.mode, record.uid, record.gid))
    for key, value in sorted(record.xattrs.items()):
        meta.update(key + b"\0" + _SIZE.pack(len(value)) + value)
    return f"{digest.decode('ascii')}-{meta.hexdigest()[:16]}"


class Known:
    """The objects of a store, by a descriptor of their folder."""

    def __init__(self, objects: int, scheme: str) -> None:
        self._objects, self._scheme = objects, scheme

    def find(self, record: Record, digest: bytes, held: set[int]) -> Record | None:
        """Return the record of a file that an object is there for, or nothing.

        ``held``: inodes that the old base has. Any other object may go with the last base that has it, at any time.
        """
        name = object_name(record, digest, self._scheme)
        try:
            status = os.stat(f"{name[:2]}/{name[2:]}", dir_fd=self._objects, follow_symlinks=False)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > _MANY or status.st_ino not in held:
            return None
        return attrs.evolve(record, kind="k", link=name.encode("ascii"), size=status.st_size)
