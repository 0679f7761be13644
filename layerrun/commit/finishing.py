"""How a commit, an undo or a redo comes to its end, or is taken back: also after a crash, by whoever comes next."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from layerrun.changes import Commit, CommitState
from layerrun.commit import marker, taken_back
from layerrun.commit.entries import held, set_mtime, split, stat_of
from layerrun.commit.journal import Parent, read_json, write_json
from layerrun.commit.ops import Kind
from layerrun.commit.places import remove_places
from layerrun.commit.steps import Work
from layerrun.errors import BusyError, NotFoundError
from layerrun.native.syscalls import syncfs
from layerrun.native.trees import open_beneath
from layerrun.store.fs import open_dir, present
from layerrun.store.trash import to_trash

if TYPE_CHECKING:
    from layerrun.commit.changed import Settling
    from layerrun.store.store import Store

__all__ = [
    "BACK",
    "begin",
    "done",
    "end_layer",
    "forget",
    "note_after",
    "redone",
    "sync",
    "take_back",
    "undo",
]

# It is there: all steps of a commit are taken back, and its slots may be gone.
BACK = "back"
_TICK = 0.001


def sync(work: Work) -> None:
    """Make all durable that the steps of a journal deal with: one syncfs(2) for each file system."""
    seen: set[int] = set()
    for fd in work.places:
        seen.add(os.fstat(fd).st_dev)
        syncfs(fd)
    for step in work.journal.steps:
        old = step.op.old
        if step.moves or old is None or old.dev in seen:
            continue
        seen.add(old.dev)
        try:
            fd = open_beneath(
                work.host.root, split(step.op.path)[0], os.O_RDONLY | os.O_DIRECTORY, cross_mounts=True
            )
        except OSError:
            os.sync()  # a folder that may be passed and not be read
            continue
        try:
            syncfs(fd)
        finally:
            os.close(fd)


def _clock(work: Work) -> int:
    """Return the time by the clock that the kernel gives files (ns): nothing done so far has a later time of change."""
    fd = os.open("clock", os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=work.folder)
    try:
        os.write(fd, b".")
        return os.fstat(fd).st_ctime_ns
    finally:
        os.close(fd)


def _pass(work: Work, moment: int) -> None:
    """Wait until that clock, which stands still for milliseconds, has gone on: what is changed later shows it then."""
    while _clock(work) <= moment:
        time.sleep(_TICK)


def _end(store: Store, work: Work, state: CommitState, moment: int) -> Commit:
    sync(work)
    _pass(work, moment)
    with store.catalog.transaction():
        store.catalog.set_commit_state(work.journal.id, state, moment)
    found = store.catalog.commit_by_id(work.journal.id)
    if found is None:
        raise NotFoundError(f"commit {work.journal.id} is gone")
    return found


# Doing it


def note_after(store: Store, work: Work) -> None:
    """All steps are done: say so, with the times that folders have now."""
    _set_made_times(work)
    _set_source_times(work)
    sync(work)
    times = []
    for parent in work.journal.parents:
        found = work.stat(parent.path)
        times.append([0, 0] if found is None else [found.mtime_ns, found.ctime_ns])
    write_json(work.folder, "after", {"parents": times, "ended": _clock(work)})


def done(store: Store, work: Work) -> Commit:
    """Record the end of a commit all of whose steps are done. Its layer may still have to go: the marker stays."""
    after = read_json(work.folder, "after")
    return _end(store, work, CommitState.DONE, after["ended"])


def redone(store: Store, work: Work, settling: Settling) -> Commit:
    """End a redo all of whose steps are done: folders get the times that they had after the commit."""
    _set_made_times(work)
    touched = read_json(work.folder, "again")["parents"]
    for number, (mtime, _) in enumerate((read_json(work.folder, "after") or {}).get("parents", [])):
        if number in touched:
            _set_parent(work, work.journal.parents[number], mtime)
    note_after(store, work)
    write_json(work.folder, "settled", settling.now())
    ended = done(store, work)
    marker.clear(store)
    return ended


def _set_made_times(work: Work) -> None:
    """Give folders that were made empty and then filled their times."""
    for step in reversed(work.journal.steps):
        if step.op.kind is Kind.MKDIR and step.op.new is not None:
            fd, name = work.host.at(step.op.path)
            with held(fd, name) as (_, path):
                set_mtime(path, step.op.new.mtime_ns)


def _set_source_times(work: Work) -> None:
    """Let the folders of the layer keep their times, whatever was moved out of them or back into them."""
    for path, mtime in work.journal.sources:
        if work.upper is not None:
            with contextlib.suppress(FileNotFoundError):
                set_mtime(f"/proc/self/fd/{work.upper.open(path)}", mtime)


# Taking it back


def take_back(store: Store, work: Work) -> list[bytes]:
    """Take back a commit that was not done to its end; what it took is in the layer again, as it was.

    Return where that is now whose place somebody else has taken meanwhile.
    """
    if not present(work.folder, BACK):
        for step in reversed(work.journal.steps):
            work.back(step, to_upper=work.upper is not None)
        saved = [path for path in map(work.rescue, work.journal.steps) if path is not None]
        for parent in work.journal.parents:
            _set_parent(work, parent, parent.mtime_ns)
        _set_source_times(work)
        # On all file systems, before the journal goes; and said, as without the slots no step can be looked at.
        sync(work)
        write_json(work.folder, BACK, [path.decode("latin-1") for path in saved])
    remove_places(work.folder, work.host, restore=True)
    taken_back.note(store, work)
    saved = [path.encode("latin-1") for path in read_json(work.folder, BACK)]
    forget(store, work.journal.id)
    return saved


def forget(store: Store, id_: str) -> None:
    """Remove what a commit that is none has left in the store: row, files, marker."""
    with store.catalog.transaction():
        store.catalog.delete_commit(id_)
    fd = open_dir(store.fd, "commits")
    try:
        to_trash(store, fd, id_)
    finally:
        os.close(fd)
    marker.clear(store)


def _untouched_parents(work: Work, doing: str) -> list[int]:
    """Return the numbers of the parents that nobody has changed since the end of what is undone or done again.

    Their times can be set.
    """
    known = read_json(work.folder, "after" if doing == "undo" else "before")["parents"]
    touched = []
    for number, (parent, (mtime, _)) in enumerate(zip(work.journal.parents, known, strict=False)):
        found = work.stat(parent.path)
        if found is not None and found.ino == parent.ino and found.mtime_ns == mtime:
            touched.append(number)
    return touched


def begin(store: Store, work: Work, doing: str) -> None:
    """Note durably that a commit is being taken back or done again."""
    write_json(work.folder, "again", {"parents": _untouched_parents(work, doing)})
    marker.write(store, work.journal.id, doing)
    state = CommitState.UNDOING if doing == "undo" else CommitState.REDOING
    with store.catalog.transaction():
        store.catalog.set_commit_state(work.journal.id, state)


def undo(store: Store, work: Work, settling: Settling | None) -> Commit:
    """Take a commit back, or finish taking it back; what it brought lies in its slots then."""
    again = read_json(work.folder, "again")
    for step in reversed(work.journal.steps):
        work.back(step, to_upper=False)
    for number in again["parents"]:
        parent = work.journal.parents[number]
        _set_parent(work, parent, parent.mtime_ns)
    times = []
    for parent in work.journal.parents:
        found = work.stat(parent.path)
        times.append([0, 0] if found is None else [found.mtime_ns, found.ctime_ns])
    write_json(work.folder, "before", {"parents": times})
    write_json(work.folder, "settled", [] if settling is None else settling.now())
    ended = _end(store, work, CommitState.UNDONE, _clock(work))
    marker.clear(store)
    return ended


def _set_parent(work: Work, parent: Parent, mtime: int) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        fd = work.host.open(parent.path)
        found = stat_of(fd, b"")
        if found is not None and found.ino == parent.ino:
            set_mtime(f"/proc/self/fd/{fd}", mtime)


def end_layer(store: Store, app_id: str, *, drop: bool) -> None:
    """Remove the layer that was committed; if somebody has begun to use it again, it stays. Then all is done."""
    app = store.catalog.app_by_id(app_id) if drop else None
    if app is not None:
        with contextlib.suppress(BusyError, NotFoundError):
            store.remove_app(app.name, only=app.id)
    marker.clear(store)
