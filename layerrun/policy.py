"""What a sandbox may reach, as data: the policy that was asked for, and the grants that it comes to.

A `Policy` is a preset and what was said beside it. `Policy.grants` works out what that gives, and remembers of each
grant where it came from. Nothing here touches the machine: whether a device is there, or a limit can be kept, is seen
when a start is compiled. Sizes are bytes. See docs/security.md.
"""

from __future__ import annotations

import enum
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import attrs

from layerrun.errors import UsageError

__all__ = [
    "CAPABILITIES",
    "DEVICES",
    "FEATURES",
    "PRESETS",
    "RLIMITS",
    "SOCKETS",
    "Grant",
    "Grants",
    "Limit",
    "Network",
    "NetworkKind",
    "Policy",
    "Preset",
    "Publish",
    "Socket",
    "format_size",
    "parse_size",
]

T = TypeVar("T")

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
    found = re.fullmatch(r"([0-9]{1,15})(?:\.([0-9]{1,3}))?([KMGTkmgt])?(?:i?[Bb])?", text)
    if not found:
        raise UsageError(f"bad {what} {text!r}", hint="write a number of bytes, or 64K, 64M, 64G, 64T")
    unit = 1024 ** ("KMGT".index(found[3].upper()) + 1) if found[3] else 1
    part = int(found[2]) * unit // 10 ** len(found[2]) if found[2] else 0
    return int(found[1]) * unit + part


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


def _device(text: str) -> str:
    if text in DEVICES:
        return text
    if not text.startswith("/dev/") or posixpath.normpath(text) != text or "\0" in text:
        raise UsageError(f"bad device {text!r}", hint="a path below /dev, or one of: " + ", ".join(DEVICES))
    return text


def _word(text: str, *, deny: bool) -> str:
    """Check a word of ``--allow`` or ``--deny``: a feature, ``cap:NAME``, ``syscall:NAME``; a socket, a device."""
    kind, colon, name = text.partition(":")
    if not colon and kind in FEATURES:
        return text
    if kind == "cap" and name.lower().removeprefix("cap_") in CAPABILITIES:
        return f"cap:{name.lower().removeprefix('cap_')}"
    if kind == "syscall" and name:
        from layerrun.syscalls import check  # seldom needed

        return f"syscall:{check(name)}"
    if deny and kind == "socket" and name in SOCKETS:
        return text
    if deny and kind == "device":
        return f"device:{_device(name)}"
    known = ", ".join(FEATURES) + ", cap:NAME, syscall:NAME" + (", socket:KIND, device:NAME" if deny else "")
    raise UsageError(f"bad word {text!r} to {'deny' if deny else 'allow'}", hint=f"one of: {known}")


_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?")


def _user(text: str | None) -> str | None:
    if text is not None and not _USER.fullmatch(text):
        raise UsageError(f"bad user {text!r}", hint="write USER or USER:GROUP, names or numbers")
    return text


def _each(parse: Callable[[Any], T], values: Iterable[Any]) -> tuple[T, ...]:
    if isinstance(values, str):
        raise UsageError(f"bad value {values!r}: a list is wanted")
    return tuple(dict.fromkeys(parse(value) for value in values))


def _network(value: str | Network | None) -> Network | None:
    return None if value is None else Network.parse(value)


def _publish(values: Iterable[Any]) -> tuple[Publish, ...]:
    return _each(Publish.parse, values)


def _sockets(values: Iterable[Any]) -> tuple[Socket, ...]:
    return tuple({one.kind: one for one in _each(Socket.parse, values)}.values())


def _devices(values: Iterable[Any]) -> tuple[str, ...]:
    return _each(_device, values)


def _allow(values: Iterable[Any]) -> tuple[str, ...]:
    return _each(lambda word: _word(word, deny=False), values)


def _deny(values: Iterable[Any]) -> tuple[str, ...]:
    return _each(lambda word: _word(word, deny=True), values)


