"""The subordinate ids of a user, subuid(5), and whether they can be had here."""

from __future__ import annotations

import os
import shutil

__all__ = ["id_maps", "subids"]

_MINIMUM = 1


def subids(user: str | int | None = None) -> tuple[int, int, int] | None:
    """Return (first uid, first gid, count) of a user's subordinate ids, by name or uid; default: the caller.

    ``None`` when there are none, or when newuidmap(1) and newgidmap(1), which alone may map them for
    a plain user, are not installed. Of several ranges the largest is taken; the count is the
    smaller of the two.
    """
    if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        return None
    who = _names(os.geteuid() if user is None else user)
    uids, gids = _largest("/etc/subuid", who), _largest("/etc/subgid", who)
    if uids is None or gids is None:
        return None
    return uids[0], gids[0], min(uids[1], gids[1])


def id_maps(found: tuple[int, int, int]) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Return the uid map and the gid map, as (inside, outside, count): 0 is the caller, 1 and up `subids`."""
    uid, gid, count = found
    return (
        [(0, os.geteuid(), 1), (1, uid, count)],
        [(0, os.getegid(), 1), (1, gid, count)],
    )


def _names(user: str | int) -> set[str]:
    import pwd

    try:
        entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        return {str(user)}
    return {entry.pw_name, str(entry.pw_uid)}


def _largest(path: str, who: set[str]) -> tuple[int, int] | None:
    best: tuple[int, int] | None = None
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields = line.strip().split(":")
                if len(fields) != 3 or fields[0] not in who:
                    continue
                if not (fields[1].isdigit() and fields[2].isdigit()):
                    continue
                start, count = int(fields[1]), int(fields[2])
                if count >= _MINIMUM and (best is None or count > best[1]):
                    best = start, count
    except OSError:
        return None
    return best
