"""Starting an app: lock, compile, hand over to the C core, wait."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from layerrun.errors import UsageError
from layerrun.model import HOST_BASE, App, AppKind, IdMode
from layerrun.runtime.compile import compile_plan
from layerrun.runtime.explain import launch_error
from layerrun.runtime.stored import mounts_sum, store_plan

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["compile_plan", "run"]


def _own_tty() -> bool:
    """Say whether stdin, stdout and stderr are terminals, so that the command gets one of its own."""
    return all(os.isatty(fd) for fd in range(3))


def _environment() -> dict[bytes, bytes]:
    """Return the caller's environment, without the LC_CTYPE that Python sets in the C locale (PEP 538)."""
    values = dict(os.environb)
    if values.get(b"LC_CTYPE") in (b"C.UTF-8", b"C.utf8", b"UTF-8"):
        with suppress(OSError), open("/proc/self/environ", "rb") as file:
            given = [word for word in file.read().split(b"\0") if word.startswith(b"LC_CTYPE=")]
            values.pop(b"LC_CTYPE")
            if given:
                values[b"LC_CTYPE"] = given[0].partition(b"=")[2]
    return values


def _cwd(app: App, cwd: str | None) -> str | None:
    """Return where to start: what was asked for; else the caller's folder where it may be there inside."""
    if cwd is not None:
        if not cwd.startswith("/"):
            raise UsageError(f"bad --cwd {cwd!r}: it must be absolute", hint="it is a path as seen inside")
        return cwd
    try:
        here = os.getcwd()
    except OSError:
        return None
    shared = any(here == s.target or here.startswith(s.target + "/") for s in app.config.shares)
    return here if app.config.base == HOST_BASE or shared else None


def _shell(app: App, store: Store) -> list[str]:
    """Return a login shell that is there inside: the person's own, else bash, else sh."""
    from layerrun.runtime.identity import person

    root = (
        "/" if app.config.base == HOST_BASE else f"{store.path}/bases/{store.base(app.config.base).id}/tree"
    )
    for shell in (person(app).shell, "/bin/bash", "/bin/sh"):
        if shell != "/bin/sh" and os.path.lexists(root.rstrip("/") + shell) and "nologin" not in shell:
            return [shell, "-l"]
    return ["/bin/sh", "-l"]


def run(
    store: Store,
    app: App,
    argv: Sequence[str] | None,
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    shell: bool = False,
) -> int:
    """Run a command in an app and wait; return its exit status, 128+N for signal N.

    ``argv=None`` runs the app's own command, ``shell`` a login shell. ``cwd`` is as seen inside; without
    it the caller's folder is taken where it exists inside. Raises `BusyError` while another process runs
    or changes the app, `LaunchError` when the command never ran.
    """
    from layerrun.native.launch import Failure, run_plan

    what = "throwaway" if app.kind is AppKind.THROWAWAY else "app"
    if shell:
        argv = _shell(app, store)
    if argv is not None and (not argv or not argv[0]):
        raise UsageError("the command is empty")
    if any("\0" in word for word in argv or ()):
        raise UsageError("the command holds a NUL byte")
    with store.app_lock(app, f"run {what} {app.name}") as lock:
        app = store.app_again(app)
        mounts = mounts_sum()
        plan = compile_plan(store, app, env=env, make=True)
        if app.kind is AppKind.APP and not env and app.ids is not IdMode.NONE:
            store_plan(store, app, plan, mounts)
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        try:
            return run_plan(
                plan.to_bytes(),
                argv=None if argv is None else [os.fsencode(word) for word in argv],
                environ=_environment(),
                cwd=os.fsencode(place) if (place := _cwd(app, cwd)) is not None else None,
                cwd_must=cwd is not None,
                lock_fd=lock.fileno(),
                own_tty=_own_tty(),
            )
        except Failure as failure:
            raise launch_error(failure, app, store.path) from None
