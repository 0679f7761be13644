"""The words of layerrun as values: pure data, validated at the door, no input or output.

Paths are ``str`` in the file system encoding with surrogateescape (``os.fsdecode``), so any bytes
survive; they are absolute and as seen inside the sandbox unless a name says ``source``.
Times are RFC 3339 strings in UTC. Sizes are bytes.
"""

from __future__ import annotations

import enum
import posixpath
import re
from collections.abc import Mapping
from typing import Any

import attrs

from layerrun.errors import UsageError
from layerrun.policy import Policy

__all__ = [
    "HOST_BASE",
    "App",
    "AppConfig",
    "AppKind",
    "Base",
    "BaseKind",
    "Home",
    "IdMode",
    "Layer",
    "Move",
    "Share",
    "Slot",
    "Snapshot",
    "Trial",
    "check_app_name",
    "check_name",
    "check_path",
]

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
HOST_BASE = "host"


def check_name(name: str, what: str = "name") -> str:
    """Return ``name`` if it may name an app, a throwaway or a base, else raise `UsageError`."""
    if "@" in name and what == "name":
        app, _, profile = name.partition("@")
        raise UsageError(
            f"bad name {name!r}: with @ it is the profile {profile!r} of the app {app!r}",
            hint=f"layerrun app {app} --profile {profile}",
        )
    if not NAME.fullmatch(name):
        raise UsageError(
            f"bad {what} {name!r}",
            hint="use 1 to 63 of a-z 0-9 . _ -, beginning with a letter or a digit",
        )
    return name


def check_app_name(name: str) -> tuple[str, str | None]:
    """Return the app and the profile that ``NAME`` or ``NAME@PROFILE`` names, else raise `UsageError`."""
    app, at, profile = name.partition("@")
    return check_name(app, "name of an app"), check_name(profile, "name of a profile") if at else None


def check_path(path: str, what: str = "path") -> str:
    """Return ``path`` normalised if it is an absolute path without ``..``, else raise `UsageError`."""
    if "\0" in path:
        raise UsageError(f"bad {what} {path!r}: it holds a NUL byte")
    if not path.startswith("/"):
        raise UsageError(f"bad {what} {path!r}: it must be absolute", hint="begin it with /")
    if ".." in path.split("/"):
        raise UsageError(f"bad {what} {path!r}: it must not contain '..'")
    return "/" + posixpath.normpath(path).strip("/")


class BaseKind(enum.StrEnum):
    """What a base is made of."""

    HOST = "host"
    TREE = "tree"
    IMAGE = "image"


class AppKind(enum.StrEnum):
    """Whether a layer has a name to stay (``app``) or waits to be judged (``throwaway``).

    A ``spare`` is a throwaway made ready in advance. Nobody's data is in it, and no list shows it.
    """

    APP = "app"
    THROWAWAY = "throwaway"
    SPARE = "spare"


class Home(enum.StrEnum):
    """What an app sees as its home: the base's under the upper, an empty one of its own, or the real one."""

    OVERLAY = "overlay"
    FRESH = "fresh"
    SHARE = "share"


class IdMode(enum.StrEnum):
    """How ids inside relate to ids outside. It is fixed when an app is created: its files depend on it.

    RANGE    as root: a range of 65,536 ids of its own, layers mounted idmapped.
    SUBIDS   as a plain user: 0 is the caller, 1 and up the caller's subordinate ids.
    SINGLE   as a plain user: 0 is the caller and there is no other id.
    SELF     as a plain user: the caller's own id is itself and there is no other id.
    NONE     as root, asked for: no user namespace at all; an undo, not a jail.
    """

    RANGE = "range"
    SUBIDS = "subids"
    SINGLE = "single"
    SELF = "self"
    NONE = "none"

    @property
    def one_owner(self) -> bool:
        """Whether all files are the caller's: owners that a source has are at most noted."""
        return self in (IdMode.SINGLE, IdMode.SELF)

    @property
    def userxattr(self) -> bool:
        """Say whether overlayfs's marks are in its ``user.`` flavour in files of this mode, as a plain user's are."""
        return self in (IdMode.SUBIDS, IdMode.SINGLE, IdMode.SELF)


