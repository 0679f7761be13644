"""A start that the front door has no current plan for: it is worked out here, and carried out there.

See docs/plan.md, "Handed starts". No interpreter is started for it, and none is forked.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NoReturn

import attrs

from layerrun.api import counting
from layerrun.api.command import Command, front_door
from layerrun.api.report import pipe
from layerrun.errors import LayerrunError
from layerrun.model import App, AppKind
from layerrun.native.launch import Start
from layerrun.runtime import apps, handoff, launch
from layerrun.store.store import Store

__all__ = ["Handed", "is_terminal", "work_out"]


@attrs.frozen
class Handed:
    """A start that is ready: what LAYERRUN_START is to say, and descriptors to be inherited with their numbers.

    ``pipe`` is the one to be told by. ``join_until``: it joins what runs, and until then it may be tried again.
    ``counted``: the app is on trial, and how it ends is to be counted (`layerrun.api.counting`).
    """

    word: str
    fds: tuple[int, ...]
    pipe: tuple[int, int]
    join_until: float | None
    counted: bool = False

    def close(self) -> None:
        """Close the descriptors but the pipe: who has inherited them keeps them, and with them the app's lock."""
        for fd in self.fds:
            os.close(fd)


class _Ready(Exception):
    """Leaves `launch.run` with what it has worked out, before it would become the front door."""

    def __init__(self, handed: Handed) -> None:
        self.handed = handed


@attrs.frozen(kw_only=True)
class _Spawned(handoff.Door):
    """A front door that is started beside this process, not in its place."""

    pipe: tuple[int, int]
    own_tty: bool

    def through(self, start: Start, app: App, *, join_until: float | None = None) -> NoReturn:
        """Leave with copies of the descriptors: ``start``'s own are closed on the way out."""
        fds: list[int] = []
        try:
            held = []
            for fd in (start.lock_fd, start.app_fd, start.net_fd, *start.keep):
                held.append(os.dup(fd) if fd >= 0 else -1)
                fds += [copy for copy in held[-1:] if copy >= 0]
            start = attrs.evolve(
                start,
                lock_fd=held[0],
                app_fd=held[1],
                net_fd=held[2],
                keep=held[3:],
                status_fd=self.pipe[1],
                own_tty=self.own_tty,
            )
            memory = self.written(start, app, join_until=join_until)
            fds.append(memory)
        except BaseException:
            for fd in fds:
                os.close(fd)
            raise
        raise _Ready(Handed(f"{os.getpid()}:{memory}", tuple(fds), self.pipe, join_until))


def work_out(command: Command, *, own_tty: bool, knocked_until: float | None = None) -> Handed:
    """Return the start of a command as things stand now. Raises what `layerrun app` would end with.

    ``knocked_until``: the ``join_until`` of an earlier one that nobody let in.
    """
    ends, counted = pipe(), False
    door = _Spawned(path=front_door(), words=(), knocked_until=knocked_until, pipe=ends, own_tty=own_tty)
    try:
        with Store.open(command.store) as store:
            app = _switched(store, store.app(command.app, command.kind))
            counted = not command.ephemeral and counting.is_counted(store, app)
            _run(store, app, command, door)
    except _Ready as ready:
        return attrs.evolve(ready.handed, counted=counted and ready.handed.join_until is None)
    except LayerrunError as error:
        for fd in ends:
            os.close(fd)
        if counted:
            counting.count_failure(command, error)
        raise
    except BaseException:
        for fd in ends:
            os.close(fd)
        raise
    raise AssertionError("a start goes through the door")


def _switched(store: Store, app: App) -> App:
    """Switch the base of an app to the version that is staged for it, if there is one and nothing hinders that."""
    slot = store.catalog.slot(app.config.base)
    if slot is None or slot.staged is None:
        return app
    from layerrun.updates.update import apply_staged

    with suppress(LayerrunError):
        apply_staged(store, slot.name)
    return store.app_again(app)


def _run(store: Store, app: App, command: Command, door: _Spawned) -> None:
    if command.argv is None and not app.config.command:
        from layerrun.errors import UsageError

        raise UsageError(f"app {app.name} has no command of its own", hint="give one")
    if command.ephemeral:
        launch.run_ephemeral(store, app, command.argv, cwd=command.cwd, env=command.env, door=door)
    if command.profile is not None:
        app, _ = apps.profile(store, command.app, command.profile)
    lives = command.kind is AppKind.THROWAWAY
    launch.run(store, app, command.argv, cwd=command.cwd, env=command.env, door=door, lives=lives)


def is_terminal(options: Mapping[str, Any]) -> bool:
    """Say whether a child with these of subprocess's options has terminals for stdin, stdout and stderr."""
    streams = [options.get(name) for name in ("stdin", "stdout", "stderr")]
    if streams[2] == subprocess.STDOUT:
        streams[2] = streams[1] if streams[1] is not None else 1
    for number, stream in enumerate(streams):
        fd = number if stream is None else stream if isinstance(stream, int) else stream.fileno()
        if fd < 0 or not os.isatty(fd):
            return False
    return True
