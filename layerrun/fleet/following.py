"""Following a channel: what trust begins with, how far a follower is, and asking for news.

    channels/SLOT/lock        flock(2): somebody asks
    channels/SLOT/root        the root that trust began with
    channels/SLOT/metadata/   what was accepted so far (python-tuf's), and ``release``, the last document

The whole of ``metadata`` is copied into a ticket, worked on there, made durable and exchanged with the one before: so
after a crash or a loss of power it is what it was, or what it has become, and never forgets what was seen already.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.errors import BusyError, DamagedError, NotFoundError, TrustError, UsageError
from layerrun.fleet import release, trust
from layerrun.model import HOST_BASE, check_name
from layerrun.native.syscalls import RENAME_EXCHANGE, renameat2, syncfs
from layerrun.store.channel_rows import Channel
from layerrun.store.fs import explain, fsync_dir, make_dir, open_dir, present, write_file
from layerrun.store.store import now

if TYPE_CHECKING:
    from layerrun.fleet.release import Release
    from layerrun.store.store import Store

__all__ = ["channel_of", "follow", "locked", "news", "note", "unfollow"]


def channel_of(store: Store, name: str) -> Channel:
    """Return the channel that a base follows; raises `NotFoundError`."""
    found = store.catalog.channel(name)
    if found is None:
        known = [one.slot for one in store.catalog.channels()]
        raise NotFoundError(
            f"the base {name!r} follows no channel",
            hint=f"there is {', '.join(known)}" if known else f"layerrun base follow {name} URL",
        )
    return found


def follow(
    store: Store,
    name: str,
    url: str,
    *,
    channel: str = "stable",
    arch: str | None = None,
    root: bytes | None = None,
    wanted: str | None = None,
    agree: Callable[[str, list[str], int], None],
) -> tuple[Channel, Release]:
    """Let the base ``name``, which need not be there yet, follow a channel; return it, and what it offers.

    ``root`` is the root that is trusted, or ``wanted`` the fingerprint of the repository's first one. With neither,
    ``agree`` is called with the fingerprint, the ids of its keys and how many must sign, and raises if nobody vouches
    for it. Nothing is recorded unless all that the channel says is good.
    """
    if check_name(name, "name of a base") == HOST_BASE:
        raise UsageError("the base 'host' is the machine's own / and follows no channel")
    release.check_channel(channel)
    url, arch = trust.check_url(url), arch or release.machine()
    given = root is not None
    root = root if root is not None else trust.fetch_root(url)
    ids, threshold = trust.root_keys(root)
    print_ = trust.fingerprint(root)
    if wanted is not None and wanted.lower().removeprefix("sha256:") != print_:
        raise TrustError(
            f"the root of {url} has the fingerprint {print_}, not {wanted}",
            hint="somebody else answers, perhaps",
        )
    if not given and wanted is None:
        agree(print_, ids, threshold)
    made = Channel(name, url, now(), {"channel": channel, "arch": arch, "root": print_})
    with store.ticket() as ticket:
        with explain("follow", url):
            make_dir(ticket.fd, "channel")
            fd = open_dir(ticket.fd, "channel")
            try:
                make_dir(fd, "metadata")
                os.close(os.open("lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=fd))
                write_file(fd, "root", root.decode("utf-8", "surrogateescape"))
            finally:
                os.close(fd)
        staged = os.path.join(store.path, "staging", ticket.id, "channel")
        found = trust.ask(os.path.join(staged, "metadata"), url, root, channel, arch)
        made = attrs.evolve(made, state={**made.state, **_seen(found)})
        with explain("follow", url):
            inode = os.stat("channel", dir_fd=ticket.fd, follow_symlinks=False).st_ino
            syncfs(ticket.fd)
            with suppress(FileExistsError):
                make_dir(store.fd, "channels")
            fsync_dir(store.fd)
        ticket.note({"what": "follow", "inode": inode, "channel": attrs.asdict(made)})
        with ExitStack() as stack:  # what is locked in it stays so until the row is there
            held = False
            with suppress(DamagedError):  # there is none yet
                held = stack.enter_context(_alone(store, name)) >= 0
            with store.catalog.transaction(), explain("follow", url):
                if not held and present(store.fd, f"channels/{name}"):
                    raise BusyError(f"{name!r} follows another channel since a moment ago", hint="try again")
                store.catalog.put_channel(made)
                # From when it is in its place until its row is there as well: else who asks would have the old row.
                stack.enter_context(_lock_staged(ticket.fd))
                _place(store, ticket.fd, name)
                fsync_dir(store.fd, "channels")
    return made, found


@contextmanager
def _lock_staged(ticket: int) -> Iterator[None]:
    """Hold the lock of the staged folder, which nobody else knows yet."""
    lock = os.open("channel/lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=ticket)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(lock)


def _place(store: Store, ticket: int, name: str) -> None:
    """Let the staged folder be the channel's; one from before goes with the ticket."""
    try:
        renameat2(ticket, "channel", store.fd, f"channels/{name}", RENAME_EXCHANGE)
    except FileNotFoundError:
        os.rename("channel", f"channels/{name}", src_dir_fd=ticket, dst_dir_fd=store.fd)


