"""The outside of a delta file: magic, head, parts, checksum (docs/delta.md has the format).

Whoever reads a delta believes nothing of it: a head is taken only if every number in it is within limits and all of
them together make the size of the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any, NoReturn

import attrs

from layerrun.errors import ArchiveError

__all__ = [
    "BLOCK",
    "CODECS",
    "MAGIC",
    "WINDOW",
    "Frame",
    "Head",
    "Packed",
    "check_sum",
    "pack_head",
    "read_head",
    "refuse",
]

MAGIC = b"layerrun-delta 1\n"
# Bytes that one frame makes at most, and bytes of old content that it may need: what bounds the memory of both sides.
BLOCK = 16 << 20
WINDOW = 32 << 20
CODECS = ("zstd", "xz")

_FAMILY = b"layerrun-delta "
_SUM = 32
_HEAD = 1 << 20
_LISTING = 1 << 30
_TEXT = 256 << 20
_MOST = 1 << 62
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@attrs.frozen
class Frame:
    """``packed`` bytes of zstd that make ``size`` bytes; ``length`` old bytes from ``start`` on are their prefix."""

    packed: int
    size: int
    start: int
    length: int


@attrs.frozen
class Packed:
    """A part that is one stream: ``codec`` zstd or xz, ``packed`` bytes that make ``size``."""

    codec: str
    packed: int
    size: int


@attrs.frozen
class Head:
    """What a delta says of itself.

    ``old`` and ``new`` are digests of bases, ``entries`` and ``size`` (bytes of content) what the new one comes to,
    ``origin`` as in `layerrun.model.Base`. The parts follow in the order of the fields; ``patches`` are bytes of frames
    that the index names. ``start`` is where the first part lies, ``end`` where the checksum does.
    """

    old: str
    new: str
    entries: int
    size: int
    listing: tuple[Frame, ...]
    extras: Packed
    index: Packed
    patches: int
    fresh: Packed
    origin: Mapping[str, Any]
    start: int = 0

    @property
    def end(self) -> int:
        """Where the parts end and the checksum begins."""
        return self.at("end")

    @property
    def length(self) -> int:
        """The bytes of the whole file."""
        return self.end + _SUM

    def at(self, part: str) -> int:
        """Return where a part begins in the file."""
        at = self.start
        lengths = {
            "listing": sum(frame.packed for frame in self.listing),
            "extras": self.extras.packed,
            "index": self.index.packed,
            "patches": self.patches,
            "fresh": self.fresh.packed,
        }
        for name, length in lengths.items():
            if name == part:
                return at
            at += length
        return at


def refuse(why: str) -> NoReturn:
    """Raise `ArchiveError`: the delta ``why``."""
    raise ArchiveError(f"the delta {why}", hint="nothing of it was kept")


def pack_head(head: Head) -> bytes:
    """Return magic and head, as they stand in the file."""
    fields = attrs.asdict(head, recurse=False, filter=lambda field, _: field.name != "start")
    fields["listing"] = [attrs.astuple(frame) for frame in head.listing]
    for name in ("extras", "index", "fresh"):
        fields[name] = attrs.astuple(fields[name])
    fields["origin"] = dict(head.origin)
    text = json.dumps(fields, separators=(",", ":"), sort_keys=True)
    return MAGIC + text.encode("ascii") + b"\n"


def read_head(fd: int) -> Head:
    """Read and check the head of an open file. Raises `ArchiveError`."""
    data = os.pread(fd, len(MAGIC) + _HEAD, 0)
    if not data.startswith(MAGIC):
        if data.startswith(_FAMILY):
            refuse(
                f"is of a version that this layerrun does not know: {data.split(bytes([10]), 1)[0][:40]!r}"
            )
        refuse("is no delta")
    line, newline, _ = data[len(MAGIC) :].partition(b"\n")
    if not newline:
        refuse("is damaged: its head has no end")
    try:
        head = _head(json.loads(line), len(MAGIC) + len(line) + 1)
    except (ValueError, TypeError, KeyError, RecursionError):
        refuse("is damaged: its head makes no sense")
    size = os.fstat(fd).st_size
    if head.end + _SUM != size:
        refuse(f"is damaged: it should be {head.end + _SUM:,} bytes long and is {size:,}")
    return head


def check_sum(fd: int, head: Head) -> None:
    """Read the whole file and compare it with the checksum at its end. Raises `ArchiveError`."""
    digest = hashlib.sha256()
    at = 0
    while at < head.end:
        data = os.pread(fd, min(1 << 20, head.end - at), at)
        if not data:
            refuse("is damaged: it ends too soon")
        digest.update(data)
        at += len(data)
    if os.pread(fd, _SUM, head.end) != digest.digest():
        refuse("is damaged: its checksum is another")


def _head(said: Any, start: int) -> Head:
    if not isinstance(said, dict) or not isinstance(said.get("origin"), dict):
        raise TypeError("not a head")
    return Head(
        old=_digest(said["old"]),
        new=_digest(said["new"]),
        entries=_number(said["entries"], _MOST),
        size=_number(said["size"], _MOST),
        listing=_frames(said["listing"]),
        extras=_packed(said["extras"], _TEXT),
        index=_packed(said["index"], _TEXT),
        patches=_number(said["patches"], _MOST),
        fresh=_packed(said["fresh"], _MOST),
        origin=said["origin"],
        start=start,
    )


def _frames(said: Any) -> tuple[Frame, ...]:
    if not isinstance(said, list):
        raise TypeError("not a list")
    frames = tuple(frame(*values) for values in said)
    if sum(one.size for one in frames) > _LISTING:
        raise ValueError("too long a listing")
    return frames


def frame(packed: int, size: int, start: int, length: int) -> Frame:
    """Return a `Frame` that is within limits. Raises `ValueError`."""
    return Frame(
        _number(packed, 2 * BLOCK), _number(size, BLOCK), _number(start, _MOST), _number(length, WINDOW)
    )


def _packed(said: Any, most: int) -> Packed:
    codec, packed, size = said
    if codec not in CODECS:
        raise ValueError("unknown codec")
    return Packed(codec, _number(packed, _MOST), _number(size, most))


def _digest(said: Any) -> str:
    if not isinstance(said, str) or not _DIGEST.fullmatch(said):
        raise ValueError("not a digest")
    return said


def _number(said: Any, most: int) -> int:
    if type(said) is not int or not 0 <= said <= most:
        raise ValueError("not such a number")
    return said
