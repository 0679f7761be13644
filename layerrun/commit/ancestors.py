"""What texts were like before a layer changed them, so that what the host changed since can be merged with it.

When a throwaway is kept, small texts of the host that it modifies are copied to ``ancestors/`` beside its data, each
under a digest of its path: the digest of the content (32 bytes), then the content. And what another commit has
replaced since the layer began is kept by that commit, to be taken back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from layerrun.changes import CommitState
from layerrun.commit import journal
from layerrun.commit.entries import Folders
from layerrun.commit.entry import Entry
from layerrun.commit.journal import Journal, Step
from layerrun.commit.ops import Kind
from layerrun.commit.steps import OLD
from layerrun.errors import LayerrunError
from layerrun.layers import text
from layerrun.model import HOST_BASE, App
from layerrun.native import trees
from layerrun.store.fs import DIR_FLAGS

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["LARGEST", "Merging", "save"]

# Bytes: of one text, and of all that are kept for a layer.
LARGEST = 1 << 20
ALL = 64 << 20

_FOLDER = "ancestors"
_DIGEST = 32


def _name(path: bytes) -> str:
    return hashlib.sha256(path).hexdigest()[:32]


def _read(
    root_fd: int, path: bytes, *, cross_mounts: bool = False, changed_ns: int | None = None
) -> bytes | None:
    """Return a text, ``None`` where it is none, too large, or cannot be read.

    ``changed_ns``: its time of change as it was seen; ``None`` also where it was changed since.
    """
    with contextlib.suppress(LayerrunError):
        fd = trees.open_beneath(root_fd, path, os.O_RDONLY | os.O_NOATIME, cross_mounts=cross_mounts)
        with os.fdopen(fd, "rb") as file:
            data = file.read(LARGEST + 1)
            if changed_ns not in (None, os.fstat(fd).st_ctime_ns):
                return None
            return data if len(data) <= LARGEST and text.is_text(data) else None
    return None


def _is_small_text(entry: Entry) -> bool:
    """Say whether an entry is a text by what can be seen from outside, and nothing but its content is another."""
    new, old = entry.delta.new, entry.delta.old
    if entry.delta.letter != "M" or new is None or old is None or not (new.is_file and old.is_file):
        return False
    return max(new.size, old.size) <= LARGEST


def save(store: Store, app: App) -> int:
    """Keep the host's texts that a layer changes, as far as they are still as it found them; return how many there are.

    The app must not be running. What was kept before stays as long as the layer changes that text.
    """
    if app.config.base != HOST_BASE or app.stack:
        return 0
    from layerrun.commit.entry import entries
    from layerrun.runtime.data import deltas

    wanted = [entry for entry in entries(deltas(store, app)) if _is_small_text(entry)]
    with contextlib.ExitStack() as stack:
        above = store.open_app_dir(app)
        stack.callback(os.close, above)
        if wanted:
            with contextlib.suppress(FileExistsError):
                os.mkdir(_FOLDER, 0o700, dir_fd=above)
        try:
            folder = os.open(_FOLDER, DIR_FLAGS, dir_fd=above)
        except FileNotFoundError:
            return 0
        stack.callback(os.close, folder)
        host = os.open("/", DIR_FLAGS)
        stack.callback(os.close, host)
        return _save(folder, host, wanted)


def _save(folder: int, host: int, wanted: list[Entry]) -> int:
    kept = set(os.listdir(folder))
    names = {_name(entry.path) for entry in wanted}
    for name in kept - names:
        os.unlink(name, dir_fd=folder)
    kept &= names
    room = ALL - sum(os.stat(name, dir_fd=folder).st_size for name in kept)
    for entry in wanted:
        old = entry.delta.old
        assert old is not None
        name = _name(entry.path)
        if name in kept or old.size > room or old.ctime_ns > entry.delta.since_ns or entry.delta.origin_other:
            continue
        data = _read(host, entry.path, cross_mounts=True, changed_ns=old.ctime_ns)
        if data is None or len(data) > room:
            continue
        room -= len(data)
        _write(folder, name, data)
        kept.add(name)
    return len(kept)


def _write(folder: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
        file.write(hashlib.sha256(data).digest() + data)


@attrs.define
class Merging:
    """Merges texts that both the layer and the host have changed.

    ``names``: by path, the name of the merged, or given, content in ``contents``. ``merged``: those that were merged.
    """

    store: Store
    app: App
    host: Folders
    names: dict[bytes, str] = attrs.field(factory=dict)
    contents: dict[str, bytes] = attrs.field(factory=dict)
    merged: list[bytes] = attrs.field(factory=list)
    _journals: list[Journal] | None = None

    def prepare(self, entry: Entry, content: bytes) -> None:
        """Let an entry have a content that is not that of the layer."""
        name = _name(entry.path)
        self.names[entry.path] = name
        self.contents[name] = content

    def resolves(self, entry: Entry) -> bool:
        """Say whether what an entry and the host have changed could be merged; then it is."""
        new, old = entry.delta.new, entry.delta.old
        if not _is_small_text(entry) or entry.anchor is not None:
            return False
        assert new is not None
        assert old is not None
        if (new.mode, new.uid, new.gid) != (old.mode, old.uid, old.gid):
            return False
        ancestor = self._ancestor(entry.path)
        if ancestor is None:
            ancestor = self._replaced(entry.path, entry.delta.since_ns)
        ours = self._ours(entry.path)
        theirs = _read(self.host.root, entry.path, cross_mounts=True)
        if ancestor is None or ours is None or theirs is None:
            return False
        merged = text.merge3(ancestor, ours, theirs)
        if merged is None:
            return False
        self.prepare(entry, merged)
        self.merged.append(entry.path)
        return True

    def _ours(self, path: bytes) -> bytes | None:
        fd = self.store.open_data(self.app, "upper")
        try:
            return _read(fd, path)
        finally:
            os.close(fd)

    def _ancestor(self, path: bytes) -> bytes | None:
        above = self.store.open_app_dir(self.app)
        try:
            with open(
                os.open(f"{_FOLDER}/{_name(path)}", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=above), "rb"
            ) as file:
                data = file.read()
        except OSError:
            return None
        finally:
            os.close(above)
        digest, content = data[:_DIGEST], data[_DIGEST:]
        return content if hashlib.sha256(content).digest() == digest else None

    def _replaced(self, path: bytes, since_ns: int) -> bytes | None:
        """Return what a commit has replaced after a moment, and nobody had changed before it since then."""
        if self._journals is None:
            self._journals = [*self._done()]
        for written in self._journals:
            for step in written.steps:
                known = step.op.path == path and step.op.kind in (Kind.REPLACE, Kind.WRITE)
                if known and step.op.old is not None and step.op.old.ctime_ns <= since_ns:
                    return self._kept_aside(written, step)
        return None

    def _done(self) -> Iterator[Journal]:
        for one in self.store.catalog.commits():
            if one.state is not CommitState.DONE:
                continue
            with contextlib.suppress(LayerrunError):
                folder = journal.open_folder(self.store.fd, one.id)
                try:
                    written = journal.read(folder, one.id)
                finally:
                    os.close(folder)
                if written is not None:
                    yield written

    def _kept_aside(self, written: Journal, step: Step) -> bytes | None:
        with contextlib.suppress(LayerrunError):
            if step.place:
                where = written.places[step.place].lstrip(b"/")
                slots = trees.open_beneath(self.host.root, where, DIR_FLAGS, cross_mounts=True)
            else:
                slots = trees.open_beneath(self.store.fd, f"commits/{written.id}/slots".encode(), DIR_FLAGS)
            try:
                return _read(slots, step.slot if step.moves else step.slot + OLD)
            finally:
                os.close(slots)
        return None
