"""What is to be run, checked, and as the front door takes it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, TypeAlias, TypedDict

import attrs

from layerrun.errors import LaunchError, UsageError
from layerrun.model import AppKind, check_name
from layerrun.runtime import door

if TYPE_CHECKING:
    from layerrun.api.handing import Handed

__all__ = ["Args", "Command", "Environment", "File", "Options", "Path", "front_door"]

Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
Args: TypeAlias = Path | Sequence[Path] | None
Environment: TypeAlias = Mapping[str, str] | Mapping[bytes, bytes]
File: TypeAlias = int | IO[Any] | None


class Options(TypedDict, total=False):
    """What every way to run a command takes; see `App.run`."""

    stdin: File
    stdout: File
    stderr: File
    cwd: Path | None
    env: Environment | None
    profile: str | None
    ephemeral: bool


def _words(args: Args) -> tuple[str, ...] | None:
    if args is None:
        return None
    given = [args] if isinstance(args, str | bytes | os.PathLike) else args
    words = tuple([os.fsdecode(word) for word in given])
    if not words or not words[0]:
        raise UsageError("the command is empty")
    if any("\0" in word for word in words):
        raise UsageError("the command holds a NUL byte")
    return words


def _variables(env: Environment | None) -> dict[str, str]:
    found = {os.fsdecode(name): os.fsdecode(value) for name, value in (env or {}).items()}
    for name, value in found.items():
        if not name or "=" in name or "\0" in name + value:
            raise UsageError(
                f"bad variable {name!r}", hint="a name is not empty and holds no =; no NUL in either"
            )
    return found


def _place(cwd: Path | None) -> str | None:
    if cwd is None:
        return None
    place = os.fsdecode(cwd)
    if not place.startswith("/") or "\0" in place:
        raise UsageError(f"bad cwd {place!r}: it must be absolute", hint="it is a path as seen inside")
    return place


@attrs.frozen
class Command:
    """A command in an app. ``argv=None``: the app's own; ``env`` is added to the environment inside.

    Attributes:
        given: the command as the caller wrote it, for CompletedProcess and errors.
    """

    store: str
    app: str
    given: Args
    argv: tuple[str, ...] | None
    cwd: str | None
    env: Mapping[str, str]
    profile: str | None
    ephemeral: bool
    kind: AppKind = AppKind.APP

    @classmethod
    def check(
        cls,
        store: str,
        app: str,
        args: Args,
        *,
        cwd: Path | None = None,
        env: Environment | None = None,
        profile: str | None = None,
        ephemeral: bool = False,
        kind: AppKind = AppKind.APP,
    ) -> Command:
        """Make one. Raises `UsageError` where something makes no sense."""
        if kind is AppKind.THROWAWAY and (ephemeral or profile is not None):
            raise UsageError("a throwaway has no profiles, and no ephemeral starts", hint="make another one")
        if profile is not None:
            check_name(profile, "name of a profile")
        if ephemeral and (profile is not None or "@" in app):
            raise UsageError("ephemeral and a profile exclude each other: it has a layer of its own")
        given: Args = args if isinstance(args, str | bytes | os.PathLike) or args is None else list(args)
        return cls(store, app, given, _words(given), _place(cwd), _variables(env), profile, ephemeral, kind)

    @property
    def shown(self) -> Any:
        """The command as errors and results of subprocess name it."""
        return [] if self.given is None else self.given

    @property
    def may_be_stored(self) -> bool:
        """Whether the front door may have a plan for it."""
        if self.ephemeral or self.kind is not AppKind.APP:
            return False
        return os.environ.get("LAYERRUN_FRONT_DOOR") != "0"

    def variables(self, handed: Handed | None = None) -> dict[bytes, bytes]:
        """Return the environment of a front door that is to come back rather than to execute Python."""
        # Bytes, as they are kept: each start pays for every variable that is converted.
        own = {b"LAYERRUN_STORE": os.fsencode(self.store), b"LAYERRUN_FRONT_DOOR": b"alone"}
        if handed is not None:
            own[b"LAYERRUN_START"] = handed.word.encode()
        return dict(os.environb) | own

    def words(self, status_fd: int) -> list[str]:
        """Return the front door's argv."""
        words = [front_door(), "app", self.app, "--status-fd", str(status_fd)]
        if self.profile is not None:
            words += ["--profile", self.profile]
        if self.cwd is not None:
            words += ["--cwd", self.cwd]
        for name, value in self.env.items():
            words += ["-e", f"{name}={value}"]
        if self.argv is not None:
            words += ["--", *self.argv]
        return words


def front_door() -> str:
    """Return the path of bin/layerrun; `LaunchError` where this installation has none."""
    found = door.locate()
    if found is None:
        raise LaunchError(
            "the program bin/layerrun of this installation is not there", hint="install layerrun again"
        )
    return found
