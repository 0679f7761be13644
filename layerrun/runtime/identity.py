"""Who runs inside: id maps, capabilities and the environment of each `IdMode`. See user_namespaces(7)."""

from __future__ import annotations

import enum
import os
import pwd

import attrs

from layerrun.errors import LaunchError
from layerrun.model import HOST_BASE, App, AppKind, Base, IdMode
from layerrun.native.subids import id_maps, subids
from layerrun.policy import Grants
from layerrun.runtime.plan import Plan

__all__ = ["RANGE_SIZE", "Groups", "Person", "add_identity", "choose", "groups", "person"]

RANGE_SIZE = 65536


@attrs.frozen
class Person:
    """Whom the command runs as: ids, name, home and shell as seen inside."""

    uid: int
    gid: int
    name: str
    home: str
    shell: str


def choose(base: Base, *, user_namespace: bool = True) -> IdMode:
    """Return how the ids of a new app over ``base`` are mapped: see docs/architecture.md, identity."""
    if os.geteuid() == 0:
        return IdMode.RANGE if user_namespace else IdMode.NONE
    if base.name == HOST_BASE:
        return IdMode.SELF
    return IdMode.SUBIDS if base.ids is IdMode.SUBIDS else IdMode.SINGLE


def person(app: App) -> Person:
    """Return whom ``app`` runs as: the caller over the host, root over an imported base."""
    over_host = app.config.base == HOST_BASE
    if app.ids in (IdMode.SINGLE, IdMode.SUBIDS) or not over_host:
        return Person(0, 0, "root", "/root", "/bin/sh")
    uid, gid = os.geteuid(), os.getegid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Person(uid, gid, str(uid), os.environ.get("HOME", "/"), "/bin/sh")
    return Person(uid, gid, entry.pw_name, entry.pw_dir or "/", entry.pw_shell or "/bin/sh")


def _add_maps(plan: Plan, uids: list[tuple[int, int, int]], gids: list[tuple[int, int, int]]) -> None:
    for inside, outside, count in uids:
        plan.add("uidmap", inside, outside, count)
    for inside, outside, count in gids:
        plan.add("gidmap", inside, outside, count)


# Whoever has one of these reads the disks or the passwords, or has a daemon of root's do so.
_AS_GOOD_AS_ROOT = frozenset("disk docker incus incus-admin kmem libvirt lxd podman shadow".split())


class Groups(enum.StrEnum):
    """What becomes of the supplementary groups of the caller.

    NONE      the caller has none.
    DROPPED   nothing inside has them.
    KEPT      asked for (``--allow groups``), or a throwaway over the host, which is to see what a direct run would.
    STUCK     without subordinate ids the kernel lets nobody drop them: they are kept, though shown as nobody's; but not
              such as are as good as root, for which a start is refused.
    """

    NONE = "none"
    DROPPED = "dropped"
    KEPT = "kept"
    STUCK = "stuck"


def groups(app: App) -> Groups:
    """Return what becomes of the caller's supplementary groups in ``app``."""
    if app.ids in (IdMode.RANGE, IdMode.NONE):
        return Groups.DROPPED  # and root's are seldom any
    if not set(os.getgroups()) - {os.getegid()}:
        return Groups.NONE
    if app.ids is IdMode.SUBIDS:
        return Groups.DROPPED
    direct = app.kind is not AppKind.APP and app.config.base == HOST_BASE
    if direct or app.config.policy.grants().has("groups"):
        return Groups.KEPT
    return Groups.STUCK if subids() is None else Groups.DROPPED


def _to_drop_groups(app: App) -> list[tuple[int, int, int]]:
    """Return a further line of the map of groups that lets them be dropped; none where they stay."""
    what = groups(app)
    names = [_group_name(group) for group in sorted(set(os.getgroups()) - {os.getegid()})]
    if what in (Groups.STUCK, Groups.KEPT) and "groups" in app.config.policy.deny:
        raise LaunchError(
            f"{app.name!r} must not have your supplementary groups ({', '.join(names)}), and they cannot be dropped",
            hint="install uidmap, and add you to /etc/subuid and /etc/subgid, or take --deny groups back",
        )
    mighty = [name for name in names if name in _AS_GOOD_AS_ROOT]
    if what is Groups.STUCK and mighty:
        raise LaunchError(
            f"{app.name!r} would have your group {mighty[0]!r}, which is as good as root, and it cannot be dropped",
            hint="install uidmap, and add you to /etc/subuid and /etc/subgid\n"
            "or say that it may: `layerrun create` or `edit` with --allow groups",
        )
    found = subids() if what is Groups.DROPPED else None
    return [] if found is None else [(found[1], found[1], 1)]


def _group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def add_identity(plan: Plan, app: App, who: Person) -> None:
    """Add the user namespace, the maps and the ids. Raises `LaunchError` where they are not to be had."""
    uid, gid = os.geteuid(), os.getegid()
    match app.ids:
        case IdMode.NONE:
            plan.add("userns", "none")
        case IdMode.RANGE:
            if app.uid_start is None:
                raise LaunchError(f"{app.name!r} has no range of ids", hint="run `layerrun doctor`")
            plan.add("userns", "range")
            ids = [(0, app.uid_start, RANGE_SIZE)]
            _add_maps(plan, ids, ids)
        case IdMode.SUBIDS:
            found = subids()
            if found is None:
                raise LaunchError(
                    f"{app.name!r} needs your subordinate ids, and there are none any more",
                    hint="install uidmap, and add you to /etc/subuid and /etc/subgid",
                )
            plan.add("userns", "helper")
            _add_maps(plan, *id_maps(found))
        case IdMode.SINGLE | IdMode.SELF:
            inside = (uid, gid) if app.ids is IdMode.SELF else (0, 0)
            others = _to_drop_groups(app)
            plan.add("userns", "ungrouped" if others else "self")
            _add_maps(plan, [(inside[0], uid, 1)], [(inside[1], gid, 1), *others])
    own = app.ids is IdMode.SELF or app.config.policy.user is not None
    plan.add("identity", *((who.uid, who.gid) if own else (0, 0)))


def capabilities(app: App, grants: Grants) -> int:
    """Return the mask of capabilities the command may have, within its own user namespace."""
    return 0 if app.ids is IdMode.SELF else grants.capabilities
