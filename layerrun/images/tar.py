"""Tar archives as a source of trees: they are read in a jail, which writes records. See csrc/tar.h, `jailed`."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from layerrun.errors import ArchiveError
from layerrun.images.kinds import MAGIC, kind_of
from layerrun.images.limits import Limits
from layerrun.images.stream import Feed, Record, write_record
from layerrun.model import IdMode
from layerrun.native.jail import run_jailed
from layerrun.native.subids import subids

__all__ = ["Found", "Limits", "Part", "TarSource", "ids_of_archives", "read_tars"]

# Bytes of memory and seconds of a processor that reading may take; it opens and writes no file.
_RLIMITS = {
    "RLIMIT_AS": 2 << 30,
    "RLIMIT_CPU": 4 * 3600,
    "RLIMIT_FSIZE": 0,
}
_COUNT = 65536


@attrs.frozen
class Part:
    """An archive: what comes from a descriptor or, with ``offset``, so many bytes of a file from there on.

    ``name``: a record `n` with this name comes before its own. ``ahead``: a file with what was read of it already.
    """

    fd: int
    name: str | None = None
    offset: int | None = None
    length: int | None = None
    ahead: int | None = None


@attrs.frozen
class Found:
    """What archives held, as their reader says: entries, bytes of files, attributes left out.

    ``digests``: for each ``sha256:...`` of what it was unpacked to, or None.
    """

    entries: int
    size: int
    xattrs: int
    digests: tuple[str | None, ...]


def ids_of_archives(*, rootless: bool) -> IdMode:
    """Choose whose ids an archive keeps: all (root), subordinate ones where there are any, or just the caller's."""
    if not rootless:
        return IdMode.RANGE
    return IdMode.SINGLE if subids() is None else IdMode.SUBIDS


def read_tars(
    parts: Sequence[Part],
    to: Feed,
    limits: Limits | None = None,
    *,
    layer: bool = False,
    hashed: bool = False,
    direct: bool = False,
) -> Found:
    """Write the records of tar archives, plain or compressed, one after the other; not the one that ends the stream.

    ``layer``: they are layers of images, so that names which begin with ``.wh.`` are whiteouts; ``hashed``: return
    digests; ``direct``: the one part is a file that is not compressed, and where contents lie in it is told.
    Raises `ArchiveError` where an archive is damaged or holds what is never taken; `SystemError` with EPIPE when nobody
    reads the records any more. One start of the jail is for all parts.
    """
    limits = limits or Limits()
    count = _COUNT if to.ids.one_owner else sum(line[2] for line in to.uid_map)
    limits = attrs.evolve(
        limits, ids=count, size=min(limits.size, to.size), entries=min(limits.entries, to.entries)
    )
    told: tuple[Any, ...] = ([attrs.astuple(part) for part in parts], attrs.asdict(limits), layer, hashed)
    answer = run_jailed(
        "layerrun.images.plain:read_file_here" if direct else "layerrun.images.jailed:read_here",
        *(told[1:2] if direct else told),
        folder=None,
        pass_fds=(
            to.out,
            *dict.fromkeys(fd for part in parts for fd in (part.fd, part.ahead) if fd is not None),
        ),
        uid_map=to.uid_map,
        gid_map=to.gid_map,
        mapped=to.mapped,
        limits={
            **_RLIMITS,
            "RLIMIT_NOFILE": 64 + 2 * len(parts),
            # Where something may be compressed a thread is started, and then the helper sets it.
            "RLIMIT_NPROC": 0 if direct else None,
        },
    )
    return _checked(answer, len(parts))


def _checked(answer: Any, count: int) -> Found:
    """What the jail answers is not believed to be of the right kind either."""
    try:
        digests = tuple(None if text is None else str(text) for text in answer["digests"])
        found = Found(int(answer["entries"]), int(answer["size"]), int(answer["xattrs"]), digests)
    except (TypeError, KeyError, ValueError):
        raise ArchiveError("what reads the archive gave a strange answer") from None
    if len(digests) != count:
        raise ArchiveError("what reads the archive gave a strange answer")
    return found


@attrs.frozen
class TarSource:
    """A tar archive, plain or compressed by gzip, xz, bzip2 or zstd, read from a file or a pipe.

    ``ahead``: a file with what was read of a pipe already.
    """

    fd: int
    text: str
    limits: Limits = attrs.field(factory=Limits)
    ahead: int | None = None

    def ids(self, *, rootless: bool) -> IdMode:
        """Choose whose ids the tree keeps."""
        return ids_of_archives(rootless=rootless)

    @property
    def archive(self) -> int:
        """The descriptor if it is a file as it is, so that others can read in it what lies there; else -1."""
        if self.ahead is not None or not stat.S_ISREG(os.fstat(self.fd).st_mode):
            return -1
        head = os.pread(self.fd, MAGIC, os.lseek(self.fd, 0, os.SEEK_CUR))
        return -1 if kind_of(head) else self.fd

    def feed(self, to: Feed) -> Mapping[str, Any]:
        """Write the whole stream; see `layerrun.images.stream.Source`."""
        read_tars([Part(self.fd, ahead=self.ahead)], to, self.limits, direct=to.direct)
        with os.fdopen(os.dup(to.out), "wb") as file:
            write_record(file, Record(kind="e"))
        return {}