def unfollow(store: Store, name: str) -> None:
    """Let a base follow nothing any more; the base itself stays as it is. Raises `BusyError` as `locked`."""
    with store.ticket() as ticket, ExitStack() as stack:
        channel_of(store, name)
        with suppress(DamagedError):  # its folder is missing: that hinders nobody
            stack.enter_context(_alone(store, name))
        with store.catalog.transaction():
            channel_of(store, name)  # somebody else may have been quicker
            store.catalog.delete_channel(name)
        with explain("unfollow", name), suppress(FileNotFoundError):
            os.rename(f"channels/{name}", "channel", src_dir_fd=store.fd, dst_dir_fd=ticket.fd)
            fsync_dir(store.fd, "channels")


@contextmanager
def locked(store: Store, name: str) -> Iterator[tuple[int, Channel]]:
    """Open the folder of the channel of a base, and let nobody else ask meanwhile; give it, and what is recorded of it.

    What was read of a channel before may have changed by now. Raises `NotFoundError`, `BusyError`.
    """
    channel_of(store, name)  # says that there is none
    with _alone(store, name) as fd:
        yield fd, channel_of(store, name)


@contextmanager
def _alone(store: Store, name: str) -> Iterator[int]:
    """Open the folder of a channel and take its lock; raises `BusyError`, and `DamagedError` if there is no folder."""
    try:
        fd = open_dir(store.fd, f"channels/{name}")
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedError(
            f"what is known of the channel of {name!r} is missing",
            hint=f"layerrun base follow {name} URL, again",
        ) from None
    lock = -1
    try:
        with explain("lock the channel of", name):
            lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                f"the channel of {name!r} is being asked by another process", hint="try again"
            ) from None
        if not _is_there(store, name, fd):
            # Another `follow` or `unfollow` had the lock in between: this is that of a folder that is gone.
            raise BusyError(f"the channel of {name!r} was changed by another process", hint="try again")
        yield fd
    finally:
        if lock >= 0:
            os.close(lock)
        os.close(fd)


def _is_there(store: Store, name: str, fd: int) -> bool:
    try:
        found = os.stat(f"channels/{name}", dir_fd=store.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(fd))


def news(store: Store, channel: Channel, fd: int) -> Release:
    """Ask a channel what it offers now; ``fd`` is from `locked`. What was learnt stays, whatever becomes of the rest.

    Raises `TrustError`, `UnreachableError`, and notes the reason in the channel's state.
    """
    url, state = channel.url, channel.state
    with store.ticket() as ticket:
        staged = os.path.join(store.path, "staging", ticket.id, "metadata")
        with explain("ask", url):
            root = _read_root(fd, channel)
            shutil.copytree(
                os.path.join(store.path, "channels", channel.slot, "metadata"), staged, symlinks=True
            )
        try:
            found = trust.ask(staged, url, root, str(state["channel"]), str(state["arch"]))
            if found.sequence < int(state.get("sequence", 0)):
                raise TrustError(
                    f"{url} offers release {found.sequence} of channel {found.channel!r}, and had {state['sequence']}"
                    " before",
                    hint="a channel goes back by a new release with the old content",
                )
        except TrustError as error:
            note(store, channel.slot, {"error": str(error), "refused": now()})
            raise
        finally:
            with explain("keep what was learnt of", url):
                syncfs(ticket.fd)
                renameat2(ticket.fd, "metadata", fd, "metadata", RENAME_EXCHANGE)
                os.fsync(fd)
    note(store, channel.slot, {"error": "", "refused": "", **_seen(found)}, checked=now())
    return found


def _read_root(fd: int, channel: Channel) -> bytes:
    root = os.open("root", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
    with os.fdopen(root, "rb") as file:
        data = file.read(1 << 20)
    if trust.fingerprint(data) != channel.state.get("root"):
        raise DamagedError(
            f"the root of the channel of {channel.slot!r} was altered",
            hint=f"layerrun base follow {channel.slot} {channel.url}, again",
        )
    return data


def _seen(found: Release) -> dict[str, Any]:
    return {"sequence": found.sequence, "version": found.version}


def note(store: Store, name: str, changes: Mapping[str, Any], *, checked: str | None = None) -> None:
    """Change some of what is recorded of a channel; empty values are left out. Nothing if it is followed no more."""
    with store.catalog.transaction():
        channel = store.catalog.channel(name)
        if channel is None:
            return
        state = {key: value for key, value in {**channel.state, **changes}.items() if value not in ("", None)}
        store.catalog.put_channel(
            attrs.evolve(channel, state=state, checked=channel.checked if checked is None else checked)
        )
