"""Starting an app: lock, compile, hand over to the C core, wait."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from layerrun.errors import BusyError, LaunchError, NotRunningError, UsageError
from layerrun.model import HOST_BASE, App, AppKind, IdMode
from layerrun.native.launch import Failure, Start, join_plan, run_plan
from layerrun.runtime import bus, network
from layerrun.runtime.compile import compile_plan
from layerrun.runtime.explain import launch_error
from layerrun.runtime.handoff import Door, deadline, environment, flush
from layerrun.runtime.stored import mounts_sum, store_plan
from layerrun.store.plans import stored_uppers

if TYPE_CHECKING:
    from layerrun.runtime.plan import Plan
    from layerrun.store.locks import AppLock
    from layerrun.store.store import Store

__all__ = ["compile_plan", "enter", "run", "run_ephemeral", "run_locked", "run_spare"]

_NOT_IN = (errno.ECONNREFUSED, errno.ENOENT, errno.ECONNRESET, errno.EPIPE)
# Seconds: with one holder of the lock who does not let us in, and with all of them. Where fifty starts share a
# processor a beginning takes its time, and a short run may end before we are in, again and again.
_PATIENCE = 1.0
_PATIENCE_WITH_ALL = 30.0
_POLL = 0.01


def _own_tty() -> bool:
    """Say whether stdin, stdout and stderr are terminals, so that the command gets one of its own."""
    return all(os.isatty(fd) for fd in range(3))


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

    root = store.open_base(store.base_of(app))
    try:
        for shell in (person(app).shell, "/bin/bash"):
            is_there = os.path.lexists(f"/proc/self/fd/{root}{shell}")
            if is_there and shell != "/bin/sh" and "nologin" not in shell:
                return [shell, "-l"]
        return ["/bin/sh", "-l"]
    finally:
        os.close(root)


@attrs.frozen
class _Wanted:
    """What is asked for: see `run`."""

    argv: Sequence[str] | None
    cwd: str | None
    env: Mapping[str, str] | None
    door: Door | None
    status_fd: int | None = None
    detach: bool = False
    lives: bool = False

    def __attrs_post_init__(self) -> None:
        if self.argv is not None and (not self.argv or not self.argv[0]):
            raise UsageError("the command is empty")
        if any("\0" in word for word in self.argv or ()):
            raise UsageError("the command holds a NUL byte")

    def is_open(self, app: App) -> bool:
        """Say whether others may join it."""
        return self.lives or app.kind is AppKind.APP

    def start(self, app: App, plan: Plan, *, app_fd: int, lock_fd: int = -1) -> Start:
        """Return this as the C core takes it."""
        place = _cwd(app, self.cwd)
        return Start(
            plan=plan.to_bytes(),
            argv=None if self.argv is None else [os.fsencode(word) for word in self.argv],
            environ=environment(),
            env=[os.fsencode(f"{name}={value}") for name, value in (self.env or {}).items()],
            cwd=None if place is None else os.fsencode(place),
            cwd_must=self.cwd is not None,
            lock_fd=lock_fd,
            app_fd=app_fd,
            stay=self.is_open(app) and not app.ephemeral,
            own_tty=not self.detach and _own_tty(),
            detach=self.detach,
            status_fd=-1 if self.status_fd is None else self.status_fd,
        )


class _Patience:
    """How long a start tries again that meets another's beginning or end, or a change of the app."""

    def __init__(self, door: Door | None) -> None:
        self.last = _knocked_until(door) or time.monotonic() + _PATIENCE_WITH_ALL
        self._end = 0.0
        self._said = ""

    def wait(self, error: BusyError) -> None:
        """Wait a moment, or raise ``error`` when it has been too long."""
        now = time.monotonic()
        if error.beginning or str(error) != self._said:
            self._end, self._said = min(now + _PATIENCE, self.last), str(error)
        if now > self._end:
            raise error
        time.sleep(_POLL)


def run(
    store: Store,
    app: App,
    argv: Sequence[str] | None,
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    shell: bool = False,
    door: Door | None = None,
    status_fd: int | None = None,
    detach: bool = False,
    lives: bool = False,
) -> int:
    """Run a command in an app and wait; return its exit status, 128+N for signal N.

    ``argv=None`` runs the app's own command, ``shell`` a login shell. ``cwd`` is as seen inside; without
    it the caller's folder is taken where it exists inside. In an app that runs already the command joins
    what runs. With a ``door`` this process becomes the front door, and does not return. ``status_fd`` is told of
    the command's start and end, as docs/json.md has it. ``detach`` returns 0 once the command runs, and leaves it
    alone: it writes to the app's log. ``lives``: a throwaway is as an app in this, that others may join what runs,
    which ends with its last process; else it ends with its command.
    Raises `BusyError` while another process changes the app, `LaunchError` when the command
    never ran.
    """
    what = "throwaway" if app.kind is AppKind.THROWAWAY else "app"
    if shell:
        argv = _shell(app, store)
    wanted = _Wanted(argv, cwd, env, door, status_fd, detach, lives)
    patience = _Patience(door)
    while True:
        try:
            with store.app_lock(app, f"run {what} {app.name}") as lock:
                app = store.app_again(app)
                return _start(store, app, lock, wanted)
        except BusyError as error:
            # It runs, or is being changed, or is just ending or beginning.
            joins = wanted.is_open(app) and not error.beginning
            status = _join(store, app, wanted, patience.last) if joins else None
            if status is not None:
                return status
            patience.wait(error)


