"""The words of a policy, each as a value: sizes, networks, ports, sockets, limits, and what they may be called.

Pure data, validated at the door. Sizes are bytes. `layerrun.policy` puts them together.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

import attrs

from layerrun.errors import UsageError

__all__ = [
    "CAPABILITIES",
    "DEVICES",
    "FEATURES",
    "RLIMITS",
    "SOCKETS",
    "UNLIMITED",
    "Limit",
    "Network",
    "NetworkKind",
    "Publish",
    "Socket",
    "format_size",
    "parse_size",
]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}(@[a-z0-9][a-z0-9._-]{0,62})?")

# capabilities(7), by number.
CAPABILITIES = (
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service "
    "net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin "
    "sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override "
    "mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore"
).split()

FEATURES: Mapping[str, str] = {
    "abstract-sockets": "connect to abstract sockets of the host, where the network is the host's",
    "bpf": "bpf(2)",
    "groups": "the caller's supplementary groups are kept, and what files grant them",
    "io-uring": "io_uring(7)",
    "keyring": "the kernel's keyrings, keyrings(7): an empty one of its own",
    "nesting": "user namespaces of its own, and mounts in them: Chromium's sandbox, bubblewrap, layerrun",
    "perf": "perf_event_open(2)",
    "ptrace": "debuggers, among its own processes: ptrace(2), process_vm_readv(2)",
    "setuid": "setuid programs and file capabilities work, within the sandbox's own ids",
    "sysfs": "/sys, read-only",
    "userfaultfd": "userfaultfd(2)",
}

SOCKETS: Mapping[str, str] = {
    "wayland": "show windows, by Wayland",
    "x11": "show windows, by X11: it can see what other X11 programs show and what is typed into them",
    "fallback-x11": "x11, where there is no Wayland",
    "pulse": "play and record sound, by PulseAudio",
    "pipewire": "sound and video streams, by PipeWire",
    "session-bus": "the session's D-Bus, through a filter",
}

DEVICES: Mapping[str, str] = {
    "dri": "graphics cards: /dev/dri",
    "fuse": "/dev/fuse",
    "input": "keyboards, mice and joysticks: /dev/input",
    "kvm": "virtual machines: /dev/kvm",
    "sound": "sound cards, past any sound server: /dev/snd",
    "tun": "tunnels: /dev/net/tun",
    "usb": "USB devices: /dev/bus/usb",
    "video": "cameras: /dev/video*, /dev/media*",
}

# getrlimit(2): the kernel's numbers. ``cpu`` is the cgroup's, so the time in seconds is called cputime.
RLIMITS: Mapping[str, int] = {
    "cputime": 0,
    "fsize": 1,
    "data": 2,
    "stack": 3,
    "core": 4,
    "rss": 5,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "as": 9,
    "locks": 10,
    "sigpending": 11,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
    "rttime": 15,
}
_RLIMITS_IN_BYTES = {"fsize", "data", "stack", "core", "rss", "memlock", "as", "msgqueue"}
UNLIMITED = 2**64 - 1


def parse_size(text: str, what: str = "size") -> int:
    """Return the bytes that ``text`` means: a number, and K, M, G or T for powers of 1,024."""
    found = re.fullmatch(r"([0-9]{1,20})(?:\.([0-9]{1,3}))?([KMGTkmgt])?(?:i?[Bb])?", text)
    if not found:
        raise UsageError(f"bad {what} {text!r}", hint="write a number of bytes, or 64K, 64M, 64G, 64T")
    unit = 1024 ** ("KMGT".index(found[3].upper()) + 1) if found[3] else 1
    part = int(found[2]) * unit // 10 ** len(found[2]) if found[2] else 0
    size = int(found[1]) * unit + part
    if size > 2**63 - 1:
        raise UsageError(f"bad {what} {text!r}: it is more than any file may have")
    return size


def format_size(size: int) -> str:
    """Return ``size`` in the largest unit in which it is a whole number, as `parse_size` reads it."""
    for power, unit in ((4, "T"), (3, "G"), (2, "M"), (1, "K")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)


class NetworkKind(enum.StrEnum):
    """What an app reaches by network.

    HOST     the machine's network as it is.
    NONE     a loopback of its own.
    PRIVATE  a network of its own, with a way out; what is published can be reached from outside.
    LINK     another app, and nothing else.
    """

    HOST = "host"
    NONE = "none"
    PRIVATE = "private"
    LINK = "link"


@attrs.frozen
class Network:
    """A `NetworkKind`, and for a link the app at its other end."""

    kind: NetworkKind = NetworkKind.HOST
    other: str | None = None

    @classmethod
    def parse(cls, text: str | Network) -> Network:
        """Make one from ``host``, ``none``, ``private`` or ``link:APP``."""
        if isinstance(text, Network):
            return text
        kind, colon, other = text.partition(":")
        if kind == NetworkKind.LINK and _NAME.fullmatch(other):
            return cls(NetworkKind.LINK, other)
        if kind not in tuple(NetworkKind) or kind == NetworkKind.LINK or colon:
            raise UsageError(f"bad network {text!r}", hint="write host, none, private or link:APP")
        return cls(NetworkKind(kind))

    def __str__(self) -> str:
        return f"{self.kind}:{self.other}" if self.other else self.kind.value


def _port(text: str, whole: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise UsageError(f"bad port {text!r} in {whole!r}", hint="a port is a number from 1 to 65535")
    return int(text)


def _address(text: str, whole: str) -> str:
    import ipaddress  # slow, and seldom needed

    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise UsageError(f"bad port {whole!r}: {error}") from None


@attrs.frozen
class Publish:
    """A port of the machine that leads to one inside. ``address`` is an IP address of the machine, "" any."""

    host: int
    inside: int
    protocol: str = "tcp"
    address: str = ""

    @classmethod
    def parse(cls, text: str | Publish) -> Publish:
        """Make one from ``[ADDRESS:]HOST[:INSIDE][/tcp|/udp]``; an IPv6 address stands in brackets."""
        if isinstance(text, Publish):
            return text
        found = re.fullmatch(r"(?:(\[[^]]*\]|[0-9.]+\.[0-9]+):)?([^:/]*)(?::([^:/]*))?(?:/(.*))?", text)
        if not found or (found[4] or "tcp") not in ("tcp", "udp"):
            raise UsageError(f"bad port {text!r}", hint="write [ADDRESS:]HOST[:INSIDE][/udp], as in 8080:80")
        address = _address(found[1].strip("[]"), text) if found[1] else ""
        host = _port(found[2], text)
        return cls(host, host if found[3] is None else _port(found[3], text), found[4] or "tcp", address)

    def __str__(self) -> str:
        address = f"[{self.address}]:" if ":" in self.address else f"{self.address}:" if self.address else ""
        return f"{address}{self.host}:{self.inside}" + ("" if self.protocol == "tcp" else f"/{self.protocol}")


_BUS_RULE = re.compile(r"(talk|own|see|call|broadcast)=([A-Za-z0-9_.*@/=:-]{1,400})")


@attrs.frozen
class Socket:
    """A socket of the session, by its kind; for the bus also what it may do there, as xdg-dbus-proxy(1) has it."""

    kind: str
    rules: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | Socket) -> Socket:
        """Make one from ``KIND`` or ``session-bus:talk=NAME,own=NAME,…``."""
        if isinstance(text, Socket):
            return text
        kind, _, rest = text.partition(":")
        if kind not in SOCKETS:
            raise UsageError(f"bad socket {kind!r}", hint="one of: " + ", ".join(SOCKETS))
        rules = tuple(rest.split(",")) if rest else ()
        if rules and kind != "session-bus":
            raise UsageError(f"bad socket {text!r}: {kind} has no rules")
        for rule in rules:
            if not _BUS_RULE.fullmatch(rule):
                raise UsageError(
                    f"bad rule {rule!r} for the session's bus",
                    hint="write talk=NAME, own=NAME, see=NAME, call=NAME=RULE or broadcast=NAME=RULE",
                )
        return cls(kind, rules)

    def __str__(self) -> str:
        return f"{self.kind}:{','.join(self.rules)}" if self.rules else self.kind


@attrs.frozen
class Limit:
    """A limit: ``memory`` and ``swap`` in bytes, ``pids``, ``cpu`` in processors, ``io`` in bytes a second; an rlimit.

    ``soft`` is the value in its unit, ``cpu`` in thousandths; of rlimits ``hard`` may differ. `UNLIMITED` is none.
    """

    name: str
    soft: int
    hard: int

    @classmethod
    def parse(cls, text: str | Limit) -> Limit:
        """Make one from ``NAME=VALUE``, or ``NAME=SOFT:HARD`` for an rlimit."""
        if isinstance(text, Limit):
            return text
        name, equals, value = text.partition("=")
        if name not in _LIMITS or not equals:
            raise UsageError(
                f"bad limit {text!r}", hint="write NAME=VALUE, NAME one of: " + ", ".join(_LIMITS)
            )
        soft, colon, hard = value.partition(":")
        if colon and name not in RLIMITS:
            raise UsageError(f"bad limit {text!r}: {name} has one value")
        one = cls._value(name, soft)
        two = cls._value(name, hard) if colon else one
        if one > two:
            raise UsageError(f"bad limit {text!r}: what is soft is more than what is hard")
        return cls(name, one, two)

    @staticmethod
    def _value(name: str, text: str) -> int:
        if text in ("unlimited", "infinity", "max"):
            return UNLIMITED
        if name in ("memory", "swap", "io") or name in _RLIMITS_IN_BYTES:
            value = parse_size(text, f"limit {name}")
        elif name == "cpu":
            found = re.fullmatch(r"([0-9]{1,5})(?:\.([0-9]{1,3}))?", text)
            value = int(found[1]) * 1000 + int((found[2] or "").ljust(3, "0")) if found else 0
        else:
            value = int(text) if re.fullmatch(r"[0-9]{1,18}", text) else -1
        if value < 0 or (value == 0 and name in ("memory", "pids", "cpu", "io")):
            raise UsageError(f"bad value {text!r} of the limit {name}")
        return value

    def _shown(self, value: int) -> str:
        if value == UNLIMITED:
            return "unlimited"
        if self.name == "cpu":
            return f"{value / 1000:g}"
        return (
            format_size(value) if self.name not in RLIMITS or self.name in _RLIMITS_IN_BYTES else str(value)
        )

    def __str__(self) -> str:
        text = f"{self.name}={self._shown(self.soft)}"
        return text if self.soft == self.hard else f"{text}:{self._shown(self.hard)}"


_LIMITS = ("memory", "swap", "pids", "cpu", "io", *RLIMITS)
