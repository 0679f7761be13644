"""A machine with a network of its own for each test, and whom a start belongs to."""

from __future__ import annotations

import pytest
from support import probes, users
from support.outside import Machine


@pytest.fixture
def machine(layerrun, folder):
    probes.need("root")
    probes.need("idmap")
    layerrun.shared = folder
    made = Machine(layerrun)
    yield made
    made.end()


@pytest.fixture(params=["root", users.PLAIN, users.SINGLE])
def who(request):
    """Whom a start belongs to: root (``None``), a plain user with subordinate ids, one without."""
    if request.param == "root":
        return None
    probes.need("rootless")
    probes.need("reachable")
    return users.ensure(request.param)


@pytest.fixture(params=["root", users.SINGLE])
def either(request):
    """Root (``None``) and a plain user."""
    if request.param == "root":
        return None
    probes.need("rootless")
    probes.need("reachable")
    return users.ensure(request.param)