def _limits(values: Iterable[Any]) -> tuple[Limit, ...]:
    return tuple({one.name: one for one in _each(Limit.parse, values)}.values())


def _max_size(value: int | str | None) -> int | None:
    return parse_size(value, "max_size") if isinstance(value, str) else value


@attrs.frozen
class Preset:
    """What is granted if nothing else is said."""

    meaning: str
    network: NetworkKind = NetworkKind.HOST
    sockets: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    features: tuple[str, ...] = ("ptrace",)
    capabilities: tuple[str, ...] = ()
    limits: tuple[str, ...] = ("core=0:unlimited",)


# What a package manager and its maintainer scripts need within their own ids, and no more.
_PACKAGES = tuple(
    "chown dac_override fowner fsetid kill setgid setuid net_bind_service sys_chroot setfcap".split()
)

PRESETS: Mapping[str, Preset] = {
    "strict": Preset(
        "no network, no capabilities, no debuggers, at most 1,024 processes",
        network=NetworkKind.NONE,
        features=(),
        limits=("core=0", "pids=1024"),
    ),
    "default": Preset("the machine's network; nothing of the session", capabilities=_PACKAGES),
    "desktop": Preset(
        "windows, sound, graphics card, the session's portals",
        sockets=("wayland", "fallback-x11", "pulse", "pipewire", "session-bus:talk=org.freedesktop.portal.*"),
        devices=("dri",),
        capabilities=_PACKAGES,
    ),
    "service": Preset(
        "for daemons: no debuggers, at most 4,096 processes",
        features=(),
        capabilities=_PACKAGES,
        limits=("core=0", "pids=4096"),
    ),
    "build": Preset("for building software: no network", network=NetworkKind.NONE, capabilities=_PACKAGES),
}


def _preset(name: str) -> str:
    if name not in PRESETS:
        raise UsageError(f"no preset is called {name!r}", hint="one of: " + ", ".join(PRESETS))
    return name


@attrs.frozen
class Grant:
    """One thing that is granted (or, for a ``limit``, imposed), and where that came from.

    ``kind`` is ``network``, ``publish``, ``socket``, ``device``, ``feature``, ``capability``, ``syscall`` (allowed),
    ``no-syscall`` (denied), ``limit``, ``user`` or ``size``; ``value`` is as the option's.
    """

    kind: str
    value: str
    origin: str


@attrs.frozen
class Grants:
    """What a policy comes to. `of` gives the values of a kind, ``origins`` where each came from."""

    network: Network
    publish: tuple[Publish, ...]
    sockets: tuple[Socket, ...]
    limits: Mapping[str, Limit]
    user: str | None
    max_size: int | None
    all: tuple[Grant, ...]

    def of(self, kind: str) -> list[str]:
        """Return the values of all grants of a kind."""
        return [grant.value for grant in self.all if grant.kind == kind]

    def has(self, feature: str) -> bool:
        """Say whether a feature is granted."""
        return feature in self.of("feature")

    @property
    def devices(self) -> list[str]:
        """The devices: names of `DEVICES`, or paths."""
        return self.of("device")

    @property
    def capabilities(self) -> int:
        """The capabilities as a mask: bit N is capability N."""
        return sum(1 << CAPABILITIES.index(name) for name in self.of("capability"))


