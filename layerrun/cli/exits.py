"""How a command ends: the one place that turns what happened into an exit status and a message."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from layerrun.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["COULD_NOT_START", "ended", "report", "say_error", "status_of"]

COULD_NOT_START = 125
# 128 and the number of the signal, SIGINT and SIGPIPE.
INTERRUPTED = 130
BROKEN_PIPE = 141

# How hints begin that are a question or a fact.
_SAYING = (
    *(
        "did you mean ",
        "there is ",
        "there is: ",
        "nothing ",
        "is ",
        "was ",
        "one of ",
        "one of: ",
        "known are: ",
    ),
    *("its ", "it is ", "such as ", "somebody ", "news may ", "a ", "as root ", "no ", "too few ", "the "),
    *("what it said ", "whoever ", "UID:GID"),
)


def status_of(error: BaseException, *, run_like: bool = False) -> int:
    """Return the exit status that ``error`` ends a command with.

    Args:
        error: what was raised.
        run_like: whether the command was to run a program, whose own status a 1 would be mistaken for.
    """
    from layerrun.errors import LayerrunError

    match error:
        case LayerrunError():
            status = error.exit_status
        case click.exceptions.Exit():
            return error.exit_code
        case click.ClickException():
            status = error.exit_code
        case KeyboardInterrupt():
            return INTERRUPTED
        case BrokenPipeError():
            return BROKEN_PIPE
        case _:
            status = 1
    return COULD_NOT_START if run_like and status == 1 else status


def _advice(hint: str) -> str:
    """Return ``try: HINT``, or the hint as it is where it is a question or a fact and nothing to try."""
    return hint if hint.startswith(_SAYING) else f"try: {hint}"


def say_error(message: str, hint: str | None = None) -> None:
    """Write ``layerrun: MESSAGE`` and, if there is one, the hint to standard error."""
    lines = [f"layerrun: {printable(message)}"]
    if hint:
        lines += [f"  {_advice(printable(line))}" for line in hint.splitlines()]
    try:
        sys.stderr.write("\n".join(lines) + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody reads it; the status still says it


def report(error: BaseException) -> None:
    """Say on standard error what failed, why, and what to do about it."""
    from layerrun.errors import LayerrunError

    match error:
        case click.exceptions.Exit() | BrokenPipeError():
            return
        case LayerrunError():
            say_error(str(error), error.hint)
        case click.UsageError():
            _report_usage(error)
        case click.ClickException():
            say_error(error.format_message())
        case click.Abort():
            say_error("stopped: no answer, and nothing was done")
        case KeyboardInterrupt():
            say_error("interrupted")
        case OSError():
            what = f"{error.filename}: " if isinstance(error.filename, str) else ""
            say_error(f"{what}{error.strerror or error}")
        case _:
            say_error(
                f"internal error: {type(error).__name__}: {error}",
                "set LAYERRUN_DEBUG=1 to see where, and report it",
            )
    if os.environ.get("LAYERRUN_DEBUG"):
        import traceback

        traceback.print_exception(error)


def _report_usage(error: click.UsageError) -> None:
    """Put click's sentence into the form of all the others, with the command's help as the hint."""
    command = error.ctx.command_path if error.ctx else "layerrun"
    text = " ".join(line.strip() for line in error.format_message().splitlines()).rstrip(".")
    verb = command.removeprefix("layerrun").strip()
    text = text[:1].lower() + text[1:].replace("'[NUMBER]'", "'NUMBER'").replace(
        "a valid integer range", "a number"
    )
    say_error(f"{verb}: {text}" if verb else text, f"{command} --help")


def _tell(status_fd: int, error: BaseException) -> None:
    """Tell ``--status-fd`` that the command never ran."""
    import json

    line = json.dumps({"event": "failed", "message": str(error)}, separators=(",", ":"))
    try:
        os.write(status_fd, line.encode("ascii") + b"\n")
    except OSError:
        pass  # nobody reads it; the status still says it


def ended(
    call: Callable[[], object],
    is_run_like: Callable[[], bool],
    status_fd: Callable[[], int | None] = lambda: None,
) -> int:
    """Call ``call`` and return the exit status it ends with, having reported what it raised.

    Args:
        call: does the command's work; it returns the exit status, ``None`` for 0.
        is_run_like: tells, when the call has failed, whether a program was about to be run by it.
        status_fd: gives, when the call has failed, the descriptor that is to be told, if there is one.
    """
    try:
        result = call()
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except BaseException as error:
        if isinstance(error, SystemExit):
            raise
        report(error)
        _flush_or_drop()
        fd = status_fd()
        if fd is not None and is_run_like():
            _tell(fd, error)
        return status_of(error, run_like=is_run_like())


def _flush_or_drop() -> None:
    """Flush standard output; if nobody reads it, point it at /dev/null so that Python's exit is quiet."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)
