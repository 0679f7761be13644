"""Commits to the host as one step each: done whole or not at all, taken back, done again, finished after a crash.

docs/store.md says what lies on disk meanwhile, and in which order. One commit, undo or redo is under way in a store
at a time: whoever holds ``commits/lock``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from layerrun.changes import Commit, CommitState
from layerrun.commit import changed, finishing, journal, marker, taken_back
from layerrun.commit.entries import Folders
from layerrun.commit.journal import Journal
from layerrun.commit.opening import close_again, open_folders
from layerrun.commit.ops import Op
from layerrun.commit.places import Places, remove_places
from layerrun.commit.prepare import Preparing
from layerrun.commit.steps import Work, shown
from layerrun.errors import BusyError, LayerrunError, NotFoundError, UsageError
from layerrun.model import App, AppKind
from layerrun.store.fs import DIR_FLAGS, explain, fsync_dir, make_dir, present
from layerrun.store.making import now
from layerrun.store.staging import new_id

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["commit", "find", "own", "recover", "redo", "settled", "undo"]


class Planned(Protocol):
    """What `layerrun.commit.plan.plan` has found out, as far as it matters here."""

    @property
    def ops(self) -> Iterable[Op]: ...
    @property
    def left(self) -> int: ...
    @property
    def merges(self) -> Mapping[str, bytes]: ...
    @property
    def looked_ns(self) -> int: ...


def commit(
    store: Store, app: App, planned: Planned, *, keep: bool = False, command: tuple[str, ...] = ()
) -> Commit:
    """Do to the host what was planned for an app's layer; return the commit, which can be taken back.

    The layer goes if it is a throwaway's and all of it was committed, unless ``keep``, which leaves it as it is.
    Raises `ConflictError` where anything is not as planned any more, `BusyError`, and `SystemError` where a step
    fails; then nothing was changed.
    """
    with marker.locked(store):
        recover(store, locked=True)
        with store.app_lock(app, "commit"):
            app = store.app_again(app)
            drop = app.kind is AppKind.THROWAWAY and planned.left == 0 and not keep
            done = _Committing(
                store,
                app,
                tuple(planned.ops),
                drop=drop,
                keep=keep,
                merges=planned.merges,
                looked=planned.looked_ns,
            ).run(command)
        finishing.end_layer(store, app.id, drop=drop)
        return done


def find(store: Store, number: int | None, states: Iterable[CommitState], what: str) -> Commit:
    """Return the commit with this number, or the last in one of these states. Raises `NotFoundError`.

    Of those that were taken back the last is that which was so last: it stands beneath those before it.
    """
    if number is not None:
        found = store.catalog.commit_by_number(number)
        if found is None:
            raise NotFoundError(f"there is no commit {number}", hint="`layerrun log` lists them")
        return found
    wanted = set(states)
    known = [one for one in store.catalog.commits() if one.state in wanted]
    if known:
        undone = CommitState.UNDONE
        return max(known, key=lambda one: ((one.ended_ns or 0) if one.state is undone else 0, one.number))
    raise NotFoundError(f"there is no commit to {what}", hint="`layerrun log` lists them")


def undo(store: Store, commit: Commit, *, force: bool = False) -> Commit:
    """Take a commit back: the host is then exactly as before it. Return it as it is now.

    Raises `layerrun.errors.ChangedError` with the paths where something was changed since, unless ``force``;
    what was changed is then kept aside, for `redo`.
    """
    with _again(store, commit, CommitState.DONE, "undone") as (work, current):
        found = changed.since_commit(work, current.ended_ns or 0, settled(store, current))
        if found and not force:
            raise changed.error(found, current.number, "undo")
        homeless = changed.homeless(work)
        if homeless:
            raise changed.error(homeless, current.number, "homeless")
        if found:
            work = changed.adopt(work)
        settling = changed.Settling(work, settled(store, current), undoing=True)
        finishing.begin(store, work, "undo")
        return finishing.undo(store, work, settling)


def redo(store: Store, commit: Commit) -> Commit:
    """Do a commit again that was undone. Return it as it is now. Raises `ChangedError` as `undo`."""
    with _again(store, commit, CommitState.UNDONE, "done again") as (work, current):
        found = changed.since_undo(work, current.ended_ns or 0, settled(store, current))
        if found:
            raise changed.error(found, current.number, "redo")
        settling = changed.Settling(work, settled(store, current), undoing=False)
        finishing.begin(store, work, "redo")
        try:
            for step in work.journal.steps:
                work.forward(step, again=True)
            return finishing.redone(store, work, settling)
        except BaseException:
            finishing.undo(store, work, None)
            raise


def recover(store: Store, *, locked: bool = False) -> str:
    """Finish or take back what was cut short. Waits for nobody: what is under way is left alone.

    Return what is to be said of it, ``""`` where there is nothing.
    """
    if not present(store.fd, marker.NAME):
        return ""
    with contextlib.ExitStack() as stack:
        if not locked:
            try:
                stack.enter_context(marker.locked(store, wait=0.0))
            except BusyError:
                return ""
        cut = marker.read(store)
        return "" if cut is None else _recover(store, *cut)


def _recover(store: Store, id_: str, doing: str) -> str:
    commit = store.catalog.commit_by_id(id_)
    with contextlib.ExitStack() as stack:
        try:
            folder = journal.open_folder(store.fd, id_)
        except LayerrunError:
            if commit is not None:
                raise
            marker.clear(store)  # the marker was there first
            return ""
        stack.callback(os.close, folder)
        stack.enter_context(close_again(store, folder))
        written = journal.read(folder, id_)
        if commit is None or written is None:
            # No step was done.
            host = stack.enter_context(_host(store))
            remove_places(folder, host, restore=True)
            finishing.forget(store, id_)
            return ""
        app = store.catalog.app_by_id(written.app)
        if app is not None and doing == "commit":
            try:
                stack.enter_context(store.app_lock(app, "commit"))
            except NotFoundError:
                app = None
        if present(folder, finishing.BACK):
            written = attrs.evolve(written, places=())
        work = stack.enter_context(_opened(store, written, folder, app if doing == "commit" else None))
        if doing != "commit":
            finishing.undo(store, work, None)
            return f"{doing} of number {commit.number} was cut short: it is undone now"
        if not present(folder, "after"):
            saved = finishing.take_back(store, work)
            rest = f"what was changed since is left, what was there is in {', '.join(map(shown, saved))}"
            said = rest if saved else "nothing was changed"
            return f"a commit of {commit.name} was cut short, and is taken back: {said}"
        finishing.done(store, work)
        stack.close()
        finishing.end_layer(store, written.app, drop=written.drop)
        return f"a commit of {commit.name} was cut short, and is finished now: number {commit.number}"


@contextlib.contextmanager
def _again(store: Store, commit: Commit, state: CommitState, what: str) -> Iterator[tuple[Work, Commit]]:
    """Open a commit that is in a state, to take it back or do it again."""
    with marker.locked(store):
        recover(store, locked=True)
        current = store.catalog.commit_by_id(commit.id)
        if current is None:
            raise NotFoundError(f"commit {commit.number} is gone", hint="`layerrun log` lists them")
        if current.state is not state:
            raise UsageError(
                f"commit {current.number} cannot be {what}: it is {current.state.value}",
                hint="`layerrun log` says how things are",
            )
        folder = journal.open_folder(store.fd, commit.id)
        try:
            written = journal.read(folder, commit.id)
            if written is None:
                raise NotFoundError(f"commit {commit.number} has no journal any more")
            with _opened(store, written, folder, None) as work:
                yield work, current
        finally:
            os.close(folder)


@contextlib.contextmanager
def _host(store: Store) -> Iterator[Folders]:
    fd = os.open("/", DIR_FLAGS)
    host = Folders(fd, cross_mounts=True)
    try:
        yield host
    finally:
        host.clear()
        os.close(fd)


@contextlib.contextmanager
def _opened(store: Store, written: Journal, folder: int, app: App | None) -> Iterator[Work]:
    """Open all that a journal speaks of."""
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(_host(store))
        places = Places(folder, written.id, host)
        stack.callback(places.close)
        places.open(written.places)
        upper = None
        if app is not None:
            fd = store.open_data(app, "upper")
            stack.callback(os.close, fd)
            upper = Folders(fd, cross_mounts=False)
            stack.callback(upper.clear)
        yield Work(written, folder, host, upper, places.fds)


def settled(
    store: Store, but: Commit | None = None, *, began: int | None = None
) -> dict[tuple[int, int], int]:
    """Return what other commits changed, and is as it was since they were undone or redone: see `changed.Settling`.

    With ``began`` (ns) only what was so at that time as well: a layer that began while a commit was in place
    has seen something else.
    """
    found = taken_back.noted(store, began)
    for one in store.catalog.commits():
        if (but is not None and one.id == but.id) or (
            began is not None and one.state is not CommitState.UNDONE
        ):
            continue
        with contextlib.suppress(LayerrunError):
            folder = journal.open_folder(store.fd, one.id)
            try:
                if began is not None and os.stat("files", dir_fd=folder).st_mtime_ns <= began:
                    continue
                for ino, ctime, before in journal.read_json(folder, "settled") or []:
                    found[ino, ctime] = before
            finally:
                os.close(folder)
    return found


def own(store: Store, app: App) -> dict[tuple[int, int], int]:
    """Return the folders that commits of a part of this very layer have changed: by inode number and time of change."""
    found: dict[tuple[int, int], int] = {}
    for one in store.catalog.commits():
        if one.state is not CommitState.DONE or one.name != app.name:
            continue
        with contextlib.suppress(LayerrunError):
            folder = journal.open_folder(store.fd, one.id)
            try:
                written = journal.read(folder, one.id)
                times = (journal.read_json(folder, "after") or {}).get("parents", [])
                if written is not None and written.app == app.id:
                    for parent, (_, ctime) in zip(written.parents, times, strict=False):
                        found[parent.ino, ctime] = parent.ctime_ns
            finally:
                os.close(folder)
    return found


@attrs.define
class _Committing:
    """A commit on its way."""

    store: Store
    app: App
    ops: tuple[Op, ...]
    drop: bool
    keep: bool
    merges: Mapping[str, bytes]
    looked: int

    def run(self, command: tuple[str, ...]) -> Commit:
        id_ = new_id()
        with contextlib.ExitStack() as stack:
            host = stack.enter_context(_host(self.store))
            upper, lowers = self._layers(stack)
            folder = -1
            places: Places | None = None
            try:
                preparing = Preparing(
                    host,
                    upper,
                    lowers,
                    Places(-1, id_, host),
                    self.app.ids.userxattr,
                    self.keep,
                    self.merges,
                    not self.drop,
                )
                preparing.check(self.ops, self.looked)  # before anything is written
                marker.write(self.store, id_, "commit")
                make_dir(self.store.fd, f"commits/{id_}")
                folder = os.open(f"commits/{id_}", DIR_FLAGS, dir_fd=self.store.fd)
                stack.callback(os.close, folder)
                fsync_dir(self.store.fd, "commits")
                places = preparing.places = Places(folder, id_, host)
                places.begin()
                stack.enter_context(close_again(self.store, folder))
                open_folders(upper, self.ops, folder, self.app.id)
                preparing.run(self.ops)
                work = self._work(id_, preparing, folder)
                self._record(id_, work, preparing, command)
            except BaseException:
                if folder >= 0:
                    remove_places(folder, host, restore=True)
                finishing.forget(self.store, id_)
                raise
            finally:
                stack.callback(lambda: places.close() if places else None)
            try:
                for step in work.journal.steps:
                    work.forward(step)
            except BaseException:
                finishing.take_back(self.store, work)
                raise
            finishing.note_after(self.store, work)
            return finishing.done(self.store, work)

    def _layers(self, stack: contextlib.ExitStack) -> tuple[Folders, list[Folders]]:
        fd = self.store.open_data(self.app, "upper")
        stack.callback(os.close, fd)
        lowers = []
        if any(op.layer for op in self.ops):
            for lower in self.store.lower_fds(self.app):
                stack.callback(os.close, lower)
                lowers.append(Folders(lower, cross_mounts=False))
                stack.callback(lowers[-1].clear)
        upper = Folders(fd, cross_mounts=False)
        stack.callback(upper.clear)
        return upper, lowers

    def _work(self, id_: str, preparing: Preparing, folder: int) -> Work:
        places = preparing.places
        written = Journal(
            id=id_,
            app=self.app.id,
            userxattr=preparing.userxattr,
            drop=self.drop,
            places=tuple(places.paths),
            parents=tuple(preparing.parents.values()),
            sources=tuple(preparing.sources.items()),
            steps=tuple(preparing.steps),
        )
        return Work(written, folder, preparing.host, preparing.upper, places.fds)

    def _record(self, id_: str, work: Work, preparing: Preparing, command: tuple[str, ...]) -> None:
        """Make all durable, and record the commit: from here on it is finished or taken back, whatever happens."""
        with explain("write the journal of a commit to", self.store.path):
            _write_files(work.folder, preparing)
            finishing.sync(work)
            journal.write(work.folder, work.journal)
        with self.store.catalog.transaction():
            done = Commit(
                id=id_,
                number=marker.next_number(self.store),
                name=self.app.name,
                state=CommitState.APPLYING,
                created=now(),
                counts=preparing.counts,
                command=command,
            )
            self.store.catalog.add_commit(done)


def _write_files(folder: int, preparing: Preparing) -> None:
    """Write what `layerrun.commit.log.files` reads."""
    data: list[Any] = [
        [letter, path.decode("latin-1"), old, new, names] for letter, path, old, new, names in preparing.files
    ]
    journal.write_json(folder, "files", data)
    if preparing.names:
        journal.put(folder, "names", b"".join(preparing.names))
