"""Commands in apps, as subprocess has them: `Popen`, and `run` on top of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, AnyStr

from layerrun.api.report import Report, failure_of, is_passing, pipe
from layerrun.errors import LayerrunError, SystemError

if TYPE_CHECKING:
    from layerrun.api.command import Command
    from layerrun.api.handing import Handed
    from layerrun.api.inside import Inside

__all__ = ["Popen", "run", "sweep"]


class Popen(subprocess.Popen[AnyStr]):
    """A command that runs in an app: what `App.popen` returns. Whatever `subprocess.Popen` can do, it can.

    The process itself, and so ``pid``, is that of a small program on this side, the front door: it passes
    signals on to the command and ends as the command ends. `kill` ends both; `wait` after it waits for both.

    Attributes:
        args: the command as it was given; ``[]`` for the app's own.
        app: the name of the app.
    """

    def __init__(self, command: Command, *, settle: bool = True, **options: Any) -> None:
        # `App.popen` is what callers call. settle: wait until the command has been executed.
        self.app = command.app
        self._command = command
        self._options = options
        self._status_fd = -1
        self._report = Report()
        self._inside: Inside | None = None
        self._handed = False
        self._counted = False  # of an app on trial, and not yet
        self._join_until: float | None = None  # of a start that joins what runs, and may be tried again
        if command.may_be_stored:
            self._spawn(None)
        else:
            self._hand_over()
        if settle:
            self._settle()

    def _spawn(self, handed: Handed | None) -> None:
        """Start the front door: on a start that was worked out, or else on one that it finds in the store."""
        reader, writer = pipe() if handed is None else handed.pipe
        self._close_status()
        self._report = Report()
        self._status_fd = reader
        self._handed, self._join_until = handed is not None, handed.join_until if handed else None
        self._counted = handed is not None and handed.counted
        self.__dict__.pop("_devnull", None)  # subprocess keeps the number, though it has closed it
        try:
            super().__init__(
                self._command.words(writer),
                env=self._command.variables(handed),
                pass_fds=(writer, *(handed.fds if handed else ())),
                **self._options,
            )
        except OSError as error:
            raise SystemError(
                f"cannot start {self.app!r}: {error.strerror}", errno=error.errno or 0, path=error.filename
            ) from error
        finally:
            os.close(writer)
            if handed is not None:
                handed.close()
        self.args = self._command.shown

    def _hand_over(self) -> None:
        """Work the start out in this process, and start the front door on it."""
        from layerrun.api.handing import is_terminal, work_out

        own_tty = is_terminal(self._options)
        self._spawn(work_out(self._command, own_tty=own_tty, knocked_until=self._join_until))

    def _close_pipes(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with suppress(OSError):  # what was written before it ended, and not yet flushed
                    stream.close()

    def start_again(self) -> None:
        """Start anew; the front door has ended, since it knew no plan or met another's beginning or end."""
        self._close_pipes()
        self._hand_over()

    def has_started(self) -> bool:
        """Return whether the command was executed; ``False``: `start_again`. Raises what else kept it from that."""
        if self.returncode is None:
            self._report.read(self._status_fd)
        else:
            self._report.read_rest(self._status_fd)
        if self._report.word == "started":
            self._close_status()
            self._count()
            return True
        super().wait()
        self._close_status()
        knew_none = self._report.word == "unsure" and not self._handed
        if knew_none or (self._join_until is not None and is_passing(self._report)):
            return False
        error = failure_of(self._command, self._report, self.returncode)
        if self._counted:
            from layerrun.api import counting

            counting.count_failure(self._command, error)
        raise error

    def _settle(self) -> None:
        try:
            while not self.has_started():
                self.start_again()
        except BaseException:
            # It will never run, or we were interrupted: nothing may be left behind.
            self.kill()
            self._close_pipes()
            self.wait()
            raise

    def _close_status(self) -> None:
        if self._status_fd >= 0:
            os.close(self._status_fd)
            self._status_fd = -1

    def __del__(self) -> None:
        self._close_status()
        super().__del__()

    def send_signal(self, sig: int) -> None:
        """Send a signal to the command."""
        if sig == signal.SIGKILL and self._inside is None and self.returncode is None:
            from layerrun.api.inside import Inside

            if self._status_fd >= 0:
                self._report.read_rest(self._status_fd)
            self._inside = Inside(self.pid, self._report.joined)
        super().send_signal(sig)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the command to end, at most ``timeout`` seconds; return and set ``returncode``."""
        status = super().wait(timeout)
        if self._inside is not None:
            inside, self._inside = self._inside, None
            inside.wait()
            self._counted = False  # it was killed by who started it
        self._count()
        return status

    def poll(self) -> int | None:
        """Return the exit status if the command has ended."""
        status = super().poll()
        self._count()
        return status

    def _count(self) -> None:
        """Count how a command of an app on trial has ended, once."""
        if self._counted and self.returncode is not None and self._report.word == "started":
            from layerrun.api import counting

            self._counted = False
            counting.count(self._command, self.returncode)


def _communicate(process: Popen[Any], data: Any, timeout: float | None) -> tuple[Any, Any]:
    """Run a process to its end, and make sure that there was a start; else, and if there is no end, kill it."""
    end = None if timeout is None else time.monotonic() + timeout
    try:
        while True:
            left = None if end is None else max(0.0, end - time.monotonic())
            found = process.communicate(data, timeout=left)
            if process.has_started():
                return found
            process.start_again()
    except BaseException as error:
        process.kill()
        process.wait()  # after a KeyboardInterrupt the end of a with block would not
        if isinstance(error, subprocess.TimeoutExpired):
            error.timeout = timeout or 0.0
        raise


def sweep(command: Command) -> None:
    """Remove what an ephemeral start has left; what cannot be removed now is left to the next opening of the store."""
    from layerrun.store.store import Store

    with suppress(LayerrunError, OSError), Store.open(command.store, create=False) as store:
        for id_ in store.catalog.ephemeral():
            with suppress(LayerrunError, OSError):  # it still runs: another's
                app = store.catalog.app_by_id(id_)
                if app is not None:
                    store.app_lock(app, "remove").release()  # waits for what is just ending
        store.sweep()


def run(
    command: Command,
    *,
    input: Any = None,  # noqa: A002  (the name is subprocess's)
    capture_output: bool = False,
    check: bool = False,
    timeout: float | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a command in an app and wait for it: see `App.run`."""
    if input is not None:
        if options.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used")
        options["stdin"] = subprocess.PIPE
    if capture_output:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output")
        options["stdout"] = options["stderr"] = subprocess.PIPE
    try:
        with Popen[Any](command, settle=False, **options) as process:
            stdout, stderr = _communicate(process, input, timeout)
    finally:
        if command.ephemeral:
            sweep(command)
    status = process.returncode
    if check and status:
        raise subprocess.CalledProcessError(status, command.shown, output=stdout, stderr=stderr)
    return subprocess.CompletedProcess(command.shown, status, stdout, stderr)
