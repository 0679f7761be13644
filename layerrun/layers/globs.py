"""Path patterns: ``*``, ``?`` and ``[...]`` within a name, ``**`` for any number of folders.

A pattern is matched name by name on the way down a tree, so that folders in which nothing can match
need not be looked at. ``**`` as the last part stands for everything inside, but not for the folder
itself.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable

from layerrun.errors import UsageError

__all__ = ["Globs", "States"]

States = frozenset[tuple[int, int]]


class Globs:
    """Several absolute patterns at once.

    Args:
        patterns: as ``/etc/*.conf`` or ``/home/**/.cache``.

    Raises:
        UsageError: a pattern is relative, empty, or has ``.`` or ``..`` in it.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = [_compile(pattern) for pattern in patterns]

    def start(self) -> States:
        """Return the state at the root."""
        return self._skip_stars((number, 0) for number in range(len(self._patterns)))

    def step(self, states: States, name: str) -> States:
        """Return the state after going down to ``name``; an empty one cannot match any more."""
        following = []
        for number, at in states:
            pattern = self._patterns[number]
            if at == len(pattern):
                continue
            part = pattern[at]
            if part is None:
                following += [(number, at), (number, at + 1)] if at + 1 == len(pattern) else [(number, at)]
            elif part.fullmatch(name):
                following.append((number, at + 1))
        return self._skip_stars(following)

    def matches(self, states: States) -> bool:
        """Say whether a pattern is matched here."""
        return any(at == len(self._patterns[number]) for number, at in states)

    def matches_within(self, path: str) -> bool:
        """Say whether an absolute path, or a folder that it lies in, matches."""
        states = self.start()
        for part in path.strip("/").split("/"):
            states = self.step(states, part)
            if self.matches(states):
                return True
        return False

    def _skip_stars(self, states: Iterable[tuple[int, int]]) -> States:
        """Add the states in which a ``**`` stands for no folder at all; the last one never does."""
        found = set()
        for number, at in states:
            pattern = self._patterns[number]
            found.add((number, at))
            while at + 1 < len(pattern) and pattern[at] is None:
                at += 1
                found.add((number, at))
        return frozenset(found)


def _compile(pattern: str) -> list[re.Pattern[str] | None]:
    parts = [part for part in pattern.split("/") if part]
    if not pattern.startswith("/") or not parts or {".", ".."} & set(parts) or "\0" in pattern:
        raise UsageError(
            f"bad pattern {pattern!r}", hint="write an absolute path as seen inside, as /etc/*.conf"
        )
    return [None if part == "**" else re.compile(fnmatch.translate(part)) for part in parts]
