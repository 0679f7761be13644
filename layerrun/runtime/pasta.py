"""A private network for a plain user: the words of pasta(1), which the C core runs beside the app."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import attrs

from layerrun.runtime.names import Resolver, is_loopback

if TYPE_CHECKING:
    from layerrun.policy import Publish

__all__ = ["program", "resolver", "sources", "words"]

# Link-local, and nobody's: what is asked there pasta asks the machine's own resolver.
_RESOLVER = "169.254.1.1"


def program() -> str:
    """Return where pasta is; where there is none, where it would be."""
    return shutil.which("pasta", path="/usr/local/bin:/usr/bin:/bin") or "/usr/bin/pasta"


def _server(found: Resolver) -> str | None:
    """Return the machine's first server that has an IPv4 address, be it a loopback one."""
    return next((one for one in found.servers if ":" not in one), None)


def resolver(found: Resolver) -> Resolver:
    """Return the resolver inside."""
    usable = [one for one in found.servers if not is_loopback(one)]
    return attrs.evolve(found, servers=tuple(usable) if usable and not _server(found) else (_RESOLVER,))


def _published(publish: Sequence[Publish], protocol: str) -> Iterator[str]:
    found = [one for one in publish if one.protocol == protocol]
    for one in found:
        yield (f"{one.address}/" if one.address else "") + f"{one.host}:{one.inside}"
    if not found:
        yield "none"


def words(publish: Sequence[Publish]) -> list[str]:
    """Return the command line but for the namespaces. Nothing is forwarded that was not asked for."""
    made = [program(), "--foreground", "--quiet", "--config-net", "--no-netns-quit", "--ns-ifname", "eth0"]
    made += ["--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ndp", "--no-ra"]
    made += ["--dns-forward", _RESOLVER]
    for option, protocol in (("--tcp-ports", "tcp"), ("--udp-ports", "udp")):
        for port in _published(publish, protocol):
            made += [option, port]
    return [*made, "--tcp-ns", "none", "--udp-ns", "none"]


def sources() -> list[str]:
    """Return the files that decided about the words and about the app's own files."""
    return [program(), os.path.realpath("/etc/resolv.conf"), os.path.realpath("/etc/hosts")]
