"""Doing the steps of a journal and taking them back. What was done can be seen on the disk, so each can be repeated.

An entry keeps its inode number wherever it is moved. So for each step that moves entries three looks tell how far it
is: at its path, at its slot, and at its source in the layer.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import attrs

from layerrun.commit.entries import Folders, apply_meta, held, put_on, split, stat_of, take_off
from layerrun.commit.journal import Journal, Step
from layerrun.commit.ops import Kind
from layerrun.errors import ConflictError, DamagedError, LayerrunError, SystemError
from layerrun.layers.delta import Stat
from layerrun.native import settle
from layerrun.native.syscalls import RENAME_EXCHANGE, RENAME_NOREPLACE, renameat2

__all__ = ["OLD", "Work", "shown"]

# Behind the number of a step: what a file that is written into was like before.
OLD = b".old"


def shown(path: bytes) -> str:
    """Return a path of the host as it is printed."""
    text = "/" + os.fsdecode(path)
    return text if text.isprintable() else ascii(text)[1:-1]


def _changed(path: bytes) -> ConflictError:
    return ConflictError(
        f"{shown(path)} was changed on the host while it was being committed",
        hint="nothing of it was kept: try again",
    )


@attrs.define
class Work:
    """A journal with all that it speaks of, open. ``upper`` is ``None`` where the layer is gone."""

    journal: Journal
    folder: int
    host: Folders
    upper: Folders | None
    places: list[int]

    def forward(self, step: Step, *, again: bool = False) -> None:
        """Do a step; ``again``: what it takes lies in its slot, wherever it came from."""
        with _explained("commit", step):
            if step.moves:
                self._move(step, "slot" if again and step.start not in ("", "link") else step.start)
                if step.ino and _is_closed(step.op.new):
                    _mend(*self.host.at(step.op.path), step.op.new)
            else:
                self._change(step, forth=True)

    def back(self, step: Step, *, to_upper: bool) -> None:
        """Take a step back, if it was done; what it has brought goes to its slot, or to the layer again."""
        with _explained("take back", step):
            if step.moves:
                self._move_back(step)
                if step.start == "link":
                    self._unlink(step)
                if _is_closed(step.op.old) and self._ino(step.op.path) == step.old_ino:
                    _mend(*self.host.at(step.op.path), step.op.old)
                if to_upper and step.start == "upper":
                    self._return_to_upper(step)
            else:
                self._change(step, forth=False)

    # Entries that are moved

    def _slot(self, step: Step) -> tuple[int, bytes]:
        return self.places[step.place], step.slot

    def in_slot(self, step: Step) -> int:
        """Return the inode number of what lies in the slot of a step, 0 for nothing."""
        found = stat_of(*self._slot(step))
        return 0 if found is None else found.ino

    def _ino(self, path: bytes) -> int:
        found = self.host.look(path)
        return 0 if found is None else found.ino

    def _move(self, step: Step, start: str) -> None:
        fd, name = self.host.at(step.op.path)
        slot, own = self._slot(step)
        if start == "link":
            self._link(step)
            start = "slot"
        if not step.ino:
            _rename(fd, name, slot, own, RENAME_NOREPLACE)
            if self.in_slot(step) != step.old_ino:
                _rename(slot, own, fd, name, RENAME_NOREPLACE)
                raise _changed(step.op.path)
            self._moved_folder(step)
            return
        if start == "upper":
            assert self.upper is not None
            assert step.op.source is not None
            above, source = self.upper.at(step.op.source)
            if step.marks:
                take_off(above, source, step.marks)
            if not step.old_ino:
                _rename(above, source, fd, name, RENAME_NOREPLACE)
                return
            _rename(above, source, slot, own, RENAME_NOREPLACE)
        if not step.old_ino:
            _rename(slot, own, fd, name, RENAME_NOREPLACE)
            return
        _rename(slot, own, fd, name, RENAME_EXCHANGE)
        if self.in_slot(step) != step.old_ino:
            _rename(slot, own, fd, name, RENAME_EXCHANGE)
            raise _changed(step.op.path)
        self._moved_folder(step)

    def _moved_folder(self, step: Step) -> None:
        """Forget open folders, one of which may have been put elsewhere."""
        if step.op.old is None or step.op.old.is_dir:
            self.host.clear()

    def _link(self, step: Step) -> None:
        assert step.op.link_to is not None
        fd, name = self.host.at(step.op.link_to)
        slot, own = self._slot(step)
        os.link(name, own, src_dir_fd=fd, dst_dir_fd=slot, follow_symlinks=False)
        if self.in_slot(step) != step.ino:
            raise _changed(step.op.link_to)

    def _unlink(self, step: Step) -> None:
        """Drop a further name from its slot: files that stay have no more names than before."""
        slot, own = self._slot(step)
        if step.ino and self.in_slot(step) == step.ino:
            os.unlink(own, dir_fd=slot)

    def _move_back(self, step: Step) -> None:
        slot, own = self._slot(step)
        there, aside = self._ino(step.op.path), self.in_slot(step)
        if step.ino and there == step.ino and step.old_ino:
            if aside == step.old_ino:
                fd, name = self.host.at(step.op.path)
                _rename(slot, own, fd, name, RENAME_EXCHANGE)
                self._moved_folder(step)
        elif step.ino and there == step.ino:
            if not aside:
                fd, name = self.host.at(step.op.path)
                _rename(fd, name, slot, own, RENAME_NOREPLACE)
                self.host.clear()
        elif not step.ino and aside == step.old_ino and not there:
            fd, name = self.host.at(step.op.path)
            _rename(slot, own, fd, name, RENAME_NOREPLACE)

    def _return_to_upper(self, step: Step) -> None:
        """Put what a step took from the layer back there, as it was."""
        assert self.upper is not None
        assert step.op.source is not None
        above, source = self.upper.at(step.op.source)
        slot, own = self._slot(step)
        if self.in_slot(step) == step.ino:
            _rename(slot, own, above, source, RENAME_NOREPLACE)
        found = stat_of(above, source)
        if found is not None and found.ino == step.ino:
            put_on(above, source, step.marks)
            _mend(above, source, step.op.new)

    # Entries that stay

    def _change(self, step: Step, *, forth: bool) -> None:
        meta = step.after if forth else step.before
        assert meta is not None
        if not forth and self.stat(step.op.path) is None:
            return
        fd, name = self.host.at(step.op.path)
        found = stat_of(fd, name)
        if found is None or found.ino != step.old_ino:
            if forth:
                raise _changed(step.op.path)
            return
        if step.op.kind is Kind.WRITE:
            self._write(step, fd, name, b"" if forth else OLD)
        other = step.before if forth else step.after
        # The time of a folder that somebody else has changed since stays.
        times = forth or not found.is_dir or (other is not None and found.mtime_ns == other.mtime_ns)
        apply_meta(fd, name, meta, times=times, back=not forth)

    def _write(self, step: Step, fd: int, name: bytes, which: bytes) -> None:
        """Write the new content, or the old one, into the file that is there."""
        source = os.open(
            step.slot + which, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.places[step.place]
        )
        try:
            with held(fd, name) as (path_fd, path):
                found = os.fstat(path_fd)
                if not stat.S_ISREG(found.st_mode) or found.st_ino != step.old_ino:
                    raise _changed(step.op.path)
                target = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    settle.refill(source, target)
                finally:
                    os.close(target)
        finally:
            os.close(source)

    def rescue(self, step: Step) -> bytes | None:
        """Put what could not go back to its path, since something else came there, beside that; return where."""
        name = step.slot if step.moves else step.slot + OLD
        found = stat_of(self.places[step.place], name)
        if step.op.kind is Kind.META or not step.old_ino or found is None:
            return None
        kept = found.ino == step.old_ino if step.moves else self._ino(step.op.path) != step.old_ino
        if not kept:
            return None
        with _explained("take back", step):
            fd, own = self.host.at(step.op.path)
            for number in itertools.count(1):
                end = b".layerrun-saved" + (b"-%d" % number if number > 1 else b"")
                with suppress(FileExistsError):
                    _rename(self.places[step.place], name, fd, own[: 255 - len(end)] + end, RENAME_NOREPLACE)
                    return split(step.op.path)[0] + b"/" + own[: 255 - len(end)] + end
        return None

    # Times

    def stat(self, path: bytes) -> Stat | None:
        """Return what is at a path of the host."""
        return self.host.look(path)


def _rename(from_fd: int, old: bytes, to_fd: int, new: bytes, flags: int) -> None:
    """renameat2(2), also of folders that their owner may not write to: their ".." is rewritten."""
    try:
        renameat2(from_fd, os.fsdecode(old), to_fd, os.fsdecode(new), flags)
    except PermissionError:
        with ExitStack() as stack:
            sides = [(from_fd, old)] + ([(to_fd, new)] if flags == RENAME_EXCHANGE else [])
            # All are tried, so that none is left out.
            if not sum([stack.enter_context(_opened(fd, name)) for fd, name in sides]):
                raise
            renameat2(from_fd, os.fsdecode(old), to_fd, os.fsdecode(new), flags)


@contextmanager
def _opened(dir_fd: int, name: bytes) -> Iterator[bool]:
    """Let a closed folder of one's own be written to for a moment; yield whether it is one."""
    with held(dir_fd, name) as (fd, path):
        status = os.fstat(fd)
        closed = stat.S_ISDIR(status.st_mode) and not status.st_mode & stat.S_IWUSR
        if not closed or status.st_uid != os.geteuid() or os.geteuid() == 0:
            yield False
            return
        os.chmod(path, stat.S_IMODE(status.st_mode) | stat.S_IWUSR)
        try:
            yield True
        finally:
            os.chmod(path, stat.S_IMODE(status.st_mode))