@attrs.frozen
class Policy:
    """A preset, and what was asked for beside it. What is denied is denied, whatever is allowed beside it."""

    preset: str = attrs.field(default="default", converter=_preset)
    network: Network | None = attrs.field(default=None, converter=_network)
    publish: tuple[Publish, ...] = attrs.field(default=(), converter=_publish)
    sockets: tuple[Socket, ...] = attrs.field(default=(), converter=_sockets)
    devices: tuple[str, ...] = attrs.field(default=(), converter=_devices)
    allow: tuple[str, ...] = attrs.field(default=(), converter=_allow)
    deny: tuple[str, ...] = attrs.field(default=(), converter=_deny)
    limits: tuple[Limit, ...] = attrs.field(default=(), converter=_limits)
    user: str | None = attrs.field(default=None, converter=_user)
    max_size: int | None = attrs.field(default=None, converter=_max_size)

    def __attrs_post_init__(self) -> None:
        if self.publish and self.grants().network.kind is not NetworkKind.PRIVATE:
            raise UsageError(
                f"ports can be published of a private network only, and this one is {self.grants().network}",
                hint="--network private",
            )
        if self.max_size is not None and self.max_size < 1024**2:
            raise UsageError(f"bad size {self.max_size}: it must be at least 1M")
        contrary = sorted(set(self.allow) & set(self.deny))
        if contrary:
            raise UsageError(f"{contrary[0]} is both allowed and denied")

    def _preset_grants(self) -> Iterator[Grant]:
        preset, origin = PRESETS[self.preset], f"the preset {self.preset}"
        kinds = {
            "socket": preset.sockets,
            "device": preset.devices,
            "feature": preset.features,
            "capability": preset.capabilities,
            "limit": preset.limits,
        }
        if self.network is None:
            yield Grant("network", preset.network.value, origin)
        for kind, values in kinds.items():
            for value in values:
                yield Grant(kind, value, origin)

    def _asked(self) -> Iterator[Grant]:
        if self.network is not None:
            yield Grant("network", str(self.network), f"--network {self.network}")
        for kind, option, values in (
            ("publish", "publish", self.publish),
            ("socket", "socket", self.sockets),
            ("device", "device", self.devices),
            ("limit", "limit", self.limits),
        ):
            for value in values:
                yield Grant(kind, str(value), f"--{option} {value}")
        for word in self.allow:
            kind, _, name = word.rpartition(":")
            yield Grant({"": "feature", "cap": "capability"}.get(kind, kind), name, f"--allow {word}")
        for word in self.deny:
            if word.startswith("syscall:"):
                yield Grant("no-syscall", word.partition(":")[2], f"--deny {word}")
        if self.user is not None:
            yield Grant("user", self.user, f"--user {self.user}")
        if self.max_size is not None:
            yield Grant("size", format_size(self.max_size), f"--max-size {format_size(self.max_size)}")

    def grants(self) -> Grants:
        """Return what the policy comes to: the later of two grants of the same thing counts, a denial over both."""
        found: dict[tuple[str, str], Grant] = {}
        for grant in (*self._preset_grants(), *self._asked()):
            # Of a socket or a limit there is one; what it is called stands before the first : or =.
            what = (
                re.split("[:=]", grant.value, maxsplit=1)[0]
                if grant.kind in ("socket", "limit")
                else grant.value
            )
            found.pop((grant.kind, what), None)
            found[grant.kind, what] = grant
        for word in self.deny:
            kind, _, name = word.partition(":")
            found.pop(("feature", kind) if not name else ({"cap": "capability"}.get(kind, kind), name), None)
        every = tuple(found.values())
        limits = [Limit.parse(grant.value) for grant in every if grant.kind == "limit"]
        return Grants(
            network=next(Network.parse(grant.value) for grant in every if grant.kind == "network"),
            publish=self.publish,
            sockets=tuple(Socket.parse(grant.value) for grant in every if grant.kind == "socket"),
            limits={limit.name: limit for limit in limits},
            user=self.user,
            max_size=self.max_size,
            all=every,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data with every field; what is written as an option's value is a string."""
        return {
            "preset": self.preset,
            "network": None if self.network is None else str(self.network),
            "publish": [str(value) for value in self.publish],
            "sockets": [str(value) for value in self.sockets],
            "devices": list(self.devices),
            "allow": list(self.allow),
            "deny": list(self.deny),
            "limits": [str(value) for value in self.limits],
            "user": self.user,
            "max_size": self.max_size,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """Make a policy from what `to_json` gave; unknown keys raise `UsageError`."""
        unknown = set(data) - {field.name for field in attrs.fields(cls)}
        if unknown:
            raise UsageError(f"unknown keys of the policy: {', '.join(sorted(unknown))}")
        return cls(**data)
