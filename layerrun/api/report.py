"""What the front door says of a start, on the descriptor that it was given for that. See docs/plan.md."""

from __future__ import annotations

import errno
import json
import os
from typing import Any

from layerrun.api.command import Command
from layerrun.errors import CommandNotExecutableError, CommandNotFoundError, LaunchError, LayerrunError
from layerrun.model import App, AppConfig, AppKind, IdMode

__all__ = ["Report", "failure_of", "is_passing", "pipe"]


def pipe() -> tuple[int, int]:
    """Return a pipe to be told by; neither end is a standard descriptor, even where those are closed."""
    ends = os.pipe()
    if min(ends) > 2:
        return ends
    import fcntl

    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 3) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


class Report:
    """What has been said so far.

    Attributes:
        word: ``started``, ``failed``, ``unsure`` (nothing has happened, Python must decide), or ``None``: nothing yet.
        detail: the whole of that message.
    """

    def __init__(self) -> None:
        self._bytes = b""
        self.word: str | None = None
        self.detail: dict[str, Any] = {}

    @property
    def joined(self) -> int | None:
        """The pid 1 of what runs, if the command has joined that."""
        return self.detail.get("pid") or None if self.detail.get("joined") else None

    def add(self, data: bytes) -> bool:
        """Take what was read; say whether it is known by now what became of the start."""
        *lines, self._bytes = (self._bytes + data).split(b"\n")
        for line in lines:
            detail = json.loads(line)
            if self.word is None and detail.get("event") in ("started", "failed", "unsure"):
                self.word, self.detail = detail["event"], detail
        return self.word is not None

    def read(self, fd: int) -> None:
        """Read until the start's fate is known, or all ends of the pipe are closed."""
        while self.word is None:
            data = os.read(fd, 4096)
            if not data or self.add(data):
                return

    def read_rest(self, fd: int) -> None:
        """Read what is there, once whoever says it has ended."""
        os.set_blocking(fd, False)
        try:
            self.read(fd)
        except BlockingIOError:  # a process inside holds the other end; it says nothing
            pass


def failure_of(command: Command, report: Report, status: int | None) -> LayerrunError:
    """Return the error for a command that never ran. ``status`` is how the front door ended, as subprocess gives it."""
    if report.word != "failed":
        return LaunchError(
            f"cannot start {command.app!r}: the front door ended with status {status} before the command began",
            hint="was it killed? is the machine out of memory?",
        )
    detail = report.detail
    if "message" in detail:
        return _spoken(detail, status)
    from layerrun.native.launch import Failure
    from layerrun.runtime.explain import launch_error

    failure = Failure(
        int(detail["errno"]), int(detail.get("op", -1)), str(detail["step"]), str(detail.get("path", ""))
    )
    return launch_error(failure, _app(command), command.store)


def _spoken(detail: dict[str, Any], status: int | None) -> LayerrunError:
    kind = {126: CommandNotExecutableError, 127: CommandNotFoundError}.get(status or 0, LaunchError)
    return kind(str(detail["message"]), hint=detail.get("hint"))


def _app(command: Command) -> App:
    """Return the app that a failure is about; if it is gone by now, what can be said of it."""
    from layerrun.store.store import Store

    name = command.app if command.profile is None else f"{command.app}@{command.profile}"
    try:
        with Store.open(command.store, create=False) as store:
            return store.app(name)
    except (LayerrunError, OSError):
        ids = IdMode.SELF if os.geteuid() else IdMode.RANGE
        return App("", name, AppKind.APP, AppConfig(), ids, None, "", 0)


def is_passing(report: Report) -> bool:
    """Say whether the same start may work a moment later: nobody let it in, for the app is beginning or ending."""
    codes = (errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ENOENT)
    step = str(report.detail.get("step", ""))
    return report.word == "failed" and step.startswith("join") and report.detail.get("errno") in codes