def _is_closed(status: Stat | None) -> bool:
    """Say whether it is a folder that `_rename` has to open."""
    return status is not None and status.is_dir and not status.mode & stat.S_IWUSR and os.geteuid() != 0


def _mend(dir_fd: int, name: bytes, wanted: Stat | None) -> None:
    """Close a folder again that `_rename` has opened, if that was cut short."""
    if wanted is None or not _is_closed(wanted):
        return
    with held(dir_fd, name) as (fd, path):
        if os.fstat(fd).st_mode != wanted.mode:
            os.chmod(path, stat.S_IMODE(wanted.mode))


@contextmanager
def _explained(what: str, step: Step) -> Iterator[None]:
    """Say of an error which step it was."""
    try:
        yield
    except (ConflictError, DamagedError):
        raise
    except OSError as error:
        number = error.errno or 0
        if number == errno.EEXIST:
            raise _changed(step.op.path) from error
        raise SystemError(
            f"cannot {what} {shown(step.op.path)}: {os.strerror(number)}",
            errno=number,
            path=shown(step.op.path),
            hint=_HINTS.get(number, error.hint if isinstance(error, LayerrunError) else None),
        ) from error


_HINTS = {
    errno.ENOENT: "if the folder that it lay in is gone: make it again",
    errno.ENOSPC: "free some space on its file system, and try again",
    errno.EBUSY: "something is mounted there, or in it",
    errno.ETXTBSY: "it is a program that runs: end it, and try again",
    errno.EROFS: "its file system is read-only",
}
