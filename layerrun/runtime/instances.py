"""Running apps: who runs, and ending them. An instance is found by the record in its lock, never by a bare pid."""

from __future__ import annotations

import functools
import os
import select
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import attrs

from layerrun.errors import BusyError, NotFoundError, NotRunningError
from layerrun.model import App
from layerrun.native import cgroups
from layerrun.native.launch import Failure, signal_app
from layerrun.store.locks import holder, start_time

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["Instance", "Process", "end", "ended_first", "instances", "pid_of", "running", "send"]

_PATIENCE = 1.0  # seconds, for an app that is just beginning or ending
_POLL = 0.01
_EXITING = 0x4  # PF_EXITING of linux/sched.h
T = TypeVar("T")


@attrs.frozen
class Process:
    """A process of an app, by its pid on the host."""

    pid: int
    command: str


@attrs.frozen
class Instance:
    """An app that runs: pid 1's pid on the host, when it started (seconds since the epoch), what runs in it."""

    app: App
    pid: int
    started: float
    processes: tuple[Process, ...]


def pid_of(store: Store, app: App) -> int | None:
    """Return the host's pid of an app's pid 1, if it runs."""
    try:
        fd = store.open_app_dir(app)
    except NotFoundError:  # an ephemeral one goes at its end
        return None
    try:
        lock = os.open("lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    except FileNotFoundError:
        return None
    finally:
        os.close(fd)
    try:
        found = holder(lock)
    finally:
        os.close(lock)
    if found is None or found[1] != "run" or _has_ended(found[0]):
        return None
    return found[0]


def _stat(pid: int) -> tuple[bytes, int]:
    """Return a process's state, a letter, and the kernel's flags of it: proc(5), stat. What is not there is dead, X."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *_, flags = file.read().rpartition(b")")[2].split()[:7]
        return state, int(flags)
    except (OSError, ValueError):
        return b"X", _EXITING


def _has_ended(pid: int) -> bool:
    """Say whether a process is dead and only waits for its parent to look."""
    return _stat(pid)[0] in (b"Z", b"X")


def _is_ending(pid: int) -> bool:
    """Say whether a process has ended or is about to: its command line is gone then, its name is not."""
    return bool(_stat(pid)[1] & _EXITING)


def _children() -> dict[int, list[int]]:
    """Return the children of every process, by /proc."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    parent = int(file.read().rpartition(b")")[2].split()[1])
            except (OSError, IndexError, ValueError):
                continue
            children.setdefault(parent, []).append(int(name))
    return children


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().rstrip(b"\0").split(b"\0")
    except OSError:
        return ""
    return os.fsdecode(b" ".join(words))


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return os.fsdecode(file.read().strip())
    except OSError:
        return ""


def _inside(store: Store, app: App, pid: int, tree: Callable[[], dict[int, list[int]]]) -> list[int]:
    """Return what runs beside pid 1. It is in the app's control group; where there is none: it descends from pid 1."""
    group = cgroups.processes(store.app_dir(app), app.id, pid)
    if group is not None:
        return [one for one in group if one != pid]
    children = tree()
    found, waiting = [], list(children.get(pid, ()))
    while waiting:
        found.append(waiting.pop(0))
        waiting += children.get(found[-1], ())
    return found


def _instance(store: Store, app: App, pid: int, tree: Callable[[], dict[int, list[int]]]) -> Instance:
    own, found = (_name(pid), _command(pid)), []
    for one in _inside(store, app, pid, tree):
        name, command = _name(one), _command(one)
        # What stands beside a command that joined is a copy of pid 1. Who is not ending now was there to be read.
        if (name, command) != own and not _is_ending(one):
            found.append(Process(one, command))
    return Instance(app, pid, _started(pid), tuple(found))


def _started(pid: int) -> float:
    ticks = int(start_time(pid) or 0)
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def instances(store: Store, apps: Iterable[App] | None = None) -> list[Instance]:
    """Return those of ``apps`` (``None``: of all, by name) that run."""
    running = []
    for app in store.apps() if apps is None else apps:
        if (pid := pid_of(store, app)) is not None:
            running.append((app, pid))
    tree = functools.cache(_children)
    return [_instance(store, app, pid, tree) for app, pid in running]


def end(store: Store, app: App, *, grace: float) -> bool:
    """End an app: SIGTERM to all of its processes, after ``grace`` seconds SIGKILL; say whether it ran.

    With a grace of 0 there is no SIGTERM. Returns when it has ended, its mounts included.
    """
    pid = pid_of(store, app)
    if pid is None:
        return False
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if pid_of(store, app) != pid:  # ended, and the pid is another's: the descriptor may be too
            return False
        if grace > 0 and _signal(store, app, signal.SIGTERM) and _wait(pidfd, grace):
            return True
        # Over the socket nobody but pid 1's children is reached; pid 1 itself ends at once this way.
        if not cgroups.kill(store.app_dir(app), app.id, pid):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        _wait(pidfd, None)
        cgroups.remove(store.app_dir(app), app.id)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
    return True


@contextmanager
def running(store: Store, app: App) -> Iterator[int | None]:
    """Give a descriptor of an app's pid 1 that is readable once it has ended, ``None`` if the app does not run."""
    pid = pid_of(store, app)
    try:
        pidfd = None if pid is None else os.pidfd_open(pid)
    except ProcessLookupError:
        pidfd = None
    try:
        yield pidfd if pidfd is not None and pid_of(store, app) == pid else None
    finally:
        if pidfd is not None:
            os.close(pidfd)


def send(store: Store, app: App, number: int) -> None:
    """Send a signal to every process of a running app, its pid 1 apart. Raises `NotRunningError`, `BusyError`."""
    deadline = time.monotonic() + _PATIENCE
    while not _signal(store, app, number):
        if pid_of(store, app) is None:
            raise NotRunningError(f"{app.name!r} is not running", hint="`layerrun ps` lists what runs")
        if time.monotonic() > deadline:
            raise BusyError(f"{app.name!r} runs, but does not listen", hint=f"layerrun stop {app.name}")
        time.sleep(_POLL)


def ended_first(store: Store, apps: Sequence[App], change: Callable[[], T], *, kill: bool) -> T:
    """Change apps; with ``kill``, end those at once that run. Raises `BusyError` if they are not to be had."""
    if not kill:
        return change()
    deadline = time.monotonic() + _PATIENCE
    while True:
        for app in apps:
            end(store, app, grace=0)
        try:
            return change()
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL)


def _signal(store: Store, app: App, number: int) -> bool:
    fd = store.open_app_dir(app)
    try:
        signal_app(fd, number)
    except Failure:
        return False
    finally:
        os.close(fd)
    return True


def _wait(pidfd: int, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))
