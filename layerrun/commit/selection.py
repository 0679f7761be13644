"""Which of a layer's changes are meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from layerrun.layers.globs import Globs, States
from layerrun.model import check_path

__all__ = ["Matcher", "Selection"]


def _paths(paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(check_path(path) for path in paths)


def _globs(patterns: Sequence[str]) -> Globs:
    return Globs(glob if glob.startswith("/") or not glob else f"/**/{glob}" for glob in patterns)


def _patterns(patterns: Sequence[str]) -> tuple[str, ...]:
    _globs(patterns)
    return tuple(patterns)


@attrs.frozen
class Selection:
    """Paths at or below which it lies, patterns of which one must match, patterns of which none may.

    A pattern is as in `layerrun.layers.globs`; one that does not begin with / may match at any depth. What matches
    takes all beneath it along. Nothing given: everything. Raises `UsageError` for a path or a pattern without sense.

    ``exactly`` are paths that are meant without what is beneath them, beside ``paths``. ``contents`` is what modified
    files are to hold, by path, in place of what they hold in the layer: picked by somebody who has looked at what the
    host has now. They are selected by it, and their changes stay in the layer.
    """

    paths: tuple[str, ...] = attrs.field(default=(), converter=_paths)
    include: tuple[str, ...] = attrs.field(default=(), converter=_patterns)
    exclude: tuple[str, ...] = attrs.field(default=(), converter=_patterns)
    exactly: frozenset[str] = frozenset()
    contents: Mapping[str, bytes] = attrs.field(factory=dict)

    @property
    def is_all(self) -> bool:
        """Whether it leaves nothing out."""
        return not (self.paths or self.include or self.exclude or self.exactly or self.contents)


class Matcher:
    """Says of paths, in the order of a walk, whether a selection has them."""

    def __init__(self, selection: Selection) -> None:
        self._all = selection.is_all
        self._paths = {path.strip("/") for path in selection.paths}
        self._exactly = {path.strip("/") for path in (*selection.exactly, *selection.contents)}
        self._sides = [_Side(globs) for globs in (selection.include, selection.exclude)]
        self._included = bool(selection.include)

    def has(self, path: str) -> bool:
        """Say whether a path, relative to the root, is selected."""
        if self._all:
            return True
        return (
            (not (self._paths or self._exactly) or path in self._exactly or self._below(path))
            and (not self._included or self._sides[0].matches(path))
            and not self._sides[1].matches(path)
        )

    def _below(self, path: str) -> bool:
        while path not in self._paths:
            if not path:
                return False
            path = path.rpartition("/")[0]
        return True


class _Side:
    """Patterns, and what is known of the folders that were met."""

    def __init__(self, globs: Sequence[str]) -> None:
        self._globs = _globs(globs)
        self._known: dict[str, tuple[States, bool]] = {"": (self._globs.start(), False)}

    def matches(self, path: str) -> bool:
        return self._state(path)[1]

    def _state(self, path: str) -> tuple[States, bool]:
        known = self._known.get(path)
        if known is None:
            folder, _, name = path.rpartition("/")
            states, matched = self._state(folder)
            states = self._globs.step(states, name)
            known = states, matched or self._globs.matches(states)
            self._known[path] = known
        return known
