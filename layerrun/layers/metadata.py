"""What of the metadata differs between two entries, in words and as data."""

from __future__ import annotations

import datetime as dt
import os
import stat
from typing import Any

from layerrun.layers.between import Difference
from layerrun.layers.contents import Reader

__all__ = ["metadata"]


def metadata(difference: Difference, reader: Reader) -> list[dict[str, Any]]:
    """Return a record for each value that differs: ``what``, ``old`` and ``new``.

    ``what`` is ``mode`` (octal digits), ``uid``, ``gid``, ``mtime`` (RFC 3339; not of folders), ``device``
    (``MAJOR:MINOR``) or ``xattr NAME`` (a string with surrogate escapes; ``None`` where it is not set). Empty unless
    there is something on either side.
    """
    old, new = difference.old, difference.new
    if old is None or new is None:
        return []
    found: list[dict[str, Any]] = []

    def note(what: str, before: Any, after: Any) -> None:
        if before != after:
            found.append({"what": what, "old": before, "new": after})

    if not (stat.S_ISLNK(old.mode) or stat.S_ISLNK(new.mode)):
        note("mode", f"{stat.S_IMODE(old.mode):04o}", f"{stat.S_IMODE(new.mode):04o}")
    note("uid", old.uid, new.uid)
    note("gid", old.gid, new.gid)
    if not (old.is_dir and new.is_dir):
        note("mtime", _time(old.mtime_ns), _time(new.mtime_ns))
    if stat.S_IFMT(old.mode) == stat.S_IFMT(new.mode):
        note("device", _device(old.rdev), _device(new.rdev))
    before = reader.xattrs(difference.old_layer, difference.path, old)
    after = reader.xattrs(difference.layer, difference.path, new)
    for key in sorted({*before, *after}):
        note(f"xattr {key}", _text(before.get(key)), _text(after.get(key)))
    return found


def _time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    except (OverflowError, ValueError, OSError):  # beyond the year 9999
        return f"{seconds}.{rest:09d}"
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def _device(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "surrogateescape")
