"""Whose start a test is about."""

from __future__ import annotations

from support import probes, users


def whose(name):
    """Return the plain user called ``name``, or ``None`` for root; what the tests of either need must be there."""
    if name == "root":
        probes.need("root")
        probes.need("idmap")
        return None
    probes.need("rootless")
    probes.need("reachable")
    return users.ensure(name)
