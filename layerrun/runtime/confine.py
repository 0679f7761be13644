"""From grants to what a start gives up before the command runs: capabilities, new privileges, system calls."""

from __future__ import annotations

from layerrun.model import App
from layerrun.policy import Grants
from layerrun.runtime import identity
from layerrun.runtime.plan import Plan
from layerrun.runtime.seccomp import filter_word

__all__ = ["add_confinement"]


def add_confinement(plan: Plan, app: App, grants: Grants) -> None:
    """Add what the command is confined by. Raises `UsageError` for grants that cannot be kept."""
    plan.add("caps", f"{identity.capabilities(app, grants):x}")
    plan.add("no_new_privs")
    plan.add("seccomp", filter_word(grants.of("feature"), grants.of("syscall"), grants.of("no-syscall")))
