"""Whom ``--user`` means: looked up in the files that the sandbox sees as /etc/passwd and /etc/group.

What an app left in its upper is hostile: no link is followed, nothing but a regular file of bounded size is read.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

import attrs

from layerrun.errors import UsageError
from layerrun.model import App, IdMode
from layerrun.native.subids import id_maps, subids
from layerrun.runtime.identity import RANGE_SIZE, Person

__all__ = ["Chosen", "choose_user"]

_MOST = 1 << 20


@attrs.frozen
class Chosen:
    """A person, their supplementary groups, and the files that told who that is."""

    person: Person
    groups: tuple[int, ...]
    files: tuple[str, ...]


def _read(root: str, name: str) -> list[str] | None:
    """Return the lines of ``root``/etc/``name``; ``None`` if no such thing lies there."""
    top = folder = file = -1
    try:
        top = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        folder = os.open("etc", os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return []
        return os.read(file, _MOST).decode("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return None
    except OSError:  # a link, a whiteout, a device: nobody is in there
        return []
    finally:
        for fd in (top, folder, file):
            if fd >= 0:
                os.close(fd)


def _entries(roots: Sequence[str], name: str, fields: int, files: list[str]) -> Iterator[list[str]]:
    for root in roots:
        files.append(f"{root.rstrip('/')}/etc/{name}")
        lines = _read(root, name)
        if lines is not None:
            for line in lines:
                words = line.split(":")
                if len(words) == fields and words[2].isdecimal():
                    yield words
            return


def _mapped(app: App, kind: str) -> list[tuple[int, int]]:
    """Return the ids that there are inside, as first ones and counts; ``kind`` is ``user`` or ``group``."""
    if app.ids is IdMode.NONE:
        return [(0, 2**32 - 1)]
    if app.ids is IdMode.RANGE:
        return [(0, RANGE_SIZE)]
    found = subids() if app.ids is IdMode.SUBIDS else None
    if found is not None:
        return [(inside, count) for inside, _, count in id_maps(found)[kind == "group"]]
    if app.ids is IdMode.SELF:
        return [(os.geteuid() if kind == "user" else os.getegid(), 1)]
    return [(0, 1)]


def _is_mapped(app: App, kind: str, number: int) -> bool:
    return any(first <= number < first + count for first, count in _mapped(app, kind))


def _check(app: App, kind: str, number: int) -> None:
    if not _is_mapped(app, kind, number):
        known = ", ".join(str(a) if n == 1 else f"{a} to {a + n - 1}" for a, n in _mapped(app, kind))
        raise UsageError(
            f"there is no {kind} {number} in {app.name!r}: its ids are {known}",
            hint="as root, and over an imported base with subordinate ids, there are more",
        )


def choose_user(app: App, text: str, roots: Sequence[str]) -> Chosen:
    """Return whom ``text``, ``USER`` or ``USER:GROUP`` as names or numbers, means in ``app``.

    ``roots`` are the folders that make up its root, the topmost first. Raises `UsageError`.
    """
    user, colon, group = text.partition(":")
    files: list[str] = []
    people = list(_entries(roots, "passwd", 7, files))
    groups = list(_entries(roots, "group", 4, files))
    entry = next((words for words in people if words[0] == user), None)
    if entry is None and user.isdecimal():
        entry = next((words for words in people if int(words[2]) == int(user)), None)
        entry = entry or [user, "", user, user, "", "/", "/bin/sh"]
    if entry is None:
        raise UsageError(
            f"there is no user {user!r} in {app.name!r}", hint="write a number, or make the user there"
        )
    uid, gid = int(entry[2]), int(entry[3]) if entry[3].isdecimal() else 0
    if colon:
        named = next((words for words in groups if words[0] == group), None)
        if named is None and not group.isdecimal():
            raise UsageError(f"there is no group {group!r} in {app.name!r}", hint="write a number")
        gid = int(named[2]) if named else int(group)
    elif app.ids is IdMode.SELF and uid == os.geteuid():
        gid = os.getegid()
    _check(app, "user", uid)
    _check(app, "group", gid)
    more = (
        {int(words[2]) for words in groups if entry[0] in words[3].split(",")} - {gid} if not colon else set()
    )
    if app.ids not in (IdMode.RANGE, IdMode.SUBIDS, IdMode.NONE):
        more = set()  # one id has no groups beside it
    home, shell = entry[5] if entry[5].startswith("/") else "/", entry[6] or "/bin/sh"
    person = Person(uid, gid, entry[0], home, shell)
    return Chosen(person, tuple(sorted(g for g in more if _is_mapped(app, "group", g))), tuple(files))
