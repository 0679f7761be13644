"""The ways to run a command in an app; `layerrun.api.store.App` has them."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Never, overload

from layerrun.api.command import Args, Command, Environment, File, Options, Path
from layerrun.api.process import Popen
from layerrun.api.process import run as run_process
from layerrun.model import AppKind

if TYPE_CHECKING:
    import asyncio
    from typing import Unpack

__all__ = ["Running"]

_REFUSED = {
    "shell": 'a shell is a command like others: run(["sh", "-c", line])',
    "executable": "name the program in the command itself",
    "preexec_fn": "no code of this process is run between its fork and the command",
    "pass_fds": "only stdin, stdout and stderr reach the inside",
    "close_fds": "only stdin, stdout and stderr reach the inside",
    "user": "whom a command runs as inside is fixed when the app is created",
    "group": "whom a command runs as inside is fixed when the app is created",
    "extra_groups": "whom a command runs as inside is fixed when the app is created",
    "umask": "it is that of this process",
    "start_new_session": "a command is in a session of its own anyway",
    "process_group": "a command is in a process group of its own anyway",
}


def _refuse(unknown: dict[str, Never]) -> None:
    for name in unknown:
        why = f" ({_REFUSED[name]})" if name in _REFUSED else ""
        raise TypeError(f"a command in an app takes no {name}={why}")


class _RunOptions(Options, total=False):
    capture_output: bool
    check: bool
    timeout: float | None


class Running(ABC):
    """What can run commands.

    Attributes:
        name: its name.
        kind: whether it is an app or a throwaway.
    """

    name: str
    kind: ClassVar[AppKind]

    @abstractmethod
    def _store_path(self) -> str:
        """Return the path of the store that it lies in; ValueError once that is closed."""

    def _command(
        self,
        args: Args,
        unknown: dict[str, Never],
        *,
        cwd: Path | None,
        env: Environment | None,
        profile: str | None,
        ephemeral: bool,
    ) -> Command:
        _refuse(unknown)
        return Command.check(
            self._store_path(),
            self.name,
            args,
            cwd=cwd,
            env=env,
            profile=profile,
            ephemeral=ephemeral,
            kind=self.kind,
        )

    @overload
    def run(
        self,
        args: Args = None,
        *,
        text: Literal[True],
        input: str | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[_RunOptions],
    ) -> subprocess.CompletedProcess[str]: ...
    @overload
    def run(
        self,
        args: Args = None,
        *,
        encoding: str,
        input: str | None = None,
        text: bool | None = None,
        errors: str | None = None,
        **options: Unpack[_RunOptions],
    ) -> subprocess.CompletedProcess[str]: ...
    @overload
    def run(
        self,
        args: Args = None,
        *,
        input: bytes | bytearray | memoryview | None = None,
        text: Literal[False] | None = None,
        encoding: None = None,
        errors: None = None,
        **options: Unpack[_RunOptions],
    ) -> subprocess.CompletedProcess[bytes]: ...
    def run(
        self,
        args: Args = None,
        *,
        input: Any = None,  # noqa: A002  (the name is subprocess's)
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        capture_output: bool = False,
        check: bool = False,
        timeout: float | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        cwd: Path | None = None,
        env: Environment | None = None,
        profile: str | None = None,
        ephemeral: bool = False,
        **unknown: Never,
    ) -> subprocess.CompletedProcess[Any]:
        """Run a command in the app and wait for it, as `subprocess.run` does outside.

        Args:
            args: the command and its arguments, or the name of a program alone; ``None`` runs the app's own command.
            input: what is written to its stdin: bytes, or a string if ``text``, ``encoding`` or ``errors`` is given.
            stdin: ``None`` (this process's own), `subprocess.DEVNULL`, `subprocess.PIPE`, a descriptor or a file.
            stdout: likewise.
            stderr: likewise, or `subprocess.STDOUT`.
            capture_output: give the result ``stdout`` and ``stderr``.
            check: raise `subprocess.CalledProcessError` if the status is not 0.
            timeout: seconds, from now on. When they are over the command is killed and waited for.
            text: strings instead of bytes, in the locale's encoding or in ``encoding``.
            encoding: as for `open`; means ``text``.
            errors: as for `open`; means ``text``.
            cwd: where to start, an absolute path as seen inside. Without it: this process's own working folder
                where the app has it, else the app's home.
            env: variables to ADD inside. This is not subprocess's ``env``, which replaces everything: what a
                sandbox's environment consists of is the app's affair, and leaking nothing is a part of it.
            profile: run in this profile of the app instead; a new one is made.
            ephemeral: run in an empty layer that is thrown away at the end.
            unknown: anything else is a TypeError, which says why.

        Returns:
            As subprocess: ``args``, ``returncode`` (-N after signal N), ``stdout`` and ``stderr``.

        Raises:
            layerrun.errors.CommandNotFoundError: there is no such command inside; it is a FileNotFoundError too.
            layerrun.errors.CommandNotExecutableError: it cannot be executed; it is a PermissionError too.
            layerrun.errors.LaunchError: the sandbox could not be started, for another reason.
            layerrun.errors.NotFoundError: there is no such app any more.
            layerrun.errors.BusyError: the app is being changed by somebody else.
            layerrun.errors.UsageError: what was asked for makes no sense; it is a ValueError too.
            subprocess.CalledProcessError: it ended with another status than 0, and ``check`` was set.
            subprocess.TimeoutExpired: it took longer than ``timeout``.
        """
        command = self._command(args, unknown, cwd=cwd, env=env, profile=profile, ephemeral=ephemeral)
        return run_process(
            command,
            input=input,
            capture_output=capture_output,
            check=check,
            timeout=timeout,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            encoding=encoding,
            errors=errors,
        )

    @overload
    def popen(
        self,
        args: Args = None,
        *,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        bufsize: int = -1,
        **options: Unpack[Options],
    ) -> Popen[str]: ...
    @overload
    def popen(
        self,
        args: Args = None,
        *,
        encoding: str,
        text: bool | None = None,
        errors: str | None = None,
        bufsize: int = -1,
        **options: Unpack[Options],
    ) -> Popen[str]: ...
    @overload
    def popen(
        self,
        args: Args = None,
        *,
        text: Literal[False] | None = None,
        encoding: None = None,
        errors: None = None,
        bufsize: int = -1,
        **options: Unpack[Options],
    ) -> Popen[bytes]: ...
    def popen(
        self,
        args: Args = None,
        *,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        bufsize: int = -1,
        cwd: Path | None = None,
        env: Environment | None = None,
        profile: str | None = None,
        ephemeral: bool = False,
        **unknown: Never,
    ) -> Popen[Any]:
        """Start a command in the app and return once it has been executed, as `subprocess.Popen` does outside.

        The arguments and the errors are those of `run`; ``bufsize`` is as for `subprocess.Popen`.
        """
        command = self._command(args, unknown, cwd=cwd, env=env, profile=profile, ephemeral=ephemeral)
        return Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            encoding=encoding,
            errors=errors,
            bufsize=bufsize,
        )

    @overload
    async def run_async(
        self,
        args: Args = None,
        *,
        text: Literal[True],
        input: str | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **options: Unpack[_RunOptions],
    ) -> subprocess.CompletedProcess[str]: ...
    @overload
    async def run_async(
        self,
        args: Args = None,
        *,
        encoding: str,
        input: str | None = None,
        text: bool | None = None,
        errors: str | None = None,
        **options: Unpack[_RunOptions],
    ) -> subprocess.CompletedProcess[str]: ...
    @overload
    async def run_async(
        self,
        args: Args = None,
        *,
        input: bytes | bytearray | memoryview | None = None,
        text: Literal[False] | None = None,
        encoding: None = None,
        errors: None = None,
        **options: Unpack[_RunOptions],
    ) -> subprocess.CompletedProcess[bytes]: ...
    async def run_async(
        self,
        args: Args = None,
        *,
        input: Any = None,  # noqa: A002  (the name is subprocess's)
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        capture_output: bool = False,
        check: bool = False,
        timeout: float | None = None,  # noqa: ASYNC109  (so is this; see asyncio.timeout for the other)
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        cwd: Path | None = None,
        env: Environment | None = None,
        profile: str | None = None,
        ephemeral: bool = False,
        **unknown: Never,
    ) -> subprocess.CompletedProcess[Any]:
        """Do what `run` does without blocking the event loop. The arguments, the result and the errors are the same.

        Cancelled, it kills the command and waits for it.
        """
        from layerrun.api import aio

        command = self._command(args, unknown, cwd=cwd, env=env, profile=profile, ephemeral=ephemeral)
        return await aio.run(
            command,
            input=input,
            capture_output=capture_output,
            check=check,
            timeout=timeout,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            encoding=encoding,
            errors=errors,
        )

    async def popen_async(
        self,
        args: Args = None,
        *,
        stdin: File = None,
        stdout: File = None,
        stderr: File = None,
        limit: int = 2**16,
        cwd: Path | None = None,
        env: Environment | None = None,
        profile: str | None = None,
        ephemeral: bool = False,
        **unknown: Never,
    ) -> asyncio.subprocess.Process:
        """Start a command in the app and return once it has been executed, as `asyncio.create_subprocess_exec` does.

        The arguments and the errors are those of `run`. The streams are of bytes; ``limit`` is their readers'.
        Cancelled before it returns, it leaves nothing behind.
        """
        from layerrun.api import aio

        command = self._command(args, unknown, cwd=cwd, env=env, profile=profile, ephemeral=ephemeral)
        return await aio.popen(command, stdin=stdin, stdout=stdout, stderr=stderr, limit=limit)
