"""Throwaways, for programs: a layer over the machine or a base, to be judged once the commands in it have ended."""

from __future__ import annotations

import os
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from layerrun.api.layered import Layered
from layerrun.changes import Commit
from layerrun.errors import NotFoundError, UsageError
from layerrun.model import HOST_BASE, AppKind, Snapshot, check_path
from layerrun.model import App as AppRecord

if TYPE_CHECKING:
    from typing import Self

    from layerrun.api.command import Command
    from layerrun.api.store import Store

__all__ = ["Throwaway"]


class Throwaway(Layered):
    """A layer to run commands in. Get one by `Store.throwaway`, best in a ``with`` statement.

    At the end of the block what still runs in it is killed, and it is discarded, unless it was kept. Without a block,
    and if the program is killed, it stays until it is discarded: `Store.throwaways` and ``layerrun list`` find it.

    As in an app, a command joins what runs in it already, and what a command leaves running goes on.

    Attributes:
        kept: whether it outlives the ``with`` block.
    """

    kind = AppKind.THROWAWAY

    def __init__(self, store: Store, record: AppRecord, *, kept: bool = False) -> None:
        super().__init__(store, record)
        self.kept = kept
        self._last: tuple[str, ...] = ()

    def _command(self, *args: Any, **options: Any) -> Command:
        command = super()._command(*args, **options)
        self._last = command.argv or ()  # a log of commits names it
        return command

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.kept:
            self.discard()

    def checkpoint(self, tag: str | None = None, *, kill: bool = False) -> Snapshot:
        """Make a snapshot to go back to by `rollback`, in a moment, whatever it holds.

        Args:
            tag: what to call it, beside its number.
            kill: end what runs in it first.

        Raises:
            layerrun.errors.BusyError: something runs in it.
            layerrun.errors.ExistsError: it has another one with this tag.
        """
        return self._snapshot(tag, kill=kill)

    def branch(self, name: str | None = None, snapshot: Snapshot | str | int | None = None) -> Throwaway:
        """Make another throwaway that begins with what this one has, or had at a snapshot. Nothing is copied.

        The two have nothing in common from then on, and may run at the same time.

        Args:
            name: what it is called; without it a name is made up.
            snapshot: one of `snapshots`, or its tag, or its number. Without it nothing may run in this one.

        Raises:
            layerrun.errors.BusyError: something runs in it.
            layerrun.errors.ExistsError: the name is taken.
            layerrun.errors.NotFoundError: there is no such snapshot.
        """
        return Throwaway(self.store, self._branch(name, snapshot))

    def commit(
        self,
        paths: Iterable[str | os.PathLike[str]] = (),
        *,
        include: Iterable[str] = (),
        exclude: Iterable[str] = (),
        force: bool = False,
        keep_privileged: bool = True,
        keep: bool = False,
        kill: bool = False,
    ) -> Commit | None:
        """Make what it has changed, or some of it, on this machine: all of that or nothing, even if the power goes.

        The machine is afterwards as if the commands had run on it directly; `Store.undo` takes that back. The layer is
        gone then, unless a part of its changes was left out.

        Args:
            paths: only what is at or below these; a relative one is meant from the working folder.
            include: only what matches one of these patterns, such as ``/etc/**`` or ``*.conf``.
            exclude: not what matches one of these.
            force: overwrite what is in conflict.
            keep_privileged: leave setuid, setgid and file capabilities on what is committed.
            keep: leave the layer as it is.
            kill: end what runs in it first.

        Returns:
            The commit; ``None`` if there was nothing to commit.

        Raises:
            layerrun.errors.CommitConflictError: something has changed on the machine since; nothing was done.
            layerrun.errors.BusyError: something runs in it, or another commit is under way.
            layerrun.errors.UsageError: it does not stand on this machine, but on another base.
        """
        from layerrun.commit import engine
        from layerrun.commit.plan import Selection, plan
        from layerrun.errors import CommitConflictError
        from layerrun.runtime import instances

        given = [check_path(os.path.join(os.getcwd(), os.fspath(path))) for path in paths]
        selection = Selection(tuple(given), tuple(include), tuple(exclude))

        with self.store.opened() as store:
            app = store.app_again(self._record)
            if app.config.base != HOST_BASE:
                raise UsageError(
                    f"{app.name!r} stands on the base {app.config.base!r}: it is no change of this machine"
                )

            def change() -> Commit | None:
                planned = plan(store, app, selection, force=force, keep_privileged=keep_privileged)
                if planned.conflicts:
                    raise CommitConflictError([(found.path, found.what) for found in planned.conflicts])
                if not planned.ops:
                    return None
                return engine.commit(store, app, planned, keep=keep, command=self._last)

            return instances.ended_first(store, [app], change, kill=kill)

    def keep(self) -> str:
        """Let it outlive the ``with`` block; return its name."""
        self.kept = True
        return self.name

    def discard(self) -> None:
        """Kill what runs in it and drop it with everything in it; does nothing if it is gone already.

        The deleting is done in the background.

        Raises:
            layerrun.errors.BusyError: somebody else is changing it.
        """
        from layerrun.runtime import data, instances

        with self.store.opened() as store:
            try:
                app = store.app_again(self._record)
                instances.ended_first(store, [app], lambda: data.discard(store, app), kill=True)
            except NotFoundError:
                return
