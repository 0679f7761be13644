"""Platforms of images: what this machine is, by the words of Go (GOOS, GOARCH), and which image fits it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

import attrs

from layerrun.errors import ArchiveError, UsageError

__all__ = ["Platform", "choose", "machine", "parse_platform"]

_WORD = re.compile(r"[A-Za-z0-9._-]{0,64}")
# uname(2) to GOARCH and variant.
_MACHINES = {
    "x86_64": ("amd64", ""),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", "v8"),
    "arm64": ("arm64", "v8"),
    "armv5tel": ("arm", "v5"),
    "armv6l": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv8l": ("arm", "v7"),
    "loongarch64": ("loong64", ""),
    "mips64": ("mips64le", ""),
}
# What else people type for an architecture.
_ALIASES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "armhf": "arm",
    "armel": "arm",
}
# Variants of processors, each of which can run those behind it.
_VARIANTS = {
    "arm": ("v8", "v7", "v6", "v5"),
    "amd64": ("v4", "v3", "v2", "v1"),
    "arm64": ("v9", "v8"),
}
_BASELINE = {"arm64": "v8", "amd64": "v1", "arm": "v7"}


@attrs.frozen
class Platform:
    """An operating system, an architecture and its variant (``""`` where there is none or none is said)."""

    os: str = "linux"
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def from_json(cls, data: object) -> Platform:
        """Read the words of an index or a configuration, or raise `ArchiveError`."""
        words = (
            [data.get(key) or "" for key in ("os", "architecture", "variant")]
            if isinstance(data, Mapping)
            else []
        )
        if not words or not all(isinstance(word, str) and _WORD.fullmatch(word) for word in words):
            raise ArchiveError(f"the image has {data!r:.100} where a platform should be")
        return cls(*words)


def machine() -> Platform:
    """Return the platform of this machine."""
    name = os.uname().machine
    return Platform("linux", *_MACHINES.get(name, (name, "")))


def parse_platform(text: str) -> Platform:
    """Read ``linux/arm64/v8``, ``linux/arm64`` or ``arm64``, or raise `UsageError`."""
    words = text.split("/")
    if len(words) == 1:
        words.insert(0, "linux")
    if len(words) > 3 or not all(word and _WORD.fullmatch(word) for word in words):
        raise UsageError(f"bad platform {text!r}", hint="write it as linux/amd64 or linux/arm64/v8")
    words[1] = _ALIASES.get(words[1], words[1])
    return Platform(*words)


def choose(wanted: Platform, offered: Sequence[Platform | None]) -> int | None:
    """Return which of the platforms fits best, by its place, or ``None``.

    A variant that is lower than the wanted one fits, the higher the better; none stands for the lowest that is usual.
    """
    best: tuple[int, int] | None = None
    for place, one in enumerate(offered):
        if one is None or (one.os, one.architecture) != (wanted.os, wanted.architecture):
            continue
        rank = _rank(wanted, one)
        if rank is not None and (best is None or rank < best[0]):
            best = rank, place
    return None if best is None else best[1]


def _rank(wanted: Platform, one: Platform) -> int | None:
    if one.variant == wanted.variant:
        return 0
    usual = _BASELINE.get(one.architecture, "")
    have, want = one.variant or usual, wanted.variant or usual
    order = _VARIANTS.get(one.architecture, ())
    if have == want:
        return 1
    if have not in order or want not in order or order.index(have) < order.index(want):
        return None
    return 2 + order.index(have)
