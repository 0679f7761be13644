"""Links between apps, as root: a pair of veths from the network of one to that of the other. See docs/network.md.

Whoever starts second makes the pair. Both begin in Python, one after the other by the lock ``links`` of the store, and
each leaves word of its network before it looks for others. The kernel takes the pair away when either network ends.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from layerrun.errors import BusyError, LaunchError, NotFoundError
from layerrun.model import App, AppKind
from layerrun.policy import NetworkKind
from layerrun.runtime import names, netns
from layerrun.runtime.instances import pid_of
from layerrun.runtime.subnets import LINKS, free_subnets
from layerrun.store.locks import holder, lock_file
from layerrun.store.plans import forget_plan

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["connect", "is_marked", "other_end"]

_LOCK = "links"
_MARK = "linked"  # in the folder of an app's network: another app has a link to it
_RECORD = "ns"  # likewise: the inode of its network namespace, and the pid of who is starting it with that
_PREFIX = "link"
_PATIENCE = 10.0  # seconds
_POLL = 0.01


def _kind(app: App) -> NetworkKind:
    return app.config.policy.grants().network.kind


def _target(app: App) -> str | None:
    return app.config.policy.grants().network.other


def other_end(store: Store, app: App) -> App | None:
    """Return the app that this one has a link to. Raises `LaunchError` where that makes no sense."""
    name = _target(app)
    if name is None:
        return None
    if os.geteuid() != 0:
        raise LaunchError(
            f"cannot start {app.shown_name!r}: without root no two networks can be linked",
            hint="as root it can be done; a plain user has private, none and host",
        )
    hint = f"layerrun edit {app.parent_name or app.name} --network …"
    try:
        other = store.app(name, AppKind.APP)
    except NotFoundError:
        raise LaunchError(
            f"cannot start {app.shown_name!r}: it has a link to {name!r}, and no app is called that",
            hint=hint,
        ) from None
    if other.id == app.id:
        raise LaunchError(f"cannot start {app.shown_name!r}: it has a link to itself", hint=hint)
    if _kind(other) is NetworkKind.HOST:
        raise LaunchError(
            f"cannot start {app.shown_name!r}: it has a link to {name!r}, which has no network of its own",
            hint=f"layerrun edit {name} --network none (or private)",
        )
    return other


def is_marked(store: Store, app: App) -> bool:
    """Say whether another app has, or had, a link to this one, so that its starts have to look for it."""
    return os.path.lexists(os.path.join(store.app_dir(app), names.FOLDER, _MARK))


@contextmanager
def _locked(store: Store) -> Iterator[None]:
    fd = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=store.fd)
    try:
        if not lock_file(fd, exclusive=True, wait=_PATIENCE):
            raise BusyError("another app is being linked", hint="try again")
        yield
    finally:
        os.close(fd)


def _starting(store: Store, app: App) -> int | None:
    """Return the pid of who starts an app, if somebody holds its lock and no pid 1 is known yet."""
    fd = os.open(os.path.join(store.app_dir(app), "lock"), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = holder(fd)
    finally:
        os.close(fd)
    return found[0] if found is not None and found[1].startswith("run ") else None


def _mark(store: Store, other: App) -> None:
    """See to it that all later starts of the other app look for us, and wait for one that could not know that."""
    if is_marked(store, other):
        return
    names.write(store, other, _MARK, "")
    forget_plan(store, other.name)
    deadline = time.monotonic() + _PATIENCE
    with suppress(FileNotFoundError):
        while _starting(store, other) is not None and time.monotonic() < deadline:
            time.sleep(_POLL)


def _find(inode: str) -> int | None:
    """Return a network namespace by its inode, wherever a process is in it or holds it."""
    wanted = f"net:[{inode}]"
    for pid in (name for name in os.listdir("/proc") if name.isdecimal()):
        with suppress(OSError):
            for path in (
                f"/proc/{pid}/ns/net",
                *(f"/proc/{pid}/fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd")),
            ):
                if os.readlink(path) == wanted:
                    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def _network_of(store: Store, other: App) -> int | None:
    """Return the network namespace of an app that runs, or is about to; ``None`` where it does not."""
    pid = pid_of(store, other)
    if pid is None:
        with suppress(OSError, ValueError):
            with open(os.path.join(store.app_dir(other), names.FOLDER, _RECORD), encoding="ascii") as file:
                inode, starter = file.read().split()
            # The record of an earlier start may name an inode that is another app's namespace by now.
            if _starting(store, other) == int(starter):
                return _find(inode)
        return None
    try:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    if pid_of(store, other) == pid:
        return fd
    os.close(fd)
    return None


def _others(store: Store, app: App) -> list[App]:
    """Return the apps at the other ends of the links of this one."""
    other = other_end(store, app)
    found = {} if other is None else {other.id: other}
    if is_marked(store, app):
        for one in store.apps(AppKind.APP):
            if one.id != app.id and _target(one) == app.name:
                found[one.id] = one
    return list(found.values())


def _used(fd: int) -> set[str]:
    from pyroute2 import IPRoute

    with netns.inside(fd), IPRoute() as ip:
        return {link.get_attr("IFLA_IFNAME") for link in ip.get_links()}


def _up(fd: int, name: str, address: str) -> None:
    from pyroute2 import IPRoute

    with netns.inside(fd):
        netns.set_sysctls({f"ipv6/conf/{name}/disable_ipv6": "1", f"ipv4/conf/{name}/forwarding": "0"})
        with IPRoute() as ip:
            index = ip.link_lookup(ifname=name)[0]
            ip.addr("add", index=index, address=address, prefixlen=30)
            ip.link("set", index=index, state="up")


def _pair(ip: Any, own: int, other: int) -> tuple[str, str]:
    """Link two network namespaces; return the addresses in each."""
    used = _used(own) | _used(other)
    for number, subnet in free_subnets(ip, LINKS):
        name = f"{_PREFIX}{number}"
        if name in used:
            continue
        ip.link("add", ifname=name, kind="veth", net_ns_fd=own, peer={"ifname": name, "net_ns_fd": other})
        first, second = (str(address) for address in subnet.hosts())
        _up(own, name, first)
        _up(other, name, second)
        return first, second
    raise LaunchError("no range of addresses is free for a link")


def connect(store: Store, app: App, net_fd: int) -> list[tuple[str, str]]:
    """Link the network of an app that starts to those of the others that run, and tell these its name.

    Returns for each the address there and its name.
    Raises `LaunchError`, `BusyError`.
    """
    from pyroute2 import IPRoute

    made = []
    with _locked(store), IPRoute() as ip:
        target = other_end(store, app)
        if target is not None:
            _mark(store, target)
        names.write(store, app, _RECORD, f"{os.fstat(net_fd).st_ino} {os.getpid()}")
        machine = os.stat("/proc/thread-self/ns/net").st_ino
        for other in _others(store, app):
            fd = _network_of(store, other)
            if fd is None:
                continue
            try:
                if os.fstat(fd).st_ino == machine:
                    raise LaunchError(
                        f"cannot start {app.shown_name!r}: {other.name!r} still runs with the machine's network",
                        hint=f"layerrun stop {other.name}",
                    )
                own, there = _pair(ip, net_fd, fd)
                made.append((there, names.host_name(other)))
                names.tell(store, other, own, names.host_name(app))
            except OSError as error:
                if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EINVAL):
                    raise
            finally:
                os.close(fd)
    return made
