"""Which of a layer's changes are to be committed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import attrs

from layerrun.layers.globs import Globs

__all__ = ["Selection"]


def _globs(patterns: Iterable[str]) -> Globs:
    """Return the patterns; one without a slash is that of a name in any folder."""
    return Globs(pattern if "/" in pattern or not pattern else f"/**/{pattern}" for pattern in patterns)


def _tuple(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(values)


@attrs.frozen
class Selection:
    """What is chosen; by itself everything. Paths are absolute and normalised.

    Args:
        paths: these with all that is in them.
        include: patterns of `layerrun.layers.globs`: only what matches, or lies in a folder that matches.
            Without a slash: a name in any folder.
        exclude: the same, for what is left out of it.
        exactly: these without what is in them, beside ``paths``.
        contents: what regular files are to hold, in place of what they hold in the layer; they are chosen by it.

    Raises:
        UsageError: a pattern makes no sense.
    """

    paths: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    include: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    exclude: tuple[str, ...] = attrs.field(default=(), converter=_tuple)
    exactly: frozenset[str] = frozenset()
    contents: Mapping[str, bytes] = attrs.field(factory=dict)
    _include: Globs = attrs.field(init=False, eq=False, repr=False)
    _exclude: Globs = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_include", _globs(self.include))
        object.__setattr__(self, "_exclude", _globs(self.exclude))

    @property
    def is_all(self) -> bool:
        """Whether nothing is left out."""
        return not (self.paths or self.include or self.exclude or self.exactly or self.contents)

    def takes(self, path: str) -> bool:
        """Say whether a path is chosen."""
        if self.paths or self.exactly or self.contents:
            chosen = path in self.exactly or path in self.contents
            if not chosen and not any(
                path == top or path.startswith(top.rstrip("/") + "/") for top in self.paths
            ):
                return False
        if self.include and not self._include.matches_within(path):
            return False
        return not (self.exclude and self._exclude.matches_within(path))
