"""Keys to X displays: reading them from an Xauthority file, and writing the one that an app gets. See Xau(3)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

import attrs

__all__ = ["Entry", "entries", "state", "write"]

_LOCAL, _WILD = 256, 65535
_MOST = 1 << 20


@attrs.frozen
class Entry:
    """A key: for whom (family, address, number of the display), its kind, and the secret."""

    family: int
    address: bytes
    number: bytes
    name: bytes
    data: bytes = attrs.field(repr=False)


def state(path: str) -> str:
    """Return what identifies a file as unchanged, as the condition ``file`` has it."""
    from layerrun.store.plans import signature

    return signature(path)


def _parse(data: bytes) -> Iterator[Entry]:
    at = 0

    def field() -> bytes:
        nonlocal at
        (length,) = struct.unpack_from(">H", data, at)
        at += 2 + length
        if at > len(data):
            raise ValueError("it is cut off")
        return data[at - length : at]

    while at < len(data):
        (family,) = struct.unpack_from(">H", data, at)
        at += 2
        yield Entry(family, field(), field(), field(), field())


def entries(path: str, number: str) -> list[Entry]:
    """Return the keys for this machine's display of that number; none if the file says nothing that we understand."""
    try:
        with open(path, "rb") as file:
            found = list(_parse(file.read(_MOST)))
    except (OSError, struct.error, ValueError):
        return []
    here = socket.gethostname().encode()
    return [
        entry
        for entry in found
        if entry.number in (b"", number.encode())
        and (entry.family == _WILD or (entry.family == _LOCAL and entry.address == here))
    ]


def write(path: str, found: list[Entry], number: str) -> None:
    """Write keys for a display, whole or not at all; for any machine, since inside it has another name."""
    words = [b"", number.encode()]
    data = b"".join(
        struct.pack(">H", _WILD)
        + b"".join(struct.pack(">H", len(word)) + word for word in (*words, entry.name, entry.data))
        for entry in found
    )
    new = f"{path}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(fd, "wb") as file:
        file.write(data)
    os.rename(new, path)
