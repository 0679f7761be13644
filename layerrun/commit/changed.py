"""What was changed on the host since a commit, or since it was undone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

import attrs

from layerrun.commit import closed, journal
from layerrun.commit.entries import read_meta, split, stat_of
from layerrun.commit.journal import Parent, Step
from layerrun.commit.ops import Kind
from layerrun.commit.steps import OLD, Work, shown
from layerrun.errors import ChangedError, DamagedError
from layerrun.layers.delta import Stat
from layerrun.native import trees

__all__ = ["Settling", "adopt", "error", "homeless", "since_commit", "since_undo"]

Settled = dict[tuple[int, int], int]
_MOST = 100000
_NAMED = 10


def error(paths: list[bytes], number: int, what: str) -> ChangedError:
    """Return the error that names the paths."""
    names = sorted({shown(path) for path in paths})
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    said, hint = {
        "undo": (
            "taken back: changed since",
            f"layerrun undo {number} --force  (what was changed is kept aside)",
        ),
        "redo": ("done again: changed since", None),
        "homeless": ("taken back: gone is the folder of", "make it again, then undo"),
    }[what]
    return ChangedError(
        f"commit {number} cannot be {said}: {', '.join(names[:_NAMED])}{more}", hint=hint, paths=tuple(names)
    )


def _effective(settled: Settled, ino: int, ctime_ns: int) -> int:
    """Return when an entry was really changed last: what was done to it and taken back again does not count."""
    seen: set[int] = set()
    while (ino, ctime_ns) in settled and ctime_ns not in seen:
        seen.add(ctime_ns)
        ctime_ns = settled[ino, ctime_ns]
    return ctime_ns


def _was(settled: Settled, found: Stat, ctime_ns: int) -> bool:
    """Say whether an entry is as it was when it was changed at that moment."""
    at, seen = found.ctime_ns, set[int]()
    while at != ctime_ns and (found.ino, at) in settled and at not in seen:
        seen.add(at)
        at = settled[found.ino, at]
    return at == ctime_ns


def _newer(work: Work, path: bytes, there: Stat, since: int, settled: Settled) -> Iterator[bytes]:
    """Yield what was changed in an entry after a moment."""
    if not there.is_dir:
        if _effective(settled, there.ino, there.ctime_ns) > since:
            yield path
        return
    fd, name = work.host.at(path)
    for inside, ctime in closed.newer(fd, name, since, _MOST):
        full = path + b"/" + inside if inside else path
        try:
            found = work.stat(full)
        except PermissionError:
            found = None
        if found is None or _effective(settled, found.ino, ctime) > since:
            yield full


def since_commit(work: Work, since: int, settled: Settled) -> list[bytes]:
    """Return what was changed after a commit's end, so that to take it back would destroy it. Raises `DamagedError`."""
    found: list[bytes] = []
    made = {step.op.path for step in work.journal.steps}
    # A folder may have been opened by one step and closed by another.
    last = {step.op.path: step for step in work.journal.steps if not step.moves}
    for step in work.journal.steps:
        _check_slot(work, step, step.old_ino, OLD)
        there = work.stat(step.op.path)
        if not step.moves:
            if last[step.op.path] is step:
                found += _changed_meta(work, step, there, since, settled, forth=True)
        elif not step.ino:
            if there is not None:
                found.append(step.op.path)
        elif there is None or there.ino != step.ino:
            found.append(step.op.path)
        elif step.op.kind is Kind.MKDIR:
            found += _strangers(work, step.op.path, made)
        else:
            found += _newer(work, step.op.path, there, since, settled)
    return found