def _path(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    if check_path(value, attribute.name) != value:
        raise UsageError(f"bad {attribute.name} {value!r}: it is not normalised")


@attrs.frozen
class Share:
    """A host path bound into the sandbox; a reset never touches it."""

    source: str = attrs.field(validator=_path)
    target: str = attrs.field(validator=_path)
    readonly: bool = False

    @classmethod
    def parse(cls, text: str) -> Share:
        r"""Make a share from ``SRC[:DST][:ro]``; a colon within a path is written ``\:``."""
        parts = [p.replace("\\:", ":") for p in re.split(r"(?<!\\):", text)]
        readonly = len(parts) > 1 and parts[-1] in ("ro", "rw")
        mode = parts.pop() if readonly else "rw"
        if not 1 <= len(parts) <= 2 or not all(parts):
            raise UsageError(f"bad share {text!r}", hint="write SRC[:DST][:ro]")
        paths = [check_path(p, "share") for p in parts]
        if paths[-1] == "/":
            raise UsageError(f"bad share {text!r}: it would cover the whole root")
        return cls(source=paths[0], target=paths[-1], readonly=mode == "ro")

    def __str__(self) -> str:
        text = self.source.replace(":", "\\:")
        if self.target != self.source:
            text += ":" + self.target.replace(":", "\\:")
        return text + (":ro" if self.readonly else "")


@attrs.frozen
class AppConfig:
    """What an app is made of, apart from its data: its stack and its policy.

    ``health`` are command lines of /bin/sh: with all of them at 0 the app is well. A new version of its base must pass.
    """

    base: str = HOST_BASE
    layers: tuple[str, ...] = ()
    shares: tuple[Share, ...] = ()
    hides: tuple[str, ...] = ()
    home: Home = attrs.field(default=Home.OVERLAY, converter=Home)
    caches: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    health: tuple[str, ...] = ()
    policy: Policy = attrs.field(factory=Policy)

    def __attrs_post_init__(self) -> None:
        if not all(command.strip() and "\0" not in command for command in self.health):
            raise UsageError("a health command is empty")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data with every field, shares as ``SRC[:DST][:ro]``."""
        return {
            "base": self.base,
            "layers": list(self.layers),
            "shares": [str(share) for share in self.shares],
            "hides": list(self.hides),
            "home": self.home.value,
            "caches": list(self.caches),
            "command": list(self.command),
            "env": list(self.env),
            "health": list(self.health),
            "policy": self.policy.to_json(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> AppConfig:
        """Make a configuration from what `to_json` gave; unknown keys raise `UsageError`."""
        if not isinstance(data, dict):  # of a damaged catalog; dict() would make one of an empty list
            raise UsageError(f"not a configuration: {data!r}")
        data = dict(data)
        # Before there were policies the network stood by itself: host, the default, or none.
        if (network := data.pop("network", "host")) != "host":
            data["policy"] = {"network": network}
        unknown = set(data) - {field.name for field in attrs.fields(cls)}
        if unknown:
            raise UsageError(f"unknown configuration keys: {', '.join(sorted(unknown))}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        values["shares"] = tuple(Share.parse(share) for share in data.get("shares", ()))
        values["policy"] = Policy.from_json(data.get("policy", {}))
        return cls(**values)


@attrs.frozen
class App:
    """An app or a throwaway as the catalog has it.

    ``id`` names its folder in the store and never changes; ``name`` may. ``uid_start`` is the first
    host uid of its range (`IdMode.RANGE` only).

    A profile is an app of its own, called ``NAME@PROFILE``, with the configuration of the app whose id is
    ``parent``. One that is ``ephemeral`` is removed at the end of its only start.

    ``frozen`` are ids of layers, the lowest first: what were its uppers before snapshots. They lie above the
    layers of its configuration (its factory state), and are its data, not its profiles'.

    ``base_id`` is the version of its base that its next start has beneath it, ``None`` over the host's own /.
    """

    id: str
    name: str
    kind: AppKind
    config: AppConfig
    ids: IdMode
    uid_start: int | None
    created: str
    generation: int
    parent: str | None = None
    profile: str | None = None
    ephemeral: bool = False
    frozen: tuple[str, ...] = ()
    base_id: str | None = None

    @property
    def stack(self) -> tuple[str, ...]:
        """The layers between the base and the upper, the lowest first."""
        return self.config.layers + self.frozen

    @property
    def shown_name(self) -> str:
        """What the app is called to people and to what runs inside: spares and steps of builds have no names."""
        if self.is_step:
            return "build"
        return "try" if self.kind is AppKind.SPARE else self.name

    @property
    def is_step(self) -> bool:
        """Whether a step of a build runs in it."""
        return self.ephemeral and self.parent is None

    @property
    def parent_name(self) -> str | None:
        """The name of the app that this is a profile of."""
        return None if self.profile is None else self.name.removesuffix(f"@{self.profile}")


@attrs.frozen
class Base:
    """A version of a base as the catalog has it. The host base has no id on disk and no digest.

    ``name`` is the base's (its slot's), ``version`` counts from 1 within it and is never given again. ``origin``
    is what the source said of itself, JSON data: of an image ``reference``, ``digest`` and ``config``.
    One that is ``pinned`` is never removed by itself.
    """

    id: str
    name: str
    kind: BaseKind
    digest: str | None
    ids: IdMode | None
    source: str
    created: str
    entries: int
    size: int
    version: int = 1
    pinned: bool = False
    origin: Mapping[str, Any] = attrs.field(factory=dict, hash=False)

    @property
    def full_name(self) -> str:
        """NAME@VERSION, which names this version whatever the current one is."""
        return self.name if self.kind is BaseKind.HOST else f"{self.name}@{self.version}"


@attrs.frozen
class Slot:
    """A base as a name that moves from version to version.

    ``current`` and ``staged`` (to be switched to, or ``None``) are ids of its versions; ``keep`` is how many
    versions beside the current one are kept; ``health`` are commands that a new version must pass; ``failed`` says why
    the last update came to nothing, ``""`` if it did not. ``pending`` is a version that an update is looking at.
    ``tries``: of the trials that begin with what is staged.
    """

    name: str
    current: str
    last_version: int
    staged: str | None = None
    keep: int = 3
    health: tuple[str, ...] = ()
    failed: str = ""
    pending: str | None = None
    tries: int = 3


@attrs.frozen
class Move:
    """Something that happened to a base: ``what`` is update, switch, rollback, staged or failed.

    ``version`` is the one that it is about, ``earlier`` the one that was current before, ``None`` if it did not change.
    """

    slot: str
    number: int
    at: str
    what: str
    version: int
    earlier: int | None = None
    note: str = ""


@attrs.frozen
class Trial:
    """An app since its base moved on, until a start of it has gone well.

    ``base_id`` and ``layers`` are what it goes back to after as many ``failures`` as it has ``tries``; ``fallen``:
    it has.
    """

    app_id: str
    base_id: str
    layers: tuple[str, ...]
    failures: int
    since: str
    fallen: bool = False
    tries: int = 3


@attrs.frozen
class Layer:
    """A frozen layer as the catalog has it: an upper that is only ever read from now on.

    ``ids`` says what its owners mean and in which flavour overlayfs's marks are in it. What was built or pulled has a
    ``digest``, of its manifest, and an ``origin``, JSON data; what an app has written has none.
    """

    id: str
    ids: IdMode
    created: str
    digest: str | None = None
    entries: int | None = None
    size: int | None = None
    origin: Mapping[str, Any] = attrs.field(factory=dict, hash=False)


@attrs.frozen
class Snapshot:
    """A state of an app that can be gone back to: what lay above its base, all of it frozen.

    ``number`` counts from 1 within an app and is never given again. ``layers`` are those of the app's
    configuration then, ``frozen`` its own above them, each the lowest first. An ``automatic`` one was made by
    layerrun, so that a rollback can be taken back. One that is ``pinned`` is spared by ``gc``.
    """

    app_id: str
    number: int
    tag: str | None
    layers: tuple[str, ...]
    frozen: tuple[str, ...]
    created: str
    pinned: bool = False
    automatic: bool = False

    @property
    def stack(self) -> tuple[str, ...]:
        """All its layers above the base, the lowest first."""
        return self.layers + self.frozen
