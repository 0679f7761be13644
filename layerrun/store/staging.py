"""Tickets: the proof on disk that a change is under way, and how a change cut short is finished.

Everything a change stages lies in its ticket's folder ``staging/<id>/``, which is there, durably,
before anything else is touched, and goes last. A ticket whose process is gone (the store's lock,
shared by every ticket holder, can be had exclusively) is therefore a change cut short: only then is
the store looked through for folders that no row names.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any

from layerrun.errors import BusyError
from layerrun.model import IdMode
from layerrun.store.channel_rows import Channel
from layerrun.store.fs import (
    DIR_FLAGS,
    explain,
    fsync_dir,
    make_dir,
    open_dir,
    present,
    read_text,
    write_file,
)
from layerrun.store.locks import lock_file
from layerrun.store.trash import to_trash

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["Ticket", "new_id", "recover"]


def new_id() -> str:
    """Return a fresh id: 16 lowercase hexadecimal digits."""
    return os.urandom(8).hex()


class Ticket:
    """A folder ``staging/<id>/`` to make things in; ``fd`` is its descriptor.

    Use it as a context manager: on leaving, whatever still lies in it goes to the trash.
    """

    def __init__(self, store: Store, ids: IdMode | None = None) -> None:
        self._store = store
        self._ids = ids
        self.linked = False  # it holds names of objects, which are to go with their last
        self.id = new_id()
        self._lock = _open_lock(store)
        try:
            if not lock_file(self._lock, exclusive=False, wait=10.0):
                raise BusyError(
                    f"the store {store.path!r} is being cleaned up by another process", hint="try again"
                )
            with explain("stage a change in", store.path):
                make_dir(store.staging_fd, self.id)
                self.fd = os.open(self.id, DIR_FLAGS, dir_fd=store.staging_fd)
                os.fsync(store.staging_fd)
        except BaseException:
            os.close(self._lock)
            raise

    def note(self, data: dict[str, Any]) -> None:
        """Write down, durably, what is about to happen, for `recover` to finish it after a crash."""
        with explain("stage a change in", self._store.path):
            write_file(self.fd, "note", json.dumps(data))
            os.fsync(self.fd)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.unlink("note", dir_fd=self.fd)
        os.close(self.fd)
        try:
            to_trash(self._store, self._store.staging_fd, self.id, self._ids, linked=self.linked)
        except OSError:
            # It stays where it is and is swept later; the change itself is made, or its own error matters more.
            pass
        finally:
            os.close(self._lock)


def recover(store: Store, *, wait: float = 0.0) -> bool:
    """Finish or take back whatever changes were cut short; say whether the store could be had for it."""
    from layerrun.store.freezing import finish_all  # which needs tickets itself

    lock = _open_lock(store)
    try:
        if not lock_file(lock, exclusive=True, wait=wait):
            return False
        tickets = os.listdir(store.staging_fd)
        for ticket in tickets:
            _finish(store, ticket)
        finish_all(store)
        for folder, known in (
            ("apps", {app.id for app in store.catalog.apps()}),
            ("bases", {base.id for base in store.catalog.versions()}),
            ("layers", {layer.id for layer in store.catalog.layers()}),
            ("channels", {channel.slot for channel in store.catalog.channels()}),
        ):
            if not present(store.fd, folder):  # the channels' is made with the first
                continue
            fd = open_dir(store.fd, folder)
            try:
                for name in os.listdir(fd):
                    if name not in known:
                        to_trash(store, fd, name, store.worst_ids, linked=folder != "apps")
                os.fsync(fd)
            finally:
                os.close(fd)
        for ticket in tickets:
            to_trash(store, store.staging_fd, ticket, store.worst_ids)
        os.fsync(store.staging_fd)
        return True
    finally:
        os.close(lock)


def _open_lock(store: Store) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with explain("open the lock of the store", store.path):
        return os.open("store.lock", flags, 0o600, dir_fd=store.fd)


def _finish(store: Store, ticket: str) -> None:
    """Do what the note of a ticket cut short says is still to be done."""
    try:
        fd = open_dir(store.staging_fd, ticket)
    except OSError:
        return
    try:
        text = read_text(fd, "note")
    finally:
        os.close(fd)
    if text is None:
        return
    with suppress(ValueError, KeyError, TypeError):
        note = json.loads(text)
        if note["what"] == "reset":
            _finish_reset(store, note["app"], note["inode"], note["generation"])
        elif note["what"] == "keep":
            for one in note.get("apps", [note]):  # schema 1 knew of one app only
                finish_keep(store, one["app"], one["as"])
        elif note["what"] == "follow":
            _finish_follow(store, Channel(**note["channel"]), note["inode"])


def _finish_reset(store: Store, app_id: str, inode: int, generation: int) -> None:
    try:
        status = os.stat(f"apps/{app_id}/data", dir_fd=store.fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    if status.st_ino == inode:  # the exchange took place
        with store.catalog.transaction():
            store.catalog.advance_app(app_id, generation)


def _finish_follow(store: Store, channel: Channel, inode: int) -> None:
    try:
        status = os.stat(f"channels/{channel.slot}", dir_fd=store.fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    known = store.catalog.channel(channel.slot)
    # With the same root the row is good either way, and may say more than the note by now.
    if status.st_ino == inode and (known is None or known.state.get("root") != channel.state.get("root")):
        with store.catalog.transaction():
            store.catalog.put_channel(channel)


def finish_keep(store: Store, app_id: str, name: str) -> None:
    """Move the data of an app that is no longer recorded to ``kept/<name>``."""
    if store.catalog.app_by_id(app_id) is not None:
        return
    with suppress(FileNotFoundError):
        os.rename(f"apps/{app_id}/data", f"kept/{name}", src_dir_fd=store.fd, dst_dir_fd=store.fd)
    for folder in ("kept", f"apps/{app_id}"):
        with suppress(FileNotFoundError):
            fsync_dir(store.fd, folder)
