"""Handing a start to the front door, so that no Python stays behind a running app. See docs/plan.md, "Handed starts".

This process becomes bin/layerrun, with the words and the environment that it was called with. What was worked out
goes along as a sealed memory file. If the command never ran, or if work is left after its end, bin/layerrun becomes
Python again, called with the same words; a variable says what has happened. Each of these variables
holds the pid, which an exec keeps: one that was inherited from elsewhere means nothing.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress

import attrs

from layerrun.model import App
from layerrun.native.launch import Start
from layerrun.runtime import door

__all__ = [
    "Door",
    "Ended",
    "deadline",
    "ended",
    "environment",
    "find",
    "flush",
    "is_ended",
    "passed",
]

_START = "LAYERRUN_START"
_PASSED = "LAYERRUN_PASSED"
_ENDED = "LAYERRUN_ENDED"
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def environment() -> dict[bytes, bytes]:
    """Return the caller's environment: without our own variables, and without the LC_CTYPE of PEP 538.

    Python sets that one in the C locale.
    """
    values = dict(os.environb)
    for name in (_START, _PASSED, _ENDED):
        values.pop(name.encode(), None)
    if values.get(b"LC_CTYPE") in (b"C.UTF-8", b"C.utf8", b"UTF-8"):
        with suppress(OSError), open("/proc/self/environ", "rb") as file:
            given = [word for word in file.read().split(b"\0") if word.startswith(b"LC_CTYPE=")]
            values.pop(b"LC_CTYPE")
            if given:
                values[b"LC_CTYPE"] = given[0].partition(b"=")[2]
    return values


def flush() -> None:
    """Write out what this process has said so far, before the command says anything."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _own(name: str) -> str | None:
    """Return what bin/layerrun has told this very process in a variable, without the pid."""
    pid, _, said = os.environ.get(name, "").partition(":")
    return said if said and pid == str(os.getpid()) else None


def passed() -> tuple[str, str] | None:
    """Return what became of a start that was handed over and never ran: a word and what it is about.

    ``yes``; ``created``, the id of the app that was made for it; or ``again``, the end of patience.
    """
    said = _own(_PASSED)
    if said is None:
        return None
    word, _, about = said.partition(":")
    return word, about


@attrs.frozen
class Ended:
    """How a command ended that left something to do ``after``, and the descriptor of the app's lock."""

    after: str
    app_id: str
    status: int
    lock_fd: int


def ended() -> Ended | None:
    """Return what the front door says of a command that has ended, once: the lock is then the caller's."""
    words = (_own(_ENDED) or "").split(":")
    os.environ.pop(_ENDED, None)
    if len(words) != 4 or not (words[2] + words[3]).isdecimal():
        return None
    after, app_id, status, fd = words
    os.set_inheritable(int(fd), False)
    return Ended(after, app_id, int(status), int(fd))


def is_ended() -> bool:
    """Say whether the front door has something to say of a command that has ended."""
    return _own(_ENDED) is not None


def deadline() -> float | None:
    """Return until when, on the monotonic clock, a start that has missed another's beginning or end tries again."""
    word, about = passed() or ("", "")
    return float(about) if word == "again" else None


@attrs.frozen
class Door:
    """A front door, and the words it is called with. ``created``: the id of the app that was made for this start.

    ``after``, if not empty: what is left to do after the command's end. Python is then called again, and learns
    from `ended` how it ended. ``knocked_until``: it was let in by nobody, and goes on trying until then.
    ``uppers``: folders with their `upper_state`. If the command leaves them like that, nothing is left to do.
    """

    path: str
    words: tuple[str, ...]
    created: str | None = None
    after: str = ""
    knocked_until: float | None = None
    uppers: Mapping[str, str] = attrs.field(factory=dict)

    def through(self, start: Start, app: App, *, join_until: float | None = None) -> None:
        """Become the front door, which carries out ``start``. Returns only if that is not possible.

        ``join_until``: join what runs; until then, if nobody lets us in, it is worth asking Python again.
        """
        if join_until is not None and time.monotonic() > join_until:
            return
        try:
            memory = self.written(start, app, join_until=join_until)
        except OSError:
            return
        flush()
        own = (memory, start.lock_fd, start.app_fd, start.status_fd, start.net_fd)
        fds = [fd for fd in (*own, *start.keep) if fd > 2]
        try:
            for fd in fds:
                os.set_inheritable(fd, True)
            env = environment() | {_START.encode(): b"%d:%d" % (os.getpid(), memory)}
            os.execve(self.path, [self.path, *self.words], env)  # noqa: S606  (a shell is what it must not be)
        except OSError:
            for fd in fds:
                os.set_inheritable(fd, False)
        finally:
            os.close(memory)

    def written(self, start: Start, app: App, *, join_until: float | None) -> int:
        """Return a sealed memory file that holds the start; the caller closes it."""
        memory = os.memfd_create("layerrun-start", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(memory, "wb", closefd=False) as file:
                file.write(self._words_of(start, app, join_until))
            fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(memory)
            raise
        return memory

    def _words_of(self, start: Start, app: App, join_until: float | None) -> bytes:
        """Return what csrc/handoff.c reads."""
        pid = os.getpid()
        argv = start.argv or ()
        words = [
            b"layerrun-start",
            b"1",
            _flag(join_until is not None),
            start.cwd or b"",
            _flag(start.cwd_must),
            _flag(start.stay),
            _flag(start.own_tty),
            _flag(start.detach),
            _number(start.lock_fd),
            _number(start.app_fd),
            _number(start.status_fd),
            _number(start.net_fd),
            b"%d" % len(start.keep),
            *(_number(fd) for fd in start.keep),
            f"{pid}:created:{self.created}".encode() if self.created else b"%d:yes" % pid,
            f"{pid}:again:{join_until or 0.0}".encode(),
            self.after.encode(),
            app.id.encode(),
            app.name.encode(),
            b"%d" % len(argv),
            *argv,
            b"%d" % len(start.env),
            *start.env,
            b"%d" % (2 * len(self.uppers)),
            *(os.fsencode(word) for item in self.uppers.items() for word in item),
            b"plan",
        ]
        return b"\0".join(words) + b"\0" + start.plan


def _flag(value: bool) -> bytes:
    return b"1" if value else b"0"


def _number(fd: int) -> bytes:
    return b"-" if fd < 0 else b"%d" % fd


def find() -> str | None:
    """Return the front door of this installation, unless this start is not to go through it."""
    word = (passed() or ("",))[0]
    if os.environ.get("LAYERRUN_FRONT_DOOR") in ("0", "alone") or word in ("yes", "created"):
        return None
    return door.locate()
