"""How an app with a network of its own finds others by name: /etc/hosts, /etc/resolv.conf, its own name.

The files lie in the app's folder (docs/store.md) and are bound over those of the base, read-only. See resolv.conf(5),
hosts(5), docs/network.md.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs

from layerrun.store.fs import make_dir

if TYPE_CHECKING:
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = [
    "FOLDER",
    "Resolver",
    "host_name",
    "hosts",
    "is_loopback",
    "own_address",
    "read_resolver",
    "tell",
    "write",
]

FOLDER = "net"  # in the app's folder
# Whoever keeps a resolver of the machine's own at a loopback address writes down here whom it asks itself.
_UPSTREAM = ("/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf")
_LINK = "#link"
_MOST = 1 << 16  # bytes; what is longer is no such file


def host_name(app: App) -> str:
    """Return what an app is called as a machine: hostname(7) has no ``@``."""
    return (app.shown_name if app.is_step else app.name).replace("@", "-")[:63]


@attrs.frozen
class Resolver:
    """A resolv.conf: the addresses of the servers, and its other lines."""

    servers: tuple[str, ...]
    lines: tuple[str, ...]

    def text(self) -> str:
        """Return the file."""
        return "".join(f"{line}\n" for line in (*self.lines, *(f"nameserver {one}" for one in self.servers)))


def _parse(path: str) -> Resolver | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(_MOST)
    except OSError:
        return None
    servers, lines = [], []
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["nameserver"] and len(words) > 1:
            servers.append(words[1])
        elif words and words[0] in ("search", "domain", "options"):
            lines.append(line)
    return Resolver(tuple(servers), tuple(lines))


def is_loopback(address: str) -> bool:
    """Say whether an address of a resolv.conf leads to the machine itself; what is no address does too."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return True


def read_resolver(root: str = "/") -> Resolver:
    """Return how the machine resolves names, by servers that others than the machine can ask, if it is known."""
    found = _parse(os.path.join(root, "etc/resolv.conf")) or Resolver((), ())
    if found.servers and all(map(is_loopback, found.servers)):
        for path in _UPSTREAM:
            other = _parse(path)
            if other and other.servers and not all(map(is_loopback, other.servers)):
                return attrs.evolve(found, servers=other.servers)
    return found


def _of_host() -> Iterator[str]:
    """Yield the lines of the machine's own /etc/hosts that say something about others."""
    try:
        with open("/etc/hosts", encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(_MOST).splitlines()
    except OSError:
        return
    for line in lines:
        words = line.partition("#")[0].split()
        if len(words) > 1 and not is_loopback(words[0]):
            yield line


def _linked(address: str, name: str) -> str:
    return f"{address}\t{name} {_LINK}\n"


def hosts(name: str, address: str, others: Iterable[tuple[str, str]] = (), *, of_host: bool = False) -> str:
    """Return an /etc/hosts for the app ``name`` at ``address``, with ``others``, each an address and a name."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", f"{address}\t{name}"]
    lines += [_linked(where, other).rstrip() for where, other in others]
    return "".join(f"{line}\n" for line in (*lines, *(_of_host() if of_host else ())))


def own_address(store: Store, app: App) -> str | None:
    """Return the address of a running app's own network by which the machine reaches it, if it has one."""
    try:
        with open(
            os.path.join(store.app_dir(app), FOLDER, "hosts"), encoding="utf-8", errors="replace"
        ) as file:
            lines = [line.split() for line in file]
    except OSError:
        return None
    found = next((words[0] for words in lines if words[1:] == [host_name(app)]), "127.0.0.1")
    return None if is_loopback(found) else found


def tell(store: Store, other: App, address: str, name: str) -> None:
    """Tell a running app of another that it has a link to now, in its /etc/hosts."""
    path = os.path.join(store.app_dir(other), FOLDER, "hosts")
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        lines = [line for line in file if line.split()[1:] != [name, _LINK]]
    write(store, other, "hosts", "".join(lines) + _linked(address, name))


def write(store: Store, app: App, name: str, text: str) -> None:
    """Write a file of the app's folder, in place: where it is bound, what is new is seen at once."""
    folder = store.open_app_dir(app)
    try:
        try:
            make_dir(folder, FOLDER, 0o755)
        except FileExistsError:
            pass
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(f"{FOLDER}/{name}", flags, 0o644, dir_fd=folder)
        try:
            data = text.encode("utf-8", "surrogateescape")
            os.fchmod(fd, 0o644)
            os.pwrite(fd, data, 0)
            os.ftruncate(fd, len(data))
        finally:
            os.close(fd)
    finally:
        os.close(folder)
