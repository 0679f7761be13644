"""Throwaways, for programs: a layer over the machine or a base, to be judged once the commands in it have ended."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from layerrun.api.layered import Layered
from layerrun.errors import NotFoundError
from layerrun.model import App as AppRecord
from layerrun.model import AppKind, Snapshot

if TYPE_CHECKING:
    from typing import Self

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
