"""What a sandbox may reach, as data: the policy that was asked for, and the grants that it comes to.

A `Policy` is a preset and what was said beside it. `Policy.grants` works out what that gives, and remembers of each
grant where it came from. Nothing here touches the machine: whether a device is there, or a limit can be kept, is seen
when a start is compiled. Sizes are bytes. See docs/security.md.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import attrs

from layerrun.errors import UsageError
from layerrun.terms import (
    CAPABILITIES,
    DEVICES,
    FEATURES,
    RLIMITS,
    SOCKETS,
    UNLIMITED,
    Limit,
    Network,
    NetworkKind,
    Publish,
    Socket,
    format_size,
    parse_size,
)

__all__ = [
    "CAPABILITIES",
    "DEVICES",
    "FEATURES",
    "PRESETS",
    "RLIMITS",
    "SOCKETS",
    "UNLIMITED",
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