def since_undo(work: Work, since: int, settled: Settled) -> list[bytes]:
    """Return what was changed after a commit was undone, so that to do it again would destroy it."""
    found: list[bytes] = []
    first = {step.op.path: step for step in reversed(work.journal.steps) if not step.moves}
    made = {step.op.path for step in work.journal.steps if step.op.kind is Kind.MKDIR}
    for step in work.journal.steps:
        _check_slot(work, step, step.ino, b"")
        # What a new folder is like goes with it.
        if made and _is_inside(step.op.path if step.moves else step.op.path + b"/", made):
            continue
        there = work.stat(step.op.path)
        if not step.moves:
            if first[step.op.path] is step:
                found += _changed_meta(work, step, there, since, settled, forth=False)
        elif not step.old_ino:
            if there is not None:
                found.append(step.op.path)
        elif there is None or there.ino != step.old_ino:
            found.append(step.op.path)
        else:
            found += _newer(work, step.op.path, there, since, settled)
    return found


def _is_inside(path: bytes, folders: set[bytes]) -> bool:
    """Say whether a path leads through one of these folders."""
    above = split(path)[0]
    while above and above not in folders:
        above = split(above)[0]
    return bool(above)


def _check_slot(work: Work, step: Step, ino: int, end: bytes) -> None:
    """Look whether what was kept aside is still there."""
    if step.op.kind is Kind.META or not ino or (step.start == "link" and not end):
        return
    kept = stat_of(work.places[step.place], step.slot if step.moves else step.slot + end)
    if kept is None or (step.moves and kept.ino != ino):
        raise DamagedError(
            f"what was kept aside of {shown(step.op.path)} is gone",
            hint="`layerrun gc` removes it when it is old; a cleaner of temporary files may too",
        )


def _strangers(work: Work, path: bytes, made: set[bytes]) -> Iterator[bytes]:
    """Yield what is in a folder of the commit's own, but not of its making."""
    fd = work.host.open(path)
    for name in os.listdir(f"/proc/self/fd/{fd}"):
        full = path + b"/" + os.fsencode(name)
        if full not in made:
            yield full


def _changed_meta(
    work: Work, step: Step, there: Stat | None, since: int, settled: Settled, *, forth: bool
) -> Iterator[bytes]:
    if there is None or there.ino != step.old_ino:
        yield step.op.path
    elif there.is_dir:
        # Its time of change is later whenever anything comes or goes in it, which is no matter here.
        wanted = step.after if forth else step.before
        now = read_meta(*work.host.at(step.op.path))
        assert wanted is not None
        if (now.mode, now.uid, now.gid) != (wanted.mode, wanted.uid, wanted.gid):
            yield step.op.path
    elif _effective(settled, there.ino, there.ctime_ns) > since:
        yield step.op.path


def homeless(work: Work) -> list[bytes]:
    """Return what was kept aside and cannot be put back, since the folder that it lay in is gone."""
    steps = [step for step in work.journal.steps if step.moves and step.old_ino]
    folders = {step.op.path for step in steps if step.op.old is not None and step.op.old.is_dir}
    gone: dict[bytes, bool] = {}
    for step in steps:
        folder = split(step.op.path)[0]
        if folder not in gone:
            gone[folder] = not (_is_folder(work, folder) or _comes_again(folder, folders))
    return [step.op.path for step in steps if gone[split(step.op.path)[0]]]


