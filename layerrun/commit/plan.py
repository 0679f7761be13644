"""What a commit would do, and what speaks against it. Nothing is written.

The host is to be afterwards as if what ran in the layer had run on it directly. See `layerrun.commit.ops` for the
steps, `conflicts` for what was changed meanwhile, `hardlinks` for files with several names, `ancestors` for texts that
are merged.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import attrs

from layerrun.commit import ancestors
from layerrun.commit.building import Builder
from layerrun.commit.conflicts import Conflict, Conflicts
from layerrun.commit.engine import own, settled
from layerrun.commit.entries import Folders
from layerrun.commit.entry import CHANGES, Entry, entries
from layerrun.commit.hardlinks import changed_apart, find_anchors
from layerrun.commit.ops import Kind, Op
from layerrun.commit.rights import Privileged, Rights, privileged
from layerrun.commit.selection import Matcher, Selection
from layerrun.errors import UsageError
from layerrun.model import HOST_BASE, App
from layerrun.store.fs import DIR_FLAGS

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["Conflict", "Planned", "Privileged", "Selection", "plan"]

# clock_gettime(2): what file systems take the time of a change from.
_CLOCK_REALTIME_COARSE = 5


@attrs.frozen
class Planned:
    """What a commit would do.

    Attributes:
        ops: the steps, in order; none may be done if there are ``conflicts``.
        conflicts: what speaks against it. privileged: what gives rights to whoever runs or opens it.
        left: the number of changes that were not selected: they stay in the layer.
        merges: contents by the names that steps have in `Op.prepared`.
        merged: the paths of the files whose changes were merged with those of the host.
        within: by the paths of new folders that come with all in them in one step: how many changes that is.
        looked_ns: when it was begun to look, by the clock that the kernel gives files.
    """

    ops: list[Op]
    conflicts: list[Conflict] = attrs.field(factory=list)
    privileged: list[Privileged] = attrs.field(factory=list)
    left: int = 0
    merges: dict[str, bytes] = attrs.field(factory=dict)
    merged: tuple[str, ...] = ()
    within: dict[bytes, int] = attrs.field(factory=dict)
    looked_ns: int = 0


def plan(
    store: Store,
    app: App,
    selection: Selection | None = None,
    *,
    force: bool = False,
    keep_privileged: bool = True,
) -> Planned:
    """Work out how a layer's changes are brought to the host.

    Args:
        store: the store that the app is in.
        app: an app or throwaway over the host; nobody may be running it.
        selection: which changes; ``None``: all.
        force: what was changed on the host meanwhile is overwritten, but texts that can be merged are. What cannot
            be done stays a conflict.
        keep_privileged: setuid and setgid bits, file capabilities and devices are taken over, not left out.

    Raises:
        UsageError: the app does not stand on the host.
        BusyError: it is running.
        layerrun.errors.SystemError: something could not be read.
    """
    if app.config.base != HOST_BASE:
        raise UsageError(
            f"{app.name!r} stands on the base {app.config.base!r}, which a commit never changes",
            hint=f"`layerrun branch {app.name} NEW --app` makes an app of it",
        )
    if app.stack:
        from layerrun.runtime.melting import melt

        app = melt(store, app)  # it shows the same; an engine that moves things wants them in one upper
    with store.app_lock(app, "commit"), contextlib.ExitStack() as stack:
        app = store.app_again(app)
        fd = os.open("/", DIR_FLAGS)
        stack.callback(os.close, fd)
        host = Folders(fd, cross_mounts=True)
        stack.callback(host.clear)
        work = _Planning(store, app, host, selection or Selection(), keep_privileged)
        return work.run(force=force)


@attrs.define
class _Planning:
    store: Store
    app: App
    host: Folders
    selection: Selection
    keep_privileged: bool
    found: list[Entry] = attrs.field(factory=list)

    def run(self, *, force: bool) -> Planned:
        from layerrun.runtime.data import deltas

        # The clock stands still for milliseconds: what is changed later in the same tick must show.
        looked = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) - 1
        self.found = entries(deltas(self.store, self.app))
        rights = list(self._select())
        find_anchors(self.found)
        merging = ancestors.Merging(self.store, self.app, self.host)
        for entry in self.found:
            if self._is_picked(entry):
                merging.prepare(entry, self.selection.contents[entry.text])
        # With force too: what can be merged is no conflict, and so is not overwritten.
        conflicts = list(self._conflicts(merging))
        if force:
            conflicts.clear()
        ops = Builder(self.found, self.keep_privileged, merging.names).build()
        conflicts += (
            [] if force else [Conflict(entry.text, what) for entry, what in changed_apart(self.found)]
        )
        conflicts += self._forbidden(ops)
        left = sum(
            entry.delta.letter in CHANGES and (not entry.selected or self._is_picked(entry))
            for entry in self.found
        )
        if left:
            left += len(merging.merged)  # the layer stays, and has its own content of them
        return Planned(
            ops=ops,
            conflicts=sorted(conflicts, key=lambda conflict: conflict.path),
            privileged=rights,
            left=left,
            merges=merging.contents,
            merged=tuple("/" + os.fsdecode(path) for path in merging.merged),
            looked_ns=looked,
            within=self._within(ops),
        )

    def _within(self, ops: list[Op]) -> dict[bytes, int]:
        whole = {op.path for op in ops if op.kind in (Kind.ADD, Kind.REPLACE) and op.new and op.new.is_dir}
        return {
            entry.path: sum(one.taken for one in self.found[entry.number + 1 : entry.end])
            for entry in self.found
            if entry.path in whole
        }

    def _select(self) -> Iterator[Privileged]:
        """Decide what is taken; yield what of it gives rights."""
        matcher = Matcher(self.selection)
        for entry in self.found:
            if self._is_empty_place(entry):
                continue
            entry.selected = matcher.has(os.fsdecode(entry.path))
            entry.taken = (entry.selected and entry.delta.letter in CHANGES) or self._is_picked(entry)
            right = privileged(entry) if entry.taken else None
            if right is not None:
                yield right
                entry.taken = self.keep_privileged or not right.device

    def _is_picked(self, entry: Entry) -> bool:
        """Say whether its content was given: by somebody who has seen what the host has."""
        return entry.delta.letter == "M" and entry.text in self.selection.contents

    @staticmethod
    def _is_empty_place(entry: Entry) -> bool:
        """Say whether it is a folder of ours that is there only for what was mounted on it."""
        return entry.delta.root and entry.delta.old is None and entry.end == entry.number + 1

    def _conflicts(self, merging: ancestors.Merging) -> Iterator[Conflict]:
        began = int(datetime.fromisoformat(self.app.created).timestamp() * 1e9)
        from layerrun.runtime.data import put_together

        melted = put_together(self.store, self.app) is not None
        finding = Conflicts(
            self.host, began, settled(self.store, began=began) | own(self.store, self.app), melted
        )
        for entry, conflict in finding.of(self.found, lambda entry: entry.taken):
            if not self._is_picked(entry) and not merging.resolves(entry):
                yield conflict

    def _forbidden(self, ops: list[Op]) -> Iterator[Conflict]:
        mounts = {entry.path: entry.delta.old.mount for entry in self.found if entry.delta.old is not None}
        rights = Rights(self.host)
        for op in ops:
            if op.times_only:
                continue
            conflict = rights.check(op, mounts.get(op.path.rpartition(b"/")[0]))
            if conflict is not None:
                yield conflict
