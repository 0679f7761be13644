"""What a channel says is current: the small signed document of one channel and one architecture."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from layerrun.errors import TrustError, UsageError
from layerrun.model import check_name

__all__ = ["LIMIT", "Delta", "Image", "Release", "check_channel", "machine", "target_path"]

FORMAT = 1
# The document is a few hundred bytes; no more is ever read.
LIMIT = 64 << 10

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_FILE = re.compile(r"files/[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")
# Names of roles that every TUF repository has.
_TAKEN = ("root", "targets", "snapshot", "timestamp")
# What uname(2) calls a machine, and images and Debian do. The rest is the same in both.
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def machine() -> str:
    """Return this machine's architecture as images name it: ``amd64``."""
    return _MACHINES.get(platform.machine(), platform.machine())


def check_channel(name: str) -> str:
    """Return ``name`` if it may name a channel, else raise `UsageError`."""
    if check_name(name, "name of a channel") in _TAKEN:
        raise UsageError(f"a channel cannot be called {name!r}: every repository has a role of that name")
    return name


def target_path(channel: str, arch: str) -> str:
    """Return the name of the document of a channel in its repository."""
    return f"{channel}/{arch}.json"


def _digest(value: object) -> str:
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise TypeError(f"{value!r} is no SHA-256 digest")
    return value


def _size(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 60:
        raise TypeError(f"{value!r} is no size")
    return value


def _file(value: object) -> str:
    # Below the channel's own address, in one folder: a name out of a document leads nowhere else.
    if not isinstance(value, str) or not _FILE.fullmatch(value):
        raise TypeError(f"{value!r} is no file of a channel")
    return value


@attrs.frozen
class Image:
    """Where the whole base is: ``reference``, an oci:// address with a digest, or ``file`` beside the metadata.

    ``digest`` is the image's or the file's; ``size`` is the file's in bytes, 0 of an image.
    """

    digest: str
    reference: str = ""
    file: str = ""
    size: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        if self.reference:
            return {"reference": self.reference, "digest": self.digest}
        return {"file": self.file, "digest": self.digest, "size": self.size}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Image:
        """Make one of what `to_json` gave; raises TypeError, KeyError."""
        digest = _digest(data["digest"])
        if "reference" not in data:
            return cls(digest, file=_file(data["file"]), size=_size(data["size"]))
        reference = data["reference"]
        if not isinstance(reference, str) or not reference.startswith("oci://"):
            raise TypeError(f"{reference!r} is no address of an image")
        if not reference.endswith("@" + digest):
            raise TypeError(f"{reference!r} does not end with the image's digest")
        return cls(digest, reference=reference)


@attrs.frozen
class Delta:
    """A file that makes the release of an older base: the one whose tree has the digest ``old``."""

    old: str
    digest: str
    file: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {"from": self.old, "file": self.file, "digest": self.digest, "size": self.size}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Delta:
        """Make one of what `to_json` gave; raises TypeError, KeyError."""
        return cls(_digest(data["from"]), _digest(data["digest"]), _file(data["file"]), _size(data["size"]))


@attrs.frozen
class Release:
    """What a channel offers for an architecture.

    ``sequence`` counts the releases of the channel and only ever grows; ``version`` is for people. ``tree`` is the
    digest that the base has once it is imported (as root; a plain user's may differ, see docs/store.md), or ``None``.
    """

    channel: str
    arch: str
    version: str
    sequence: int
    image: Image
    tree: str | None = None
    deltas: Sequence[Delta] = ()

    def to_bytes(self) -> bytes:
        """Return the document, the same bytes for the same release."""
        data: dict[str, Any] = {
            "layerrun_channel": FORMAT,
            "channel": self.channel,
            "arch": self.arch,
            "version": self.version,
            "sequence": self.sequence,
            "image": self.image.to_json(),
        }
        if self.tree is not None:
            data["tree"] = self.tree
        if self.deltas:
            data["deltas"] = [delta.to_json() for delta in self.deltas]
        return (json.dumps(data, indent=1, sort_keys=True) + "\n").encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes, channel: str, arch: str) -> Release:
        """Read the document of a channel and an architecture; raises `TrustError` when it is not one.

        It is signed, so it is the publisher's mistake and no attack; still nothing in it is believed to be well formed.
        """
        try:
            found = json.loads(data)
            if not isinstance(found, dict) or found.get("layerrun_channel") != FORMAT:
                raise TypeError("it is of another format than this layerrun knows")
            if (found["channel"], found["arch"]) != (channel, arch):
                raise TypeError("it is of another channel or architecture")
            version, sequence = found["version"], _size(found["sequence"])
            if not isinstance(version, str) or not 0 < len(version) <= 100 or not version.isprintable():
                raise TypeError(f"{version!r} is no version")
            return cls(
                channel,
                arch,
                version,
                sequence,
                Image.from_json(found["image"]),
                None if found.get("tree") is None else _digest(found["tree"]),
                tuple(Delta.from_json(one) for one in found.get("deltas", ())),
            )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise TrustError(
                f"what channel {channel!r} says for {arch} cannot be used: {what}",
                hint="tell whoever runs the channel; nothing was changed here",
            ) from error
