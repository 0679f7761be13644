"""What an app can reach, in plain words, with the reason of each: what `layerrun show` prints of a policy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from layerrun.model import HOST_BASE, App, Home, IdMode
from layerrun.policy import DEVICES, FEATURES, PRESETS, RLIMITS, SOCKETS, Grant, Limit, Network, NetworkKind
from layerrun.runtime import identity
from layerrun.runtime.limits import Held, held

if TYPE_CHECKING:
    from layerrun.policy import Grants

__all__ = ["Reach", "reach"]

_ALWAYS = "always so"
_NETWORKS = {
    NetworkKind.HOST: "the machine's network as it is, with what listens on its loopback",
    NetworkKind.NONE: "nothing but a loopback of its own",
    NetworkKind.PRIVATE: "whatever the machine reaches, from a network of its own",
    NetworkKind.LINK: "the app {other}, and nothing else",
}
_IDS = {
    IdMode.RANGE: "ids that are nobody's outside",
    IdMode.SUBIDS: "you, and your subordinate ids",
    IdMode.SINGLE: "you alone",
    IdMode.SELF: "you alone",
    IdMode.NONE: "the machine's own root: an undo, not a jail",
}

_GROUPS = {
    identity.Groups.KEPT: ", with your supplementary groups",
    identity.Groups.STUCK: ", with your supplementary groups, which cannot be dropped without subordinate ids",
}

_LIMITS = {
    "memory": "of memory",
    "swap": "of swap space",
    "pids": "processes",
    "cpu": "processors",
    "io": "a second to and from the disk",
}


@attrs.frozen
class Reach:
    """One thing that an app can reach or is held to: what it is about, in words, and where that comes from.

    ``kind`` is the `Grant`'s, or ``files``, ``home``, ``share``, ``hidden``, ``ids``; ``value`` is for programs.
    """

    kind: str
    value: str
    text: str
    origin: str


def reach(app: App, folder: str) -> list[Reach]:
    """Return what ``app``, whose folder in the store is ``folder``, can reach, the wider things first."""
    grants = app.config.policy.grants()
    how = {one.name: one for one in held(app, folder)}
    return [*_files(app), *_network(grants), *_grants(grants), *_ids(app, grants), *_limits(grants, how)]


def _files(app: App) -> Iterator[Reach]:
    config = app.config
    if config.base == HOST_BASE:
        text = (
            "reads what " + ("you" if app.ids is IdMode.SELF else "everybody") + " may read of this machine"
        )
        if app.ids in (IdMode.RANGE, IdMode.NONE):
            text = "reads all files of this machine"
    else:
        text = f"reads the base {config.base}, and nothing else of this machine"
    yield Reach("files", config.base, f"{text}; what it writes stays in its own layer", _ALWAYS)
    if config.home is Home.SHARE:
        yield Reach("home", "share", "reads and changes your real home", "--home share")
    elif config.home is Home.FRESH:
        yield Reach("home", "fresh", "has an empty home of its own", "--home fresh")
    for share in config.shares:
        what = "reads" if share.readonly else "reads and changes"
        where = "" if share.target == share.source else f", as {share.target}"
        yield Reach("share", str(share), f"{what} the real {share.source}{where}", f"--share {share}")
    for path in config.hides:
        yield Reach("hidden", path, f"sees nothing of {path}", f"--hide {path}")


def _network(grants: Grants) -> Iterator[Reach]:
    for grant in grants.all:
        if grant.kind == "network":
            network = Network.parse(grant.value)
            yield _of(grant, "connects to " + _NETWORKS[network.kind].format(other=network.other))
    for grant in grants.all:
        if grant.kind == "publish":
            yield _of(grant, f"is reached through the machine's port {grant.value}")


def _grants(grants: Grants) -> Iterator[Reach]:
    sockets = [grant for grant in grants.all if grant.kind == "socket"]
    for grant in sockets:
        kind, _, rules = grant.value.partition(":")
        yield _of(grant, SOCKETS[kind] + (f" ({rules.replace(',', ', ')})" if rules else ""))
    if not sockets:
        yield Reach("socket", "", "no windows, sound or message bus of your session", _ALWAYS)
    for grant in grants.all:
        if grant.kind == "device":
            yield _of(grant, DEVICES.get(grant.value, f"the device {grant.value}"))
    for grant in grants.all:
        if grant.kind == "feature":
            yield _of(grant, FEATURES[grant.value])
    for kind, text in (("syscall", "the system call {}"), ("no-syscall", "not the system call {}")):
        for grant in grants.all:
            if grant.kind == kind:
                yield _of(grant, text.format(grant.value))


def _ids(app: App, grants: Grants) -> Iterator[Reach]:
    groups = identity.groups(app)
    text = _IDS[app.ids] + _GROUPS.get(groups, "")
    yield Reach("ids", app.ids.value, f"runs as {text}", _ALWAYS)
    if grants.user is not None:
        yield Reach("user", grants.user, f"its command runs as {grants.user}", f"--user {grants.user}")
    capabilities = (
        [] if app.ids is IdMode.SELF else [grant for grant in grants.all if grant.kind == "capability"]
    )
    # One line for each origin: the preset's ten are one decision.
    for origin in dict.fromkeys(grant.origin for grant in capabilities):
        names = [grant.value for grant in capabilities if grant.origin == origin]
        over = "this machine" if app.ids is IdMode.NONE else "its own ids"
        yield Reach("capability", " ".join(names), f"capabilities over {over}: {' '.join(names)}", origin)
    if not capabilities:
        yield Reach(
            "capability", "", "has no capabilities", _ALWAYS if app.ids is IdMode.SELF else _preset(grants)
        )


def _preset(grants: Grants) -> str:
    found = {grant.origin for grant in grants.all}
    return next((f"the preset {name}" for name in PRESETS if f"the preset {name}" in found), _ALWAYS)


def _limits(grants: Grants, how: Mapping[str, Held]) -> Iterator[Reach]:
    for grant in grants.all:
        if grant.kind == "limit":
            limit = Limit.parse(grant.value)
            one = how[limit.name]
            note = "" if limit.name in RLIMITS else f" ({one.note})"
            yield _of(grant, f"{'NOT HELD: ' if one.by == 'nothing' else ''}{_limit(limit)}{note}")
        if grant.kind == "size":
            yield _of(grant, f"its layer holds at most {grant.value}")


def _limit(limit: Limit) -> str:
    value = str(limit).partition("=")[2]
    if limit.name in RLIMITS:
        return "writes no core dumps" if str(limit).startswith("core=0") else f"ulimit {limit.name} {value}"
    return f"at most {value} " + _LIMITS[limit.name]


def _of(grant: Grant, text: str) -> Reach:
    return Reach(grant.kind, grant.value, text, grant.origin)
