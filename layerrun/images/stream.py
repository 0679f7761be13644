"""The stream of records in which trees come into the store, whatever they come from: csrc/stream.h in Python.

Sources make streams, `layerrun.bases.intake` takes them in. A source that reads hostile input does so in a jail; what
takes the stream in believes nothing of it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import IO, Any, Literal, Protocol, runtime_checkable

import attrs

from layerrun.model import IdMode

__all__ = [
    "Feed",
    "Layered",
    "Record",
    "Source",
    "Step",
    "write_chunk",
    "write_end_of_content",
    "write_record",
]

_HEAD = struct.Struct("<B3x5IqIIIIQ8x")
_XATTR = struct.Struct("<HI")
_CHUNK = struct.Struct("<QI")


@attrs.frozen
class Record:
    """The head of a record: ``kind`` is a letter of csrc/stream.h; times in ns; paths and links are bytes."""

    kind: str
    path: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    xattrs: Mapping[bytes, bytes] = attrs.field(factory=dict)
    size: int = 0
    major: int = 0
    minor: int = 0


def write_record(file: IO[bytes], record: Record) -> None:
    """Write a record without its content; a file's follows by `write_chunk` and `write_end_of_content`."""
    xattrs = b"".join(_XATTR.pack(len(k), len(v)) + k + v for k, v in sorted(record.xattrs.items()))
    seconds, nanoseconds = divmod(record.mtime_ns, 10**9)
    file.write(
        _HEAD.pack(
            ord(record.kind),
            record.mode,
            record.uid,
            record.gid,
            record.major,
            record.minor,
            seconds,
            nanoseconds,
            len(record.path),
            len(record.link),
            len(xattrs),
            record.size,
        )
    )
    file.write(record.path + record.link + xattrs)


def write_chunk(file: IO[bytes], offset: int, data: bytes) -> None:
    """Write a part of a file's content; ``data`` is not empty."""
    file.write(_CHUNK.pack(offset, len(data)))
    file.write(data)


def write_end_of_content(file: IO[bytes], size: int) -> None:
    """End a file's content."""
    file.write(_CHUNK.pack(size, 0))


@attrs.frozen
class Feed:
    """What a source is given: where to write its stream, and by whose ids to work on hostile input.

    ``out`` is a descriptor of a pipe; EPIPE means that what takes in has ended, and says why itself. ``uid_map`` and
    ``gid_map`` are of (inside, outside, count): root's helpers work by ids that nobody has, others by their own.
    ``mapped``: root only, see `layerrun.native.jail.run_jailed`. ``size``, ``entries``: what the tree may come to.
    ``known``: names of layers whose records the store has; a source leaves their content out (kind ``n`` alone).
    ``direct``: what takes in has the source's ``archive``, and may be told where contents of files lie there.
    """

    out: int
    ids: IdMode
    uid_map: tuple[tuple[int, int, int], ...]
    gid_map: tuple[tuple[int, int, int], ...]
    mapped: bool
    size: int = 64 << 30
    entries: int = 2_000_000
    known: frozenset[str] = frozenset()
    direct: bool = False


@attrs.frozen
class Step:
    """A layer that a stream is going to have, by the name that its record ``n`` gives it.

    ``what``: ``r``: only the name comes, and the store's record is read; ``w``: its record is written; ``-``: neither.
    """

    name: str
    what: Literal["r", "w", "-"]


@runtime_checkable
class Layered(Protocol):
    """A source of several layers, too: it says which, since what writes the stream may have been taken over."""

    def plan(self, known: frozenset[str]) -> Sequence[Step]:
        """Return the layers in their order; ``known`` as in `Feed`. The stream must have just these.

        A record may be written only of a layer whose name nobody can give to another content, and that nothing could
        alter which was read before it or beside it.
        """


class Source(Protocol):
    """Where a tree comes from.

    One may also have ``expected``, the digest that the tree must turn out to have; and ``vouched``: what it says of
    owners, device nodes and extended attributes is believed, as of a folder of the machine's own; and ``knows``: its
    stream may name objects of the store (kind ``k``), as that of a folder may; and ``archive``: a descriptor of the
    file that it reads, in which contents of files lie as they are.
    """

    @property
    def text(self) -> str:
        """What a base remembers as its source."""

    def ids(self, *, rootless: bool) -> IdMode:
        """Choose whose ids the tree keeps."""

    def feed(self, to: Feed) -> Mapping[str, Any]:
        """Write the whole stream; return what the source says of itself (`layerrun.model.Base.origin`).

        It is called in a thread. Raises `layerrun.errors.ArchiveError` and the like; nothing is kept then.
        """
