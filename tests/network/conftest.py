"""A machine with a network of its own for each test, and whom a start belongs to."""

from __future__ import annotations

import pytest
from support import probes, users
from support.outside import Machine
from support.whose import whose


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
    return whose(request.param)


@pytest.fixture(params=["root", users.SINGLE])
def either(request):
    """Root (``None``) and a plain user."""
    return whose(request.param)