def _is_folder(work: Work, path: bytes) -> bool:
    try:
        work.host.open(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
    return True


def _comes_again(path: bytes, folders: set[bytes]) -> bool:
    while path:
        if path in folders:
            return True
        path = split(path)[0]
    return False


def _adopt_kept(work: Work, step: Step, there: Stat) -> Step:
    """Keep aside what a file or folder that stays is like now, and what is in the file."""
    fd, name = work.host.at(step.op.path)
    now = read_meta(fd, name)
    if step.op.kind is Kind.WRITE:
        slot, new = work.places[step.place], step.slot + b".now"
        trees.remove_tree(slot, new)
        closed.copy_entry(fd, name, slot, new, userxattr=work.journal.userxattr)
        os.rename(new, step.slot, src_dir_fd=slot, dst_dir_fd=slot)
    if step.after is not None and not step.op.times_only:
        xattrs = None if step.after.xattrs is None else now.xattrs
        step = attrs.evolve(step, after=attrs.evolve(now, xattrs=xattrs))
    return attrs.evolve(step, old_ino=there.ino)


def adopt(work: Work) -> Work:
    """Return the work to take a commit back whatever is there now: that is kept aside in place of what it brought."""
    steps = []
    last = {step.op.path: step for step in work.journal.steps if not step.moves}
    for step in work.journal.steps:
        there = work.stat(step.op.path)
        ino = 0 if there is None else there.ino
        if not step.moves:
            if there is not None and (there.mode ^ (step.op.old.mode if step.op.old else 0)) >> 12 == 0:
                is_last = last[step.op.path] is step
                steps.append(_adopt_kept(work, step, there) if is_last else attrs.evolve(step, old_ino=ino))
        elif ino == step.ino:
            steps.append(step)
        elif ino or step.old_ino:
            kind = Kind.REMOVE if not ino else Kind.REPLACE if step.old_ino else Kind.ADD
            op = attrs.evolve(step.op, kind=kind, new=there)
            steps.append(attrs.evolve(step, op=op, ino=ino, start="slot" if ino else "", marks=()))
    written = attrs.evolve(work.journal, steps=tuple(steps))
    journal.write(work.folder, written)
    return attrs.evolve(work, journal=written)


class Settling:
    """What will be as it was once a commit is taken back, or done again, though its time of change is later then.

    Made before the first step; `now` after the last. Without it an earlier commit of the same files could not be
    taken back, nor a later one done again, since they would seem to have been changed since.
    """

    def __init__(self, work: Work, settled: Settled, *, undoing: bool) -> None:
        self._work = work
        self._settled = settled
        self._will: dict[bytes, tuple[int, int]] = {}
        if undoing:
            self._take_parents("after")
            for step in work.journal.steps:
                old = step.op.old
                # A folder that stays was compared by what it is like, not by when it was changed.
                if old is not None and (step.moves or not old.is_dir):
                    was = _effective(settled, old.ino, old.ctime_ns)
                    self._will.setdefault(step.op.path, (old.ino, was))
            self._note_present()
        else:
            untouched = {parent.path for parent in self._untouched("before")}
            parents = {parent.path for parent in work.journal.parents}
            for text, ino, was in journal.read_json(work.folder, "was") or []:
                path = text.encode("latin-1")
                if path not in parents or path in untouched:
                    self._will[path] = (ino, was)

    def _untouched(self, record: str) -> Iterator[Parent]:
        """Yield the parents that are as they were at the end of a commit (``after``) or of its undo (``before``)."""
        times = (journal.read_json(self._work.folder, record) or {}).get("parents", [])
        for parent, (_, ctime) in zip(self._work.journal.parents, times, strict=False):
            found = self._work.stat(parent.path)
            if found is not None and found.ino == parent.ino and _was(self._settled, found, ctime):
                yield parent

    def _take_parents(self, record: str) -> None:
        for parent in self._untouched(record):
            was = _effective(self._settled, parent.ino, parent.ctime_ns)
            self._will[parent.path] = (parent.ino, was)

    def _note_present(self) -> None:
        """Note what a redo will bring again."""
        paths = [*(step.op.path for step in self._work.journal.steps), *self._will]
        found = []
        for path in dict.fromkeys(paths):
            there = self._work.stat(path)
            if there is not None:
                was = _effective(self._settled, there.ino, there.ctime_ns)
                found.append([path.decode("latin-1"), there.ino, was])
        journal.write_json(self._work.folder, "was", found)

    def now(self) -> list[list[int]]:
        """Return inode number, time of change now, and when it was really changed last, of each."""
        found = []
        for path, (ino, was) in self._will.items():
            there = self._work.stat(path)
            if there is not None and there.ino == ino:
                found.append([ino, there.ctime_ns, was])
        return found
