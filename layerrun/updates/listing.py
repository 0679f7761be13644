"""Manifests (docs/store.md) as lists of entries, for who cannot trust them: what a delta brings is hostile input."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NoReturn

import attrs

from layerrun.bases.manifest import HEADER, unescape
from layerrun.updates.deltafile import refuse

__all__ = ["Entry", "entries"]

_LINE = re.compile(
    rb"([fdlpcb]) ([0-7]{4,5}) ([0-9]{1,10}) ([0-9]{1,10}) ([!-~]+) ([!-~]+)((?: [!-<>-~]+=[!-~]*)*)"
)
_CONTENT = re.compile(rb"[0-9a-f]{64}")
_DEVICE = re.compile(rb"([0-9]{1,7}):([0-9]{1,7})")
_PATH = 1 << 16
_XATTRS = 1 << 17
_IDS = 1 << 16


@attrs.frozen
class Entry:
    """A line of a manifest. ``value``: a file's SHA-256 in hexadecimal, a link's target, or nothing."""

    kind: str
    mode: int
    uid: int
    gid: int
    value: bytes
    path: bytes
    xattrs: Mapping[bytes, bytes]
    major: int = 0
    minor: int = 0


def entries(manifest: bytes, most: int) -> Iterator[Entry]:
    """Yield the entries of a manifest, at most ``most``, each once its folder has come; the root's path is ``b""``.

    Raises `layerrun.errors.ArchiveError` for what no manifest of ours has, and for what no delta may bring: device
    nodes outside /dev, owners that no range has, attributes but users' own and file capabilities.
    """
    if not manifest.startswith(HEADER) or not manifest.endswith(b"\n"):
        refuse("brings no listing of a known version")
    folders: set[bytes] = set()
    before: list[bytes] = []
    for count, line in enumerate(manifest[len(HEADER) : -1].split(b"\n")):
        if count >= most:
            refuse(f"brings more than {most:,} entries")
        entry = _entry(line)
        parts = entry.path.split(b"/") if entry.path else []
        if count == 0:
            if parts or entry.kind != "d":
                refuse("brings a tree whose root is no folder")
        else:
            if entry.path.rpartition(b"/")[0] not in folders or parts <= before:
                _refuse(entry.path, "comes at a place where it cannot be")
            if any(part in (b"", b".", b"..") or len(part) > 255 for part in parts):
                _refuse(entry.path, "leads elsewhere")
        before = parts
        if entry.kind == "d":
            folders.add(entry.path)
        yield entry


def _entry(line: bytes) -> Entry:
    found = _LINE.fullmatch(line)
    if found is None:
        refuse(f"brings a malformed line {line[:80]!r}")
    kind, mode, uid, gid, value, path, xattrs = found.groups()
    path = unescape(path)
    path = b"" if path == b"." else path
    if b"\0" in path or len(path) > _PATH or int(uid) >= _IDS or int(gid) >= _IDS or int(mode, 8) > 0o7777:
        _refuse(path, "is out of bounds")
    entry = Entry(kind.decode(), int(mode, 8), int(uid), int(gid), value, path, _xattrs(path, xattrs))
    if kind == b"f":
        return entry if _CONTENT.fullmatch(value) else _refuse_value(path)
    if kind == b"l":
        target = unescape(value)
        return attrs.evolve(entry, value=target) if b"\0" not in target else _refuse_value(path)
    if kind in b"cb":
        device = _DEVICE.fullmatch(value)
        if device is None or not path.startswith(b"dev/") or not (int(device[1]) or int(device[2])):
            _refuse(path, "is a device node that deltas do not bring")
        return attrs.evolve(entry, value=b"", major=int(device[1]), minor=int(device[2]))
    return attrs.evolve(entry, value=b"") if value == b"-" else _refuse_value(path)


def _xattrs(path: bytes, text: bytes) -> dict[bytes, bytes]:
    if not text:
        return {}
    found = {}
    for pair in text[1:].split(b" "):
        key, _, value = (unescape(part) for part in pair.partition(b"="))
        if not _is_kept(key, value) or len(key) > 255 or len(value) > _XATTRS - 1:
            _refuse(path, f"has an attribute that deltas do not bring: {key!r}")
        found[key] = value
    return found


def _is_kept(key: bytes, value: bytes) -> bool:
    if key == b"security.capability":  # without a user namespace in it: VFS_CAP_REVISION_2, capabilities(7)
        return len(value) == 20 and value[3] == 2
    return key.startswith(b"user.") and not key.startswith(b"user.overlay.") and b"\0" not in key


def _refuse_value(path: bytes) -> NoReturn:
    _refuse(path, "has a value that makes no sense")


def _refuse(path: bytes, why: str) -> NoReturn:
    refuse(f"brings an entry {path[:200]!r} that {why}")
