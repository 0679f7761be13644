"""From grants to what a start gives up before the command runs: capabilities, new privileges, system calls."""

from __future__ import annotations

from layerrun.errors import UsageError
from layerrun.model import App, IdMode
from layerrun.policy import CAPABILITIES, PRESETS, Grants
from layerrun.runtime import identity
from layerrun.runtime.identity import Person
from layerrun.runtime.plan import Plan
from layerrun.runtime.seccomp import filter_word

__all__ = ["add_confinement"]

# Of the machine's own root, no app gets more than a package manager needs.
_OF_THE_MACHINE = frozenset(PRESETS["default"].capabilities)


def _check(app: App, grants: Grants, asked: set[str]) -> None:
    """Refuse grants that would mean more than they say."""
    features = set(grants.of("feature"))
    if "setuid" in features and app.ids not in (IdMode.RANGE, IdMode.SUBIDS):
        raise UsageError(
            f"setuid programs cannot work in {app.name!r}: it has no range of ids of its own",
            hint="as root they can; without root over an imported base, with subordinate ids (uidmap, /etc/subuid)",
        )
    if app.ids is not IdMode.NONE:
        if "nesting" in features and "sys_admin" in asked:
            raise UsageError(
                "cap:sys_admin and nesting do not go together: what is masked of /proc could be uncovered",
                hint="a user namespace made inside has every capability over itself",
            )
        return
    more = sorted(asked - _OF_THE_MACHINE)
    if more:
        raise UsageError(
            f"cap:{more[0]} would be the machine's own: {app.name!r} has no user namespace",
            hint="make the app without --no-userns",
        )
    for feature in ("nesting", "keyring", "bpf", "perf"):
        if feature in features:
            raise UsageError(
                f"{feature} would reach the machine itself: {app.name!r} has no user namespace",
                hint="make the app without --no-userns",
            )


def add_confinement(plan: Plan, app: App, grants: Grants, who: Person) -> None:
    """Add what the command is confined by. Raises `UsageError` for grants that cannot be kept."""
    asked = {one.value for one in grants.all if one.kind == "capability" and one.origin.startswith("--allow")}
    _check(app, grants, asked)
    remains, ambient = identity.capabilities(app, grants), 0
    if who.uid:
        # Through an exec only root keeps capabilities; whoever else is asked to have some has them as ambient ones.
        ambient = sum(1 << CAPABILITIES.index(name) for name in asked)
        # What setuid programs may get is bounded as for root.
        remains = remains | ambient if grants.has("setuid") else ambient
    plan.add("caps", f"{remains:x}")
    if ambient:
        plan.add("ambient", f"{ambient:x}")
    if not grants.has("setuid"):
        plan.add("no_new_privs")
    scopes = ["signals"] if grants.has("abstract-sockets") else ["abstract-sockets", "signals"]
    plan.add("landlock", ",".join(scopes))
    plan.add("seccomp", filter_word(grants.of("feature"), grants.of("syscall"), grants.of("no-syscall")))
