"""Which old file a new content probably came from: same path, else same name elsewhere, else nearly the same name."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

__all__ = ["Pairing"]

_NUMBERS = re.compile(rb"[0-9]+")
_TRIED = 64


class Pairing:
    """The files of an old tree, by path, by name and by stem (`libfoo.so.1.2` is the stem of `libfoo.so.1.3` too)."""

    def __init__(self, sizes: Mapping[bytes, int]) -> None:
        """``sizes``: of each file, by path."""
        self._sizes = sizes
        self._named: dict[bytes, list[bytes]] = defaultdict(list)
        self._stems: dict[bytes, list[bytes]] = defaultdict(list)
        for path in sorted(sizes):
            name = path.rpartition(b"/")[2]
            self._named[name].append(path)
            self._stems[_NUMBERS.sub(b"#", name)].append(path)

    def source(self, path: bytes, size: int) -> bytes | None:
        """Return the most probable source of a new file, or nothing."""
        if path in self._sizes:
            return path
        folder, _, name = path.rpartition(b"/")
        near = self._named.get(name) or self._stems.get(_NUMBERS.sub(b"#", name))
        if not near:
            return None
        return max(near[:_TRIED], key=lambda one: (_alike(folder, one), -abs(self._sizes[one] - size), one))


def _alike(folder: bytes, path: bytes) -> int:
    """Count what two folders share: whole names from the front, or from the back where that is more."""
    ours, theirs = folder.split(b"/"), path.rpartition(b"/")[0].split(b"/")
    return max(_common(ours, theirs), _common(ours[::-1], theirs[::-1]))


def _common(ours: list[bytes], theirs: list[bytes]) -> int:
    count = 0
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            break
        count += 1
    return count
