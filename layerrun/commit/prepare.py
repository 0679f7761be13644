"""From the steps of a plan to a journal: all is looked at once more, and copied to where it can be moved from."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Mapping, Sequence

import attrs

from layerrun.commit import closed
from layerrun.commit.entries import Folders, apply_meta, read_meta, split, stat_of
from layerrun.commit.journal import Meta, Parent, Step
from layerrun.commit.ops import Kind, Op
from layerrun.commit.places import Places
from layerrun.commit.steps import OLD, shown
from layerrun.errors import ConflictError, DamagedError
from layerrun.layers import overlay
from layerrun.layers.delta import Stat
from layerrun.native import settle, trees
from layerrun.store.fs import explain

__all__ = ["Preparing"]

_PAIR = struct.Struct("=2Q")


@attrs.define
class Preparing:
    """Makes the steps of a journal.

    Attributes:
        upper, lowers: the layer and the layers beneath it, topmost first, without the base.
        userxattr: the flavour of overlayfs's attributes in them.
        copy: nothing is moved out of the layer, since it stays as it is.
        stays: some of the layer stays in it.
        merges: contents by the names that steps have in `Op.prepared`.
        parents: the folders of the host whose entries change. sources: those of the layer, with their times.
        counts: the number of changes by letter. files: what is to be said of each; see `layerrun.commit.log`.
    """

    host: Folders
    upper: Folders
    lowers: Sequence[Folders]
    places: Places
    userxattr: bool
    copy: bool
    merges: Mapping[str, bytes]
    stays: bool = False
    steps: list[Step] = attrs.field(factory=list)
    parents: dict[bytes, Parent] = attrs.field(factory=dict)
    sources: dict[bytes, int] = attrs.field(factory=dict)
    counts: dict[str, int] = attrs.field(factory=dict)
    files: list[tuple[str, bytes, int | None, int | None, int]] = attrs.field(factory=list)
    names: list[bytes] = attrs.field(factory=list)
    _made: set[bytes] = attrs.field(factory=set)
    _fresh: dict[bytes, bool] = attrs.field(factory=dict)
    _inos: dict[bytes, int] = attrs.field(factory=dict)
    _scans: dict[int, tuple[bytes, bytes, int]] = attrs.field(factory=dict)
    _left: dict[int, int] = attrs.field(factory=dict)
    _open_folders: set[bytes] = attrs.field(factory=set)
    _hiding: dict[bytes, bool] = attrs.field(factory=dict)
    _mount: int = 0

    def check(self, ops: Sequence[Op], looked: int) -> None:
        """Look whether all is as it was when it was planned; raises `ConflictError`. Nothing is written.

        ``looked``: when that was (ns): nothing in a folder that goes may have changed since.
        """
        for op in ops:
            folder = split(op.path)[0]
            if not self._is_fresh(folder):
                self._check_one(op)
                if op.kind in (Kind.REMOVE, Kind.REPLACE) and op.old is not None and op.old.is_dir:
                    self._check_inside(op.path, looked)
                if op.kind not in (Kind.META, Kind.WRITE) and folder not in self.parents:
                    self._note_parent(folder)
            if op.kind in (Kind.MKDIR, Kind.REPLACE) or (
                op.kind is not Kind.META and op.new is not None and op.new.is_dir
            ):
                self._made.add(op.path)
                self._fresh.clear()

    def _is_fresh(self, folder: bytes) -> bool:
        """Say whether a folder is not on the host yet, but made by a step before."""
        if not self._made or not folder:
            return False
        known = self._fresh.get(folder)
        if known is None:
            known = folder in self._made or self._is_fresh(split(folder)[0])
            self._fresh[folder] = known
        return known

    def _check_one(self, op: Op) -> None:
        there = self.host.look(op.path)
        if op.old is None:
            if there is not None:
                raise _moved_on(op.path)
        elif (
            there is None
            or there.ino != op.old.ino
            or (there.ctime_ns != op.old.ctime_ns and not op.times_only)
        ):
            raise _moved_on(op.path)

    def _check_inside(self, path: bytes, looked: int) -> None:
        fd, name = self.host.at(path)
        for inside, _ in closed.newer(fd, name, looked, 1):
            raise _moved_on(path + b"/" + inside)

    def _note_parent(self, folder: bytes) -> None:
        found = self.host.look(folder)
        if found is None:
            raise _moved_on(folder)
        self.parents[folder] = Parent(folder, found.ino, found.mtime_ns, found.ctime_ns)

    def run(self, ops: Sequence[Op]) -> None:
        """Make the steps; copies what does not lie on the mount of its target."""
        status = stat_of(self.upper.root, b"")
        assert status is not None
        self._mount = status.mount
        self._count_names(ops)
        for number, op in enumerate(ops):
            with explain("prepare the commit of", shown(op.path)):
                step = self._step(number, op)
            self.steps.append(step)
            if step.moves and step.ino:
                self._inos[op.path] = step.ino
            elif step.moves:
                self._inos.pop(op.path, None)

    def _count_names(self, ops: Sequence[Op]) -> None:
        """Count how many names of each inode leave the layer.

        A file some of whose names stay there must be copied: else the layer would hold a name of the host's own file.
        """
        if self.copy:
            return
        for number, op in enumerate(ops):
            if (
                op.new is None
                or op.layer
                or op.prepared is not None
                or op.kind in (Kind.META, Kind.WRITE, Kind.MKDIR)
            ):
                continue
            if op.new.is_dir:
                fd, name = self._source(op)
                self._scans[number] = self._scan(op, fd, name)
                for mark in settle.marks_in(self._scans[number][0]):
                    if mark.kind == "h":
                        ino, names = _PAIR.unpack(mark.value)
                        self._note_name(ino, names)
            elif op.new.nlink > 1:
                self._note_name(op.new.ino, op.new.nlink)

    def _note_name(self, ino: int, names: int) -> None:
        self._left[ino] = self._left.get(ino, names) - 1

    def _leaves_whole(self, number: int, op: Op) -> bool:
        """Say whether no name of what a step takes stays in the layer."""
        if op.new is None or not op.new.is_dir:
            return op.new is None or self._left.get(op.new.ino, 0) == 0
        marks = settle.marks_in(self._scans[number][0]) if number in self._scans else ()
        return all(self._left[_PAIR.unpack(m.value)[0]] == 0 for m in marks if m.kind == "h")

    def _is_movable(self, number: int, op: Op, mount: int) -> bool:
        if op.layer or op.prepared is not None or self.copy or mount != self._mount:
            return False
        if self.stays and self._is_hidden_in(split(op.path if op.source is None else op.source)[0]):
            return False
        return self._leaves_whole(number, op)

    def _is_hidden_in(self, folder: bytes) -> bool:
        """Say whether a folder of the layer hides what lies beneath it: what is taken from there would seem removed."""
        known = self._hiding.get(folder)
        if known is None:
            known = bool(folder) and (self._is_opaque(folder) or self._is_hidden_in(split(folder)[0]))
            self._hiding[folder] = known
        return known

    def _is_opaque(self, folder: bytes) -> bool:
        try:
            fd = trees.open_beneath(self.upper.root, folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            return True  # one's own, and closed
        try:
            return overlay.is_opaque(fd, userxattr=self.userxattr)
        finally:
            os.close(fd)

    def _linked(self, step: Step, mount: int) -> Step:
        """Make a further name: that of the layer is moved, if all of them are."""
        op = step.op
        if (
            op.new is not None
            and not op.new.is_dir
            and op.new.nlink > 1
            and self._is_movable(step.number, op, mount)
        ):
            found = self.upper.look(op.path if op.source is None else op.source)
            if found is not None and found.ino == op.new.ino:
                return self._moved(attrs.evolve(step, op=attrs.evolve(op, source=op.source or op.path)))
        assert op.link_to is not None
        self._say(op)
        return attrs.evolve(step, start="link", ino=self._ino_of(op.link_to))

    def _step(self, number: int, op: Op) -> Step:
        old_ino = 0 if op.old is None else op.old.ino
        if op.kind is Kind.META:
            self._say(op)
            return self._meta_step(number, op, old_ino)
        place, mount = self.places.place_for(split(op.path)[0])
        step = Step(number, op, place=place, old_ino=old_ino)
        if op.kind is Kind.REMOVE:
            self._say(op)
            return step
        if op.kind is Kind.LINK:
            return self._linked(step, mount)
        if op.kind is Kind.WRITE:
            self._say(op)
            return self._write_step(step)
        if op.kind is Kind.MKDIR:
            self._say(op)
            return self._made_in_slot(step, self._make_folder)
        return (
            self._moved(step) if self._is_movable(number, op, mount) else self._made_in_slot(step, self._copy)
        )

    # What a step takes

    def _source(self, op: Op) -> tuple[int, bytes]:
        """Return the folder and the name of what a step takes, having looked that it is still the same."""
        return self._looked_at(op)[:2]

    def _looked_at(self, op: Op) -> tuple[int, bytes, int]:
        """Do the same, and return its inode number too."""
        assert op.source is not None
        folders = self.upper if op.layer == 0 else self.lowers[op.layer - 1]
        fd, name = folders.at(op.source)
        found = stat_of(fd, name)
        if found is None or (op.new is not None and found.ino != op.new.ino):
            raise ConflictError(
                f"{shown(op.source)} of the layer was changed while it was being committed", hint="try again"
            )
        return fd, name, found.ino

    def _moved(self, step: Step) -> Step:
        assert step.op.source is not None
        fd, name, ino = self._looked_at(step.op)
        above = split(step.op.source)[0]
        if above not in self.sources:
            status = stat_of(fd, b"")
            self.sources[above] = 0 if status is None else status.mtime_ns
        marks, names, count = self._scans.get(step.number) or self._scan(step.op, fd, name)
        self._say(step.op, names, count)
        taken = tuple(mark for mark in settle.marks_in(marks) if mark.kind != "h")
        # Not attrs.evolve: of most commits, this is most.
        return Step(step.number, step.op, step.place, "upper", ino, step.old_ino, taken)

    def _scan(self, op: Op, fd: int, name: bytes) -> tuple[bytes, bytes, int]:
        return closed.scan(fd, name, userxattr=self.userxattr, drop=op.drop)

    def _made_in_slot(self, step: Step, make: Callable[[Step, int], None]) -> Step:
        slot = self.places.fds[step.place]
        make(step, slot)
        found = stat_of(slot, step.slot)
        assert found is not None
        return attrs.evolve(step, start="slot", ino=found.ino)

    def _copy(self, step: Step, slot: int) -> None:
        fd, name = self._source(step.op)
        if step.op.prepared is not None:
            self._say(step.op)
            self._write_prepared(step, slot, fd, name)
            return
        _, names, count = self._scan(step.op, fd, name)
        self._say(step.op, names, count)
        closed.copy_entry(fd, name, slot, step.slot, userxattr=self.userxattr, drop=step.op.drop)

    def _write_prepared(self, step: Step, slot: int, fd: int, name: bytes) -> None:
        assert step.op.prepared is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(step.slot, flags, 0o600, dir_fd=slot), "wb") as file:
            file.write(self.merges[step.op.prepared])
        apply_meta(slot, step.slot, read_meta(fd, name, flavour=self.userxattr, drop=step.op.drop))

    def _make_folder(self, step: Step, slot: int) -> None:
        fd, name = self._source(step.op)
        os.mkdir(step.slot, 0o700, dir_fd=slot)
        meta = read_meta(fd, name, flavour=self.userxattr, drop=step.op.drop)
        apply_meta(slot, step.slot, attrs.evolve(meta, mode=_opened(meta.mode)))

    # What stays

    def _meta_step(self, number: int, op: Op, old_ino: int) -> Step:
        if op.path in self._inos:
            # A folder that a step before has made: what is in it has changed its time.
            after = read_meta(*self._source(op), flavour=self.userxattr, drop=op.drop)
            after = attrs.evolve(after, mode=op.new.mode) if op.new is not None else after
            before = attrs.evolve(after, mode=_opened(after.mode))
            return Step(number, op, old_ino=self._inos[op.path], before=before, after=after)
        if op.source is None:
            return self._opening_step(number, op, old_ino)
        before, after = self._metas(op)
        if op.new is not None and op.new.is_dir:
            after = attrs.evolve(after, mode=op.new.mode)  # while it is committed it is open to its owner
        if op.path in self._open_folders:
            before = attrs.evolve(before, mode=_opened(before.mode))
        if op.times_only:
            assert op.new is not None
            before = attrs.evolve(before, xattrs=None)
            after = Meta(before.mode, before.uid, before.gid, op.new.mtime_ns)
        return Step(number, op, old_ino=old_ino, before=before, after=after)

    def _opening_step(self, number: int, op: Op, old_ino: int) -> Step:
        """Let a folder of one's own be written to, until a later step says what it is to be like."""
        self._open_folders.add(op.path)
        before = attrs.evolve(read_meta(*self.host.at(op.path)), xattrs=None)
        return Step(
            number, op, old_ino=old_ino, before=before, after=attrs.evolve(before, mode=_opened(before.mode))
        )

    def _metas(self, op: Op) -> tuple[Meta, Meta]:
        fd, name = self._source(op)
        after = read_meta(fd, name, flavour=self.userxattr, drop=op.drop)
        return read_meta(*self.host.at(op.path)), after

    def _write_step(self, step: Step) -> Step:
        slot = self.places.fds[step.place]
        before, after = self._metas(step.op)
        fd, name = self._source(step.op)
        if step.op.prepared is not None:
            self._write_prepared(step, slot, fd, name)
        else:
            closed.copy_entry(fd, name, slot, step.slot, userxattr=self.userxattr, drop=step.op.drop)
        above, old = self.host.at(step.op.path)
        closed.copy_entry(above, old, slot, step.slot + OLD, userxattr=self.userxattr)
        return attrs.evolve(step, before=before, after=after)

    def _ino_of(self, path: bytes) -> int:
        """Return the inode number that a path will have when the steps so far are done."""
        known = self._inos.get(path)
        if known is not None:
            return known
        for step in reversed(self.steps):
            rest = path[len(step.op.path) + 1 :]
            if step.moves and step.ino and path.startswith(step.op.path + b"/"):
                found = self._inside(step, rest)
                break
        else:
            found = self.host.look(path)
        if found is None:
            raise DamagedError(f"there is nothing at {shown(path)} to link to")
        return found.ino

    def _inside(self, step: Step, rest: bytes) -> Stat | None:
        if step.start == "upper":
            assert step.op.source is not None
            return self.upper.look(step.op.source + b"/" + rest)
        slots = Folders(self.places.fds[step.place], cross_mounts=False)
        try:
            return slots.look(step.slot + b"/" + rest)
        finally:
            slots.clear()

    # What is said of it

    def _say(self, op: Op, names: bytes = b"", count: int = 1) -> None:
        """Note a change for the log; ``names`` and ``count``: of all that comes with it."""
        if not op.letter:
            return
        self.counts[op.letter] = self.counts.get(op.letter, 0) + 1
        if count > 1:
            self.counts["A"] = self.counts.get("A", 0) + count - 1
            self.names.append(names)
        self.files.append((op.letter, op.path, _size(op.old), _size(op.new), len(names) if count > 1 else 0))


def _opened(mode: int) -> int:
    """Return the mode of a folder while its entries are changed: root needs none, a plain user must be let in."""
    return mode if os.geteuid() == 0 else mode | stat.S_IRWXU


def _size(status: Stat | None) -> int | None:
    if status is None:
        return None
    return status.size if stat.S_ISREG(status.mode) else 0


def _moved_on(path: bytes) -> ConflictError:
    return ConflictError(
        f"{shown(path)} was changed on the host just now; nothing was written", hint="try again"
    )
