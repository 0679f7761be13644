"""Running a plan: the binding of csrc/launch.h. Thin: bytes in, a status or a `Failure` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from layerrun.native import error_text, ffi, lib, new_error

__all__ = ["Failure", "check_plan", "run_plan"]


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


def run_plan(
    plan: bytes,
    *,
    argv: Sequence[bytes] | None,
    environ: Mapping[bytes, bytes],
    cwd: bytes | None,
    cwd_must: bool,
    lock_fd: int,
    own_tty: bool,
) -> int:
    """Run a plan and wait for it; return the command's exit status, 128+N for a signal.

    ``argv=None`` runs the plan's own command. Of ``environ`` the plan takes what it names. Raises
    `Failure` when the command never ran. Other threads go on meanwhile; signals to the process are
    passed on to the command. Call it from the main thread: the sandbox dies with the calling thread.
    """
    argv_c, argv_kept = _strings(argv or ())
    environ_c, environ_kept = _strings([name + b"=" + value for name, value in environ.items()])
    cwd_c = ffi.NULL if cwd is None else ffi.new("char[]", cwd)
    buffer = ffi.from_buffer(plan)
    launch = ffi.new(
        "struct lr_launch *",
        {
            "plan": buffer,
            "plan_size": len(plan),
            "argv": ffi.NULL if argv is None else argv_c,
            "environ": environ_c,
            "cwd": cwd_c,
            "cwd_must": cwd_must,
            "lock_fd": lock_fd,
            "own_tty": own_tty,
        },
    )
    result, error = ffi.new("struct lr_result *"), new_error()
    failed = lib.lr_run(launch, result, error)
    del argv_kept, environ_kept, buffer
    if failed:
        raise Failure(*error_text(error))
    return int(result.status)
