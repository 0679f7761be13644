"""Commands in apps, as asyncio has them: what `App.run_async` and `App.popen_async` do."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import subprocess
from typing import TYPE_CHECKING, Any

from layerrun.api.process import sweep
from layerrun.api.report import Report, failure_of, is_passing, pipe
from layerrun.errors import SystemError

if TYPE_CHECKING:
    from layerrun.api.command import Command
    from layerrun.api.handing import Handed

__all__ = ["popen", "run"]

# A loop holds its tasks by weak references only.
_counting: set[asyncio.Future[None]] = set()


async def popen(command: Command, **options: Any) -> asyncio.subprocess.Process:
    """Start a command in an app; return once it has been executed. Cancelled before that, it leaves nothing."""
    process, _, counted = await _begin(command, options)
    if counted:
        task = asyncio.ensure_future(_count(command, process))
        _counting.add(task)
        task.add_done_callback(_counting.discard)
    return process


async def _count(command: Command, process: asyncio.subprocess.Process) -> None:
    """Count how a command of an app on trial ends; see `layerrun.api.counting`."""
    from layerrun.api import counting

    await asyncio.to_thread(counting.count, command, await process.wait())


async def _begin(
    command: Command, options: dict[str, Any]
) -> tuple[asyncio.subprocess.Process, Report, bool]:
    """Start a command; return it, what was said of the start, and whether its end is to be counted."""
    handed = None if command.may_be_stored else await _work_out(command, options, None)
    while True:
        process, report = await _start(command, handed, options)
        if report.word == "started":
            return process, report, handed is not None and handed.counted
        status = await process.wait()
        knew_none = report.word == "unsure" and handed is None
        join_until = handed.join_until if handed else None
        if not knew_none and (join_until is None or not is_passing(report)):
            error = await asyncio.to_thread(failure_of, command, report, status)
            if handed is not None and handed.counted:
                from layerrun.api import counting

                await asyncio.to_thread(counting.count_failure, command, error)
            raise error
        handed = await _work_out(command, options, join_until)


async def _work_out(command: Command, options: dict[str, Any], knocked_until: float | None) -> Handed:
    from layerrun.api.handing import is_terminal, work_out

    work = asyncio.ensure_future(
        asyncio.to_thread(work_out, command, own_tty=is_terminal(options), knocked_until=knocked_until)
    )
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        # The thread goes on; what it comes back with is closed.
        with contextlib.suppress(Exception):
            late = await work
            late.close()
            for fd in late.pipe:
                os.close(fd)
        raise


async def _start(
    command: Command, handed: Handed | None, options: dict[str, Any]
) -> tuple[asyncio.subprocess.Process, Report]:
    """Start the front door; return it with what it says of the start."""
    reader, writer = pipe() if handed is None else handed.pipe
    report = Report()
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *command.words(writer),
                env=command.variables(handed),
                pass_fds=(writer, *(handed.fds if handed else ())),
                **options,
            )
        except OSError as error:
            raise SystemError(
                f"cannot start {command.app!r}: {error.strerror}",
                errno=error.errno or 0,
                path=error.filename,
            ) from error
        finally:
            os.close(writer)
            if handed is not None:
                handed.close()
        try:
            await _read(reader, report)
        except BaseException:
            await kill(process, report)
            raise
    finally:
        os.close(reader)
    return process, report


async def _read(fd: int, report: Report) -> None:
    """Read until it is known what became of the start, or nobody is left to say it."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def ready() -> None:
        try:
            report.read(fd)
        except BlockingIOError:
            return
        except BaseException as error:  # noqa: BLE001  (for whoever waits)
            if not done.done():
                done.set_exception(error)
            return
        if not done.done():
            done.set_result(None)

    os.set_blocking(fd, False)
    loop.add_reader(fd, ready)
    try:
        await done
    finally:
        loop.remove_reader(fd)


async def kill(process: asyncio.subprocess.Process, report: Report) -> None:
    """Kill a command, here and inside, and wait for both."""
    from layerrun.api.inside import Inside

    inside = Inside(process.pid, report.joined) if process.returncode is None else None
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    # Once more cancelled, it goes on all the same.
    await asyncio.shield(asyncio.ensure_future(process.wait()))
    if inside is not None:
        await asyncio.shield(asyncio.to_thread(inside.wait))


async def _communicate(command: Command, options: dict[str, Any], data: Any) -> tuple[int, Any, Any]:
    """Run a command to its end, and kill it if we are cancelled; return its status and what it wrote."""
    process, report, counted = await _begin(command, options)
    try:
        stdout, stderr = await process.communicate(data)
    except BaseException:
        await kill(process, report)
        raise
    if counted:
        await _count(command, process)
    assert process.returncode is not None
    return process.returncode, stdout, stderr


async def run(
    command: Command,
    *,
    input: Any = None,  # noqa: A002  (the name is subprocess's)
    capture_output: bool = False,
    check: bool = False,
    timeout: float | None = None,  # noqa: ASYNC109  (it is subprocess's: TimeoutExpired, and what was written by then)
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Run a command in an app and wait for it: see `App.run_async`."""
    if input is not None:
        if options.get("stdin") is not None:
            raise ValueError("stdin and input arguments may not both be used")
        options["stdin"] = subprocess.PIPE
    if capture_output:
        if options.get("stdout") is not None or options.get("stderr") is not None:
            raise ValueError("stdout and stderr arguments may not be used with capture_output")
        options["stdout"] = options["stderr"] = subprocess.PIPE
    texts = _Texts(encoding, errors) if text or encoding or errors else None
    data = texts.encode(input) if texts and input is not None else input
    try:
        async with asyncio.timeout(timeout):
            status, *found = await _communicate(command, options, data)
    except TimeoutError:
        raise subprocess.TimeoutExpired(command.shown, timeout or 0.0) from None
    finally:
        if command.ephemeral:
            await asyncio.shield(asyncio.to_thread(sweep, command))
    stdout, stderr = (texts.decode(data) if texts and data is not None else data for data in found)
    if check and status:
        raise subprocess.CalledProcessError(status, command.shown, output=stdout, stderr=stderr)
    return subprocess.CompletedProcess(command.shown, status, stdout, stderr)


class _Texts:
    """What subprocess does to text: the locale's encoding if none is named, and one kind of line end."""

    def __init__(self, encoding: str | None, errors: str | None) -> None:
        self.encoding = io.text_encoding(encoding) if encoding is None else encoding
        self.errors = errors

    def encode(self, text: str) -> bytes:
        buffer = io.BytesIO()
        file = io.TextIOWrapper(buffer, encoding=self.encoding, errors=self.errors, newline="\n")
        file.write(text)
        file.flush()
        return buffer.getvalue()

    def decode(self, data: bytes) -> str:
        return io.TextIOWrapper(io.BytesIO(data), encoding=self.encoding, errors=self.errors).read()
