"""What can be removed to make room, as a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

__all__ = ["Garbage"]


class Garbage(NamedTuple):
    """Something that `layerrun gc` can remove: what it is, how much it takes on disk (bytes), and how it goes."""

    what: str
    bytes: int
    remove: Callable[[], None]
