"""Rules of nftables that the kernel takes away with a descriptor: the table is owned by the socket that made it.

pyroute2 carries the messages; the expressions are encoded here, for its own classes of them differ between its
versions. Constants are those of the kernel's include/uapi/linux/netfilter/nf_tables.h. See nft(8).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

import attrs

__all__ = [
    "Chain",
    "accept",
    "comes_in",
    "dnat",
    "drop",
    "from_",
    "goes_out",
    "is_dnat",
    "is_known",
    "is_local",
    "make_table",
    "masquerade",
    "port",
    "reject",
    "snat",
    "to",
]

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BEGIN, _END = 0x10, 0x11
_TABLE, _CHAIN, _RULE = 0, 3, 6
_REQUEST, _ACK, _CREATE, _EXCL, _APPEND = 0x1, 0x4, 0x400, 0x200, 0x800
_OWNER = 2  # NFT_TABLE_F_OWNER, since Linux 5.12
_INET, _IPV4 = 1, 2
_EQUAL, _OTHER = 0, 1
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


def _attr(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _number(kind: int, value: int) -> bytes:
    return _attr(kind, struct.pack(">i", value) if value < 0 else struct.pack(">I", value))


def _text(kind: int, value: str) -> bytes:
    return _attr(kind, value.encode() + b"\0")


def _expression(name: str, *attributes: bytes) -> bytes:
    return _attr(1, _text(1, name) + _attr(2, b"".join(attributes)))


def _compare(value: bytes, operation: int = _EQUAL) -> bytes:
    return _expression("cmp", _number(1, 1), _number(2, operation), _attr(3, _attr(1, value)))


def _meta(key: int, value: bytes, operation: int = _EQUAL) -> bytes:
    return _expression("meta", _number(1, 1), _number(2, key)) + _compare(value, operation)


def _payload(base: int, offset: int, size: int) -> bytes:
    return _expression("payload", *(_number(i + 1, value) for i, value in enumerate((1, base, offset, size))))


def _masked(mask: bytes) -> bytes:
    size = len(mask)
    words = [_number(i + 1, value) for i, value in enumerate((1, 1, size))]
    return _expression("bitwise", *words, _attr(4, _attr(1, mask)), _attr(5, _attr(1, b"\0" * size)))


def _address(offset: int, network: str, operation: int) -> bytes:
    address, _, bits = network.partition("/")
    value = socket.inet_aton(address)
    loaded = _meta(15, bytes([_IPV4])) + _payload(1, offset, 4)  # NFT_META_NFPROTO; the network header
    if bits:
        loaded += _masked(struct.pack(">I", 0xFFFFFFFF << (32 - int(bits)) & 0xFFFFFFFF))
    return loaded + _compare(value, operation)


def from_(network: str, *, other: bool = False) -> bytes:
    """Match the source, an address or ADDRESS/BITS; with ``other``: any other."""
    return _address(12, network, _OTHER if other else _EQUAL)


def to(network: str) -> bytes:
    """Match the destination, an address or ADDRESS/BITS."""
    return _address(16, network, _EQUAL)


def port(protocol: str, number: int) -> bytes:
    """Match the port of the destination; ``protocol`` is tcp or udp."""
    # NFT_META_L4PROTO; the transport header.
    return _meta(16, bytes([_PROTOCOLS[protocol]])) + _payload(2, 2, 2) + _compare(struct.pack(">H", number))


def comes_in(interface: str) -> bytes:
    """Match what comes in by an interface."""
    return _meta(6, interface.encode().ljust(16, b"\0"))


def goes_out(interface: str) -> bytes:
    """Match what goes out by an interface."""
    return _meta(7, interface.encode().ljust(16, b"\0"))


def is_local() -> bytes:
    """Match what is for one of the machine's own addresses."""
    # NFT_FIB_RESULT_ADDRTYPE of NFTA_FIB_F_DADDR; RTN_LOCAL
    return _expression("fib", _number(1, 1), _number(2, 3), _number(3, 2)) + _compare(struct.pack("=I", 2))


def _tracked(key: int, mask: int) -> bytes:
    loaded = _expression("ct", _number(1, 1), _number(2, key)) + _masked(struct.pack("=I", mask))
    return loaded + _compare(struct.pack("=I", 0), _OTHER)


