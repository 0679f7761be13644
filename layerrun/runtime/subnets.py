"""Subnets of four addresses that the machine does not use otherwise."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["LINKS", "OURS", "PRIVATE", "free_subnets"]

# Each is cut into subnets, numbered through. What the machine has or reaches otherwise is left out.
PRIVATE = ("10.213.0.0/16", "172.30.0.0/16", "192.168.208.0/20", "10.87.0.0/16")
LINKS = ("10.212.0.0/16", "172.29.0.0/16", "192.168.224.0/20", "10.86.0.0/16")
OURS = "layerrun"  # what the names of the outer veths begin with
_SUBNET = 30


def _networks(ip: Any) -> Iterator[ipaddress.IPv4Network]:
    """Yield what the machine has or routes, what is layerrun's own and the way out apart."""
    names = {link["index"]: link.get_attr("IFLA_IFNAME") for link in ip.get_links()}
    found = [
        (address["index"], address.get_attr("IFA_LOCAL"), address["prefixlen"])
        for address in ip.get_addr(family=socket.AF_INET)
    ]
    found += [
        (route.get_attr("RTA_OIF"), route.get_attr("RTA_DST"), route["dst_len"])
        for route in ip.get_routes(family=socket.AF_INET)
    ]
    for index, address, bits in found:
        # A route of one bit is half of a way out, as tunnels have it.
        if address and bits > 1 and not str(names.get(index, "")).startswith(OURS):
            yield ipaddress.IPv4Network((address, bits), strict=False)


def free_subnets(
    ip: Any, pools: Sequence[str], wanted: int = 0
) -> Iterator[tuple[int, ipaddress.IPv4Network]]:
    """Yield the subnets that the machine does not use, each with its number, from about ``wanted`` on."""
    used, base = list(_networks(ip)), 0
    for text in pools:
        pool = ipaddress.IPv4Network(text)
        count = 1 << _SUBNET - pool.prefixlen
        clashes = [network for network in used if network.overlaps(pool)]
        for i in range(count):
            number = (wanted + i) % count
            subnet = ipaddress.IPv4Network((int(pool[0]) + 4 * number, _SUBNET))
            if not any(map(subnet.overlaps, clashes)):
                yield base + number, subnet
        base += count
