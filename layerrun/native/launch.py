"""Running a plan: the binding of csrc/launch.h. Thin: bytes in, a status or a `Failure` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from layerrun.native import error_text, ffi, lib, new_error

__all__ = ["Failure", "Start", "check_plan", "join_plan", "run_plan", "signal_app"]


@attrs.frozen
class Failure(Exception):
    """The command never ran: errno, the operation's number in the plan or -1, the step, what it was about."""

    code: int
    op: int
    step: str
    path: str


def check_plan(plan: bytes) -> None:
    """Raise `Failure` unless ``plan`` is one that `run_plan` would accept. Runs nothing."""
    error = new_error()
    if lib.lr_plan_check(ffi.from_buffer(plan), len(plan), error):
        raise Failure(*error_text(error))


def _strings(values: Sequence[bytes]) -> tuple[object, list[object]]:
    """Return a NULL-terminated ``char **`` and what must be kept alive beside it."""
    kept: list[object] = [ffi.new("char[]", value) for value in values]
    return ffi.new("const char *[]", [*kept, ffi.NULL]), kept


@attrs.frozen
class Start:
    """One start of a plan, as struct lr_launch has it.

    ``argv=None`` runs the plan's own command. Of ``environ`` the plan takes what it names; ``env``, words
    NAME=VALUE, is set over everything. ``cwd`` is as
    seen inside; unless ``cwd_must``, one that is missing is replaced by the plan's. ``lock_fd`` holds the
    app's lock, ``app_fd`` is the app's folder, where others find it to join (-1: neither). ``stay``: it
    lives until its last process has gone. ``own_tty``: give the command a terminal of its own. ``status_fd``
    is told of its start and of its end (docs/json.md). ``detach``: leave it alone once it runs.
    ``keep`` are descriptors that pid 1 holds as long as it lives, and nobody else inside gets: with the last copy of
    each the kernel ends what it stands for. ``net_fd`` is the network namespace where the plan says ``net-given``. The
    caller closes these as any others.
    """

    plan: bytes
    argv: Sequence[bytes] | None
    environ: Mapping[bytes, bytes]
    env: Sequence[bytes] = ()
    cwd: bytes | None = None
    cwd_must: bool = False
    lock_fd: int = -1
    app_fd: int = -1
    stay: bool = False
    own_tty: bool = False
    status_fd: int = -1
    detach: bool = False
    keep: Sequence[int] = ()
    net_fd: int = -1


def _call(function: Any, start: Start) -> int:
    argv_c, argv_kept = _strings(start.argv or ())
    environ_c, environ_kept = _strings([name + b"=" + value for name, value in start.environ.items()])
    env_c, env_kept = _strings(start.env)
    cwd_c = ffi.NULL if start.cwd is None else ffi.new("char[]", start.cwd)
    keep_c = ffi.new("int[]", list(start.keep))
    buffer = ffi.from_buffer(start.plan)
    launch = ffi.new(
        "struct lr_launch *",
        {
            "plan": buffer,
            "plan_size": len(start.plan),
            "argv": ffi.NULL if start.argv is None else argv_c,
            "environ": environ_c,
            "env": env_c,
            "cwd": cwd_c,
            "cwd_must": start.cwd_must,
            "lock_fd": start.lock_fd,
            "app_fd": start.app_fd,
            "stay": start.stay,
            "own_tty": start.own_tty,
            "status_fd": max(start.status_fd, 0),
            "keep": keep_c,
            "keep_count": len(start.keep),
            "net_fd": max(start.net_fd, 0),
            "detach": start.detach,
        },
    )
    result, error = ffi.new("struct lr_result *"), new_error()
    failed = function(launch, result, error)
    del argv_kept, environ_kept, env_kept, keep_c, buffer
    if failed:
        raise Failure(*error_text(error))
    return int(result.status)


def run_plan(start: Start) -> int:
    """Run a plan and wait for it; return the command's exit status, 128+N for a signal.

    Raises `Failure` when the command never ran. Other threads go on meanwhile; signals to the process
    are passed on to the command. Call it from the main thread: the sandbox dies with the calling thread.
    """
    return _call(lib.lr_run, start)


def join_plan(start: Start) -> int:
    """Run a command in a running app and wait for it, as `run_plan`.

    Raises `Failure` with ECONNREFUSED, ENOENT or ECONNRESET when nobody let it in: nothing has happened.
    """
    return _call(lib.lr_join, start)


def signal_app(app_fd: int, number: int) -> None:
    """Send a signal to every process of a running app. Raises `Failure` when it does not run."""
    error = new_error()
    if lib.lr_signal(app_fd, number, error):
        raise Failure(*error_text(error))