def is_known() -> bytes:
    """Match what belongs to a connection that was let through before, or is an error of one."""
    return _tracked(0, 2 | 4)


def is_dnat() -> bytes:
    """Match what a rule has sent elsewhere than it was meant for."""
    return _tracked(2, 1 << 5)


def _verdict(code: int) -> bytes:
    return _expression("immediate", _number(1, 0), _attr(2, _attr(2, _number(1, code))))


def drop() -> bytes:
    """Let it vanish."""
    return _verdict(0)


def accept() -> bytes:
    """Let it pass this chain."""
    return _verdict(1)


def reject() -> bytes:
    """Say that it is prohibited."""
    return _expression("reject", _number(1, 2), _attr(2, b"\3"))


def masquerade() -> bytes:
    """Let it go out under the machine's own address."""
    return _expression("masq")


def _nat(kind: int, address: str, number: int | None) -> bytes:
    loaded = _expression("immediate", _number(1, 1), _attr(2, _attr(1, socket.inet_aton(address))))
    words = [_number(1, kind), _number(2, _IPV4), _number(3, 1)]
    if number is not None:
        value = struct.pack(">H", number)
        loaded += _expression("immediate", _number(1, 2), _attr(2, _attr(1, value)))
        words.append(_number(5, 2))
    return loaded + _expression("nat", *words)


def dnat(address: str, number: int) -> bytes:
    """Send it to an address and a port."""
    return _nat(1, address, number)


def snat(address: str) -> bytes:
    """Let it come from an address."""
    return _nat(0, address, None)


@attrs.frozen
class Chain:
    """A base chain: ``kind`` is filter or nat, ``hook`` the kernel's name, ``rules`` are expressions, concatenated."""

    name: str
    kind: str
    hook: str
    priority: int
    rules: Sequence[bytes]


def _attributes(name: str, chains: Sequence[Chain]) -> list[tuple[int, list[tuple[int, bytes]]]]:
    """Return the messages that make a table: a type, and attributes by number."""
    table = name.encode() + b"\0"
    messages = [(_TABLE, [(1, table), (2, struct.pack(">I", _OWNER))])]
    for chain in chains:
        hook = _number(1, _HOOKS.index(chain.hook)) + _number(2, chain.priority)
        named, kind = chain.name.encode() + b"\0", chain.kind.encode() + b"\0"
        messages.append((_CHAIN, [(1, table), (3, named), (4, hook), (7, kind)]))
        messages += [(_RULE, [(1, table), (2, named), (4, rule)]) for rule in chain.rules]
    return messages


def make_table(name: str, chains: Sequence[Chain]) -> int:
    """Make a table in the current network namespace, whole or not at all; return the descriptor that holds it.

    Raises `OSError`; EOPNOTSUPP and its kin where the kernel has no nftables, EEXIST where there is such a table.
    """
    from pyroute2.netlink.exceptions import NetlinkError
    from pyroute2.netlink.nfnetlink import nfgen_msg
    from pyroute2.netlink.nfnetlink.nftsocket import NFTSocket

    class _Message(nfgen_msg):  # type: ignore[misc]
        nla_map = tuple((f"A{i}", "cdata") for i in range(16))

    def message(kind: int, flags: int, attributes: Sequence[tuple[int, bytes]], resource: int = 0) -> object:
        made = _Message()
        made["header"]["type"], made["header"]["flags"] = kind, _REQUEST | flags
        made["nfgen_family"], made["version"], made["res_id"] = _INET, 0, resource
        made["attrs"] = [(f"A{number}", value) for number, value in attributes]
        return made

    batch = [message(_BEGIN, 0, (), _SUBSYSTEM)]
    for kind, attributes in _attributes(name, chains):
        flags = _CREATE | (_APPEND if kind == _RULE else _EXCL)
        batch.append(message(_SUBSYSTEM << 8 | kind, flags | _ACK, attributes))
    batch.append(message(_END, 0, (), _SUBSYSTEM))
    with NFTSocket() as nft:
        try:
            nft.nlm_request_batch(batch)
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from None
        return os.dup(nft.fileno())
