"""Choosing the range of 65,536 host ids that an app of a root store runs as."""

from __future__ import annotations

import os
from collections.abc import Iterable

from layerrun.errors import StoreError

__all__ = ["COUNT", "FIRST", "LIMIT", "for_helpers", "lowest_free", "taken_elsewhere"]

# systemd's container range, systemd.io/UIDS-GIDS
FIRST = 524288
LIMIT = 1878982656
COUNT = 65536


def lowest_free(own: Iterable[int], taken: Iterable[tuple[int, int]]) -> int:
    """Return the start of the lowest block that is neither in ``own`` nor meets a (start, count) of ``taken``."""
    used = _used(own, taken)
    for start in range(FIRST, LIMIT, COUNT):
        if start not in used:
            return start
    raise _none_left()


def for_helpers(own: Iterable[int], taken: Iterable[tuple[int, int]]) -> int:
    """Return the highest free block: ids of processes that leave no file behind, far from those of apps to come."""
    used = _used(own, taken)
    for start in range(LIMIT - COUNT, FIRST, -COUNT):
        if start not in used:
            return start
    raise _none_left()


def _used(own: Iterable[int], taken: Iterable[tuple[int, int]]) -> set[int]:
    used = set(own)
    for start, count in taken:
        first = max(start, FIRST) // COUNT
        last = min(start + count, LIMIT) - 1
        if last >= FIRST:
            used.update(range(first * COUNT, last + 1, COUNT))
    return used


def _none_left() -> StoreError:
    return StoreError(
        "every range of user ids is taken", hint="remove apps or throwaways that are not needed"
    )


def taken_elsewhere(root: str = "/") -> list[tuple[int, int]]:
    """Return (start, count) of ids that others use: subordinate ids, local accounts, nspawn containers."""
    taken: list[tuple[int, int]] = []
    for name in ("etc/subuid", "etc/subgid"):
        for fields in _lines(os.path.join(root, name)):
            if len(fields) == 3 and fields[1].isdigit() and fields[2].isdigit():
                taken.append((int(fields[1]), int(fields[2])))
    for name, columns in (("etc/passwd", (2, 3)), ("etc/group", (2,))):
        for fields in _lines(os.path.join(root, name)):
            taken += [(int(fields[c]), 1) for c in columns if c < len(fields) and fields[c].isdigit()]
    # systemd-nspawn --private-users=pick leaves a file named by the first id of each range it uses.
    try:
        names = os.listdir(os.path.join(root, "run/systemd/nspawn-uid"))
    except OSError:
        names = []
    taken += [(int(name), COUNT) for name in names if name.isdigit()]
    return taken


def _lines(path: str) -> list[list[str]]:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return [line.strip().split(":") for line in file if not line.startswith("#")]
    except OSError:
        return []
