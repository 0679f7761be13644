"""The exception hierarchy: one root, few leaves, each with the exit status it ends a command with.

An error says what failed, why, and what to do about it. ``str(error)`` is the "what: why" line;
``error.hint`` is the "what to do" line or ``None``. Exit statuses follow the command surface:
1 failed, 2 usage, 3 conflict, 4 health check failed, 5 busy, 6 not found, 125 could not start,
126 not executable, 127 not found inside.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "ArchiveError",
    "BaseInUseError",
    "BuildError",
    "BusyError",
    "ChangedError",
    "CommandNotExecutableError",
    "CommandNotFoundError",
    "CommitConflictError",
    "ConflictError",
    "DamagedError",
    "ExistsError",
    "HealthError",
    "LaunchError",
    "LayerrunError",
    "NotFoundError",
    "NotRunningError",
    "RegistryError",
    "StoreError",
    "SystemError",
    "TrustError",
    "UnreachableError",
    "UsageError",
]


class LayerrunError(Exception):
    """The root of every error layerrun raises on purpose.

    Args:
        message: what failed and why, in one line, without a trailing full stop.
        hint: what the reader can do about it, or ``None``.
    """

    exit_status: int = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(LayerrunError, ValueError):
    """What was asked for makes no sense: a bad name, a bad option, a bad combination."""

    exit_status = 2


class ArchiveError(LayerrunError, ValueError):
    """An archive is damaged, is none, or holds what is never unpacked. Nothing of it was kept."""


class RegistryError(LayerrunError):
    """A registry cannot be reached, refuses, or sends what it was not asked for; the store is as it was."""


class TrustError(LayerrunError):
    """What a channel offers is not signed as it must be, or is older than what is known. Nothing of it was used."""


class UnreachableError(LayerrunError):
    """A server does not answer, or not with what was asked for."""


class ConflictError(LayerrunError):
    """Doing it would destroy something else; nothing was written."""

    exit_status = 3


class ChangedError(ConflictError):
    """A commit cannot be taken back, or done again, over what was changed since; nothing was done.

    Args:
        paths: what was changed, absolute, as many as were looked for.
    """

    def __init__(self, message: str, *, hint: str | None = None, paths: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.paths = paths


class CommitConflictError(ConflictError):
    """What a layer changes has been changed on the machine as well since it began; nothing was done.

    Args:
        conflicts: each path, absolute, with what is the matter.
    """

    def __init__(self, conflicts: Sequence[tuple[str, str]], *, hint: str | None = None) -> None:
        self.conflicts = tuple(conflicts)
        path, what = self.conflicts[0]
        more = f", and {len(self.conflicts) - 1} more" if len(self.conflicts) > 1 else ""
        super().__init__(f"nothing was committed: {path!r}: {what}{more}", hint=hint)


class ExistsError(ConflictError, FileExistsError):
    """The name is taken."""

    exit_status = 1


class BaseInUseError(ConflictError):
    """A base cannot go while an app or a throwaway stands on it."""

    exit_status = 3


class HealthError(LayerrunError):
    """A new version of a base did not pass its checks; everything is as it was."""

    exit_status = 4


class BusyError(LayerrunError, BlockingIOError):
    """Somebody else holds the lock; the message says who where that is known.

    Args:
        beginning: whether it is held by a start that has not come to its end yet, and may soon be joined.
    """

    exit_status = 5

    def __init__(self, message: str, *, hint: str | None = None, beginning: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.beginning = beginning


class NotFoundError(LayerrunError, LookupError):
    """No such app, throwaway, base or path; the hint names the nearest ones."""

    exit_status = 6


class StoreError(LayerrunError):
    """The store cannot be used as it is: not ours, not 0700, another version, on an unfit file system."""


class DamagedError(StoreError):
    """Something the catalog names is missing or altered on disk."""


class BuildError(LayerrunError):
    """A step of a build has failed; what was built before is as it was.

    Args:
        status: what the command has ended with; 128+N for a signal.
    """

    def __init__(self, message: str, *, hint: str | None = None, status: int = 1) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class NotRunningError(LayerrunError):
    """The app does not run, and what was asked for needs it to."""


class SystemError(LayerrunError, OSError):  # noqa: A001  (the builtin is unrelated; callers catch OSError)
    """A system call failed: the step, the path and the errno are kept.

    Args:
        message: what failed and why.
        errno: the kernel's number.
        path: what it was about, or ``None``.
    """

    def __init__(self, message: str, *, errno: int, path: str | None = None, hint: str | None = None) -> None:
        LayerrunError.__init__(self, message, hint=hint)
        self.errno = errno
        self.filename = path

    def __str__(self) -> str:
        return str(self.args[0])


class LaunchError(LayerrunError):
    """The sandbox could not be started; the command never ran."""

    exit_status = 125


class _CommandError(LaunchError, OSError):
    """Something is wrong with the command itself: ``errno`` and ``filename`` say it as OSError does."""

    def __init__(
        self, message: str, *, hint: str | None = None, errno: int | None = None, path: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.errno = errno
        self.filename = path

    def __str__(self) -> str:
        return str(self.args[0])


class CommandNotExecutableError(_CommandError, PermissionError):
    """The command exists inside but cannot be executed."""

    exit_status = 126


class CommandNotFoundError(_CommandError, FileNotFoundError):
    """The command does not exist inside."""

    exit_status = 127
