"""What a commit brings that gives rights, and what whoever commits may not do."""

from __future__ import annotations

import os
import stat

import attrs

from layerrun.commit.conflicts import Conflict
from layerrun.commit.entries import Folders, split
from layerrun.commit.entry import Entry
from layerrun.commit.ops import Kind, Op

__all__ = ["Privileged", "Rights", "privileged"]


@attrs.frozen
class Privileged:
    """An entry that gives rights to whoever runs or opens it: ``what`` says why, ``device`` that it is a device."""

    path: str
    what: str
    device: bool = False


def privileged(entry: Entry) -> Privileged | None:
    """Return what rights an entry brings that were not there before."""
    new, old = entry.delta.new, entry.delta.old
    if new is None or entry.delta.letter not in "AMTP":
        return None
    if stat.S_ISCHR(new.mode) or stat.S_ISBLK(new.mode):
        kind = "block" if stat.S_ISBLK(new.mode) else "character"
        number = f"{os.major(new.rdev)}:{os.minor(new.rdev)}"
        return Privileged(entry.text, f"{kind} device {number}", device=True)
    if not new.is_file:
        return None
    found = []
    bits = new.mode & (stat.S_ISUID | stat.S_ISGID)
    if entry.delta.letter == "P" and old is not None and (old.uid, old.gid) == (new.uid, new.gid):
        bits &= ~old.mode
    if bits & stat.S_ISUID:
        found.append(f"setuid, owned by {new.uid}")
    if bits & stat.S_ISGID:
        found.append(f"setgid, group {new.gid}")
    if entry.delta.capable:
        found.append("file capabilities")
    return Privileged(entry.text, "; ".join(found)) if found else None


@attrs.define
class Rights:
    """Finds the steps that would fail: folders that cannot be written, sticky bits, mount points, others' files."""

    host: Folders
    _folders: dict[bytes, str] = attrs.field(factory=dict)
    _made: set[bytes] = attrs.field(factory=set)

    def check(self, op: Op, mount: int | None) -> Conflict | None:
        """Return what speaks against a step. ``mount``: the one that the folder lies on, as it was seen."""
        folder = split(op.path)[0]
        brings = op.new is not None and op.new.is_dir and op.kind in (Kind.ADD, Kind.MKDIR, Kind.REPLACE)
        if folder in self._made:
            if brings:
                self._made.add(op.path)
            return None
        what = self._in_place(op) if op.kind in (Kind.META, Kind.WRITE) else self._moved(op, folder, mount)
        if brings:
            self._made.add(op.path)
        return Conflict("/" + os.fsdecode(op.path), what, may_force=False) if what else None

    def _in_place(self, op: Op) -> str:
        if op.old is None:
            return ""
        if not self._mine(op.old.uid):
            return "is not yours to change"
        return ""

    def _moved(self, op: Op, folder: bytes, mount: int | None) -> str:
        if op.old is not None and mount is not None and op.old.mount != mount:
            return "something is mounted there"
        if folder not in self._folders:
            self._folders[folder] = self._look(folder)
        what = self._folders[folder]
        if what == "sticky":
            what = (
                ""
                if op.old is None or self._mine(op.old.uid)
                else "belongs to somebody else, in a sticky folder"
            )
        return what

    def _look(self, folder: bytes) -> str:
        """Return what speaks against changing entries of a folder of the host; ``sticky`` where it depends on whose."""
        try:
            fd = self.host.open(folder)
        except OSError:
            return "the folder that it lies in is gone from the host, or cannot be entered"
        status = os.stat(fd)
        closed = status.st_uid == os.geteuid() != 0 and status.st_mode & 0o300 == 0o100  # it is opened for it
        if not closed and not os.access(f"/proc/self/fd/{fd}", os.W_OK | os.X_OK, effective_ids=True):
            return "the folder that it lies in cannot be written to"
        return "sticky" if status.st_mode & stat.S_ISVTX and not self._mine(status.st_uid) else ""

    @staticmethod
    def _mine(uid: int) -> bool:
        return os.geteuid() in (0, uid)