def run_ephemeral(
    store: Store,
    parent: App,
    argv: Sequence[str] | None,
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    door: Door | None = None,
    status_fd: int | None = None,
) -> int:
    """Run a command in a fresh profile of an app, which is thrown away at the end; as `run`.

    It ends with its command: what that leaves running ends too. With a ``door`` the throwing away is left to
    whoever finds that it has `ended`.
    """
    wanted = _Wanted(argv, cwd, env, door, status_fd)
    app, lock = store.create_ephemeral(parent)
    try:
        with lock:
            return _start(store, app, lock, wanted)
    finally:
        store.sweep()


def run_spare(
    store: Store,
    app: App,
    lock: AppLock,
    argv: Sequence[str],
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    door: Door | None = None,
    status_fd: int | None = None,
) -> int:
    """Run a command in a spare whose lock the caller holds, and wait; as `run`.

    With a ``door`` nobody comes back if the command changes nothing.
    """
    if door is not None:
        door = attrs.evolve(door, uppers=stored_uppers(store, app.name))
    return _start(store, app, lock, _Wanted(argv, cwd, env, door, status_fd))


def run_locked(store: Store, app: App, lock: AppLock, argv: Sequence[str]) -> int:
    """Run a command in an app whose lock the caller holds, and wait; as `run`."""
    return _start(store, app, lock, _Wanted(argv, None, None, None))


def enter(
    store: Store,
    app: App,
    argv: Sequence[str],
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    door: Door | None = None,
    status_fd: int | None = None,
) -> int:
    """Run a command in an app that runs already, and wait; return its exit status. ``door`` as for `run`.

    Raises `NotRunningError` when it does not run, `BusyError` when nobody lets us in though it does.
    """
    wanted = _Wanted(argv, cwd, env, door, status_fd)
    patience = _Patience(door)
    while True:
        status = _join(store, app, wanted, patience.last)
        if status is not None:
            return status
        try:
            store.app_lock(app, "look").release()
        except BusyError as error:  # it is beginning, ending or being changed; or its socket is gone
            patience.wait(error)
        else:
            raise NotRunningError(
                f"{app.name!r} is not running", hint=f"layerrun app {app.name} -- CMD… starts it"
            )


def is_repeatable(app: App, plan: Plan) -> bool:
    """Say whether the plan can be stored for later starts, or for joins alone where the network is made in Python."""
    return plan.bus is None and app.kind is AppKind.APP and not app.ephemeral and app.ids is not IdMode.NONE


def _start(store: Store, app: App, lock: AppLock, wanted: _Wanted) -> int:
    mounts = mounts_sum()
    # A spare is ready. Making anything in it would be a change.
    plan = compile_plan(store, app, make=app.kind is not AppKind.SPARE)
    _check_there(app, plan)
    if is_repeatable(app, plan) and not _is_on_trial(store, app):
        store_plan(store, app, plan, mounts)
    app_fd = store.open_app_dir(app) if wanted.is_open(app) else -1
    keep: list[int] = []
    try:
        with network.made(store, app, app.config.policy.grants()) as made:
            start = wanted.start(app, plan, app_fd=app_fd, lock_fd=lock.fileno())
            if plan.bus is not None:
                keep.append(bus.start(plan.bus.socket, plan.bus.address, app_fd, "bus", os.environ))
            start = attrs.evolve(start, net_fd=made.net_fd, keep=[*start.keep, *made.keep, *keep])
            if wanted.door is not None:
                wanted.door.through(start, app)
            flush()
            return run_plan(start)
    except Failure as failure:
        raise launch_error(failure, app, store.path) from None
    finally:
        for fd in (app_fd, *keep):
            if fd >= 0:
                os.close(fd)


def _is_on_trial(store: Store, app: App) -> bool:
    """Say whether somebody wants to know how each start of an app ends: its base was updated."""
    trial = store.catalog.trial(app.parent or app.id)
    return trial is not None and not trial.fallen


def _check_there(app: App, plan: Plan) -> None:
    """Raise `LaunchError` if something is not there that was asked for by name; what a preset grants may be missing."""
    for lack in plan.lacks:
        if lack.asked:
            raise LaunchError(f"cannot start {app.shown_name!r}: it is to have the {lack}", hint=lack.hint)


def _join(store: Store, app: App, wanted: _Wanted, until: float) -> int | None:
    """Run a command in a running app; ``None`` when nobody let us in. ``until``: how long the front door tries it."""
    app_fd = store.open_app_dir(app)
    try:
        # Where the front door has knocked in vain, make sure of an answer before it is sent again.
        if _knocked_until(wanted.door) is not None and not _is_listening(app_fd):
            return None
        start = wanted.start(app, compile_plan(store, app), app_fd=app_fd)
        if wanted.door is not None:
            # A join holds no lock, and nothing is left to do after it.
            attrs.evolve(wanted.door, after="").through(start, app, join_until=until)
        flush()
        return join_plan(start)
    except Failure as failure:
        if failure.step.startswith("join") and failure.code in _NOT_IN:
            return None
        raise launch_error(failure, app, store.path) from None
    finally:
        os.close(app_fd)


def _knocked_until(door: Door | None) -> float | None:
    """Return until when it goes on trying, if the front door has knocked in vain before."""
    return deadline() if door is None or door.knocked_until is None else door.knocked_until


def _is_listening(app_fd: int) -> bool:
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as knock:
        try:
            knock.connect(f"/proc/self/fd/{app_fd}/socket")
        except OSError:
            return False
    return True
