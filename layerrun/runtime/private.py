"""A network of its own with a way out, as root: a routed pair of veths, NAT, published ports. See docs/network.md.

Nothing of it has to be taken away: the veths go with the namespace, the rules and the reserved ports with descriptors
that pid 1 keeps. The name of the outer veth holds the subnet's number, so the kernel decides who has which subnet.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import sys
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.errors import LaunchError
from layerrun.runtime import netns, nft
from layerrun.runtime.names import Resolver, is_loopback
from layerrun.runtime.subnets import OURS, PRIVATE, free_subnets

if TYPE_CHECKING:
    from layerrun.policy import Publish

__all__ = ["Private", "make", "veth_name"]

_SUBNET = 30
_DNS = 53
# The priorities of nft(8) by name: raw, dstnat, filter, srcnat.
_RAW, _DSTNAT, _FILTER, _SRCNAT = -300, -100, 0, 100


@attrs.frozen
class Private:
    """What was made: the namespace, what pid 1 keeps, the address inside, the resolver to be used there, if any."""

    net_fd: int
    keep: tuple[int, ...]
    address: str
    resolver: Resolver | None


def veth_name(number: int) -> str:
    """Return the name of the outer veth of a subnet."""
    return f"{OURS}{number}"


def _pair(ip: Any, net_fd: int, wanted: int) -> tuple[str, ipaddress.IPv4Network]:
    """Make the pair of veths, one end inside; return the name of the other and the subnet."""
    from pyroute2.netlink.exceptions import NetlinkError

    taken = {link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
    for number, subnet in free_subnets(ip, PRIVATE, wanted):
        name = veth_name(number)
        if name in taken:
            continue
        try:
            ip.link("add", ifname=name, kind="veth", peer={"ifname": "eth0", "net_ns_fd": net_fd})
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                continue
            raise
        return name, subnet
    raise LaunchError(
        "no range of addresses is free for a private network",
        hint="the machine has or reaches something in each of " + ", ".join(PRIVATE),
    )


def _up(ip: Any, name: str, address: str) -> None:
    index = ip.link_lookup(ifname=name)[0]
    ip.addr("add", index=index, address=address, prefixlen=_SUBNET)
    ip.link("set", index=index, state="up")


def _forward() -> None:
    """Let the machine route. It stays so: whoever else relies on it meanwhile could not tell us."""
    path = "/proc/sys/net/ipv4/ip_forward"
    with open(path, "r+", encoding="ascii") as file:
        if file.read().strip() == "0":
            file.seek(0)
            file.write("1")
            sys.stderr.write("layerrun: turned on net.ipv4.ip_forward, for private networks\n")


def _reserve(one: Publish) -> socket.socket:
    """Take a port of the machine, so that nobody else believes to have it. What comes for it never gets that far."""
    kind = socket.SOCK_STREAM if one.protocol == "tcp" else socket.SOCK_DGRAM
    if ":" in one.address:
        raise LaunchError(
            f"cannot publish {one}: as root a private network has IPv4 only", hint="give an IPv4 address"
        )
    held = socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    try:
        held.bind((one.address, one.host))
    except OSError as error:
        held.close()
        what = f"{one.address or 'any address'}, port {one.host}/{one.protocol}"
        if error.errno == errno.EADDRINUSE:
            raise LaunchError(
                f"cannot publish {one}: {what} is in use", hint="`ss -lntup` tells by whom"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise LaunchError(f"cannot publish {one}: {one.address} is no address of this machine") from None
        raise LaunchError(f"cannot publish {one}: {error.strerror}") from None
    return held


def _own_addresses(ip: Any) -> set[str]:
    return {address.get_attr("IFA_LOCAL") for address in ip.get_addr(family=socket.AF_INET)}


def _resolver(found: Resolver, own: set[str], gateway: str) -> tuple[Resolver, str | None]:
    """Return the resolver inside, and the server on this machine that is reached as the gateway, if it has one."""
    usable = [one for one in found.servers if ":" not in one and not is_loopback(one) and one not in own]
    if usable:
        return attrs.evolve(found, servers=tuple(usable)), None
    local = [one for one in found.servers if ":" not in one]
    return attrs.evolve(found, servers=(gateway,)), local[0] if local else "127.0.0.1"


def _chains(
    name: str, own: str, gateway: str, server: str | None, publish: Sequence[Publish]
) -> list[nft.Chain]:
    """Return the rules of an app whose outer veth is ``name`` and whose address is ``own``."""
    in_, out, loopback = nft.comes_in(name), nft.goes_out(name), "127.0.0.0/8"
    published = [
        nft.is_local()
        + (nft.to(one.address) if one.address else b"")
        + nft.port(one.protocol, one.host)
        + nft.dnat(own, one.inside)
        for one in publish
    ]
    resolver = [
        in_ + nft.to(gateway) + nft.port(protocol, _DNS) + nft.dnat(server, _DNS)
        for protocol in ("udp", "tcp")
        if server is not None
    ]
    return [
        # The machine's loopback is not to be had by a forged address, though what it says may come back to us.
        nft.Chain(
            "raw",
            "filter",
            "prerouting",
            _RAW,
            [in_ + nft.to(loopback) + nft.drop(), in_ + nft.from_(own, other=True) + nft.drop()],
        ),
        nft.Chain("dstnat", "nat", "prerouting", _DSTNAT, [*resolver, *published]),
        nft.Chain("output", "nat", "output", _DSTNAT, published),
        # A resolver of the machine's own answers nobody but the machine.
        nft.Chain("resolver", "nat", "input", _SRCNAT, [in_ + nft.to(loopback) + nft.snat("127.0.0.1")]),
        # Of the machine itself an app reaches what is published, and what it was asked by.
        nft.Chain(
            "input",
            "filter",
            "input",
            _FILTER,
            [in_ + nft.is_known() + nft.accept(), in_ + nft.is_dnat() + nft.accept(), in_ + nft.reject()],
        ),
        # Nobody begins to talk to it, other apps and the machine's neighbours included, but by a published port.
        nft.Chain(
            "forward",
            "filter",
            "forward",
            _FILTER,
            [out + nft.is_known() + nft.accept(), out + nft.is_dnat() + nft.accept(), out + nft.reject()],
        ),
        nft.Chain(
            "srcnat",
            "nat",
            "postrouting",
            _SRCNAT,
            [nft.from_(own) + nft.masquerade(), out + nft.from_(loopback) + nft.masquerade()],
        ),
    ]


def _configure(ip: Any, net_fd: int, name: str, subnet: ipaddress.IPv4Network) -> tuple[str, str]:
    """Give both ends their addresses; return those of the machine's end and of the app's."""
    from pyroute2 import IPRoute

    gateway, own = (str(address) for address in subnet.hosts())
    netns.set_sysctls(
        {f"ipv6/conf/{name}/disable_ipv6": "1", f"ipv4/conf/{name}/route_localnet": "1"}
    )  # for published ports and a resolver at 127.0.0.1
    _up(ip, name, gateway)
    with netns.inside(net_fd):
        netns.set_sysctls({"ipv6/conf/eth0/disable_ipv6": "1"})
        with IPRoute() as inner:
            _up(inner, "eth0", own)
            inner.route("add", dst="0.0.0.0/0", gateway=gateway)
    return gateway, own


def _rules(name: str, chains: Sequence[nft.Chain]) -> int:
    try:
        return nft.make_table(name, chains)
    except OSError as error:
        hint = None
        if error.errno in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.ENOENT, errno.EINVAL):
            hint = "it takes Linux 5.12 with nftables: `modprobe -a nf_tables nft_nat nft_masq nft_fib_inet nft_ct`"
        raise LaunchError(
            f"cannot make the rules of a private network: {error.strerror}", hint=hint
        ) from None


def make(app_id: str, publish: Sequence[Publish], resolver: Resolver) -> Private:
    """Make a private network; the caller closes the descriptors, and with the last copies of them it goes.

    Raises `LaunchError`: a port is taken, the kernel or the privileges do not suffice, no addresses are left.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    held: list[int] = []
    net_fd = -1
    try:
        for one in publish:
            held.append(_reserve(one).detach())
        net_fd = netns.make()
        with IPRoute() as ip:
            own_addresses = _own_addresses(ip)
            name, subnet = _pair(ip, net_fd, zlib.crc32(app_id.encode()))
            gateway, own = _configure(ip, net_fd, name, subnet)
        inside, server = _resolver(resolver, own_addresses, gateway)
        held.append(_rules(name, _chains(name, own, gateway, server, publish)))
        _forward()
        return Private(net_fd, tuple(held), own, inside)
    except BaseException as error:
        for fd in (net_fd, *held):
            if fd >= 0:
                os.close(fd)
        if isinstance(error, NetlinkError):
            hint = "in a container this takes CAP_NET_ADMIN" if error.code == errno.EPERM else None
            said = os.strerror(error.code)
            raise LaunchError(f"cannot make a private network: {said}", hint=hint) from None
        if isinstance(error, OSError) and not isinstance(error, LaunchError):
            raise LaunchError(f"cannot make a private network: {error}") from None
        raise
