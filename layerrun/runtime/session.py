"""The session that a start comes from. Whatever is looked at here becomes a condition of the stored plan."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping

import attrs

from layerrun.runtime.handoff import environment
from layerrun.runtime.plan import Plan
from layerrun.runtime.sums import names

__all__ = ["Session"]


def _environment() -> dict[str, str]:
    return {os.fsdecode(name): os.fsdecode(value) for name, value in environment().items()}


@attrs.frozen
class Session:
    """The caller's environment and the host's files, as they decide about ``plan``."""

    plan: Plan
    environ: Mapping[str, str] = attrs.field(factory=_environment)

    def variable(self, name: str) -> str | None:
        """Return a variable of the caller's environment; empty is as good as not set."""
        value = self.environ.get(name)
        self.plan.seen["env", name] = "-" if value is None else f"={value}"
        return value or None

    def real(self, path: str) -> str | None:
        """Return where a path leads on the host, ``None``: nowhere."""
        found = os.path.realpath(path) if os.path.exists(path) else None
        self.plan.seen["real", path] = found or "-"
        return found

    def listing(self, path: str) -> list[str]:
        """Return the sorted names in a folder of the host; none if it cannot be read."""
        self.plan.seen["names", path] = names(path)  # first: what comes in between outdates the plan
        try:
            return sorted(os.listdir(path))
        except OSError:
            return []

    def socket(self, path: str) -> str | None:
        """Return where a path leads, if that is a socket."""
        found = self.real(path)
        return found if found is not None and stat.S_ISSOCK(os.stat(found).st_mode) else None

    def runtime_dir(self) -> str | None:
        """Return XDG_RUNTIME_DIR, where a session has its sockets."""
        found = self.variable("XDG_RUNTIME_DIR")
        return found if found is not None and found.startswith("/") else None
