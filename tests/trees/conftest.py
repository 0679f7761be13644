"""Overlays of each kind of user, kept for a module."""

import pytest
from support import overlays, probes


@pytest.fixture(scope="module", params=overlays.WHO)
def overlay(request):
    probes.need("root")
    if request.param != "root":
        probes.need("reachable")
    if request.param == "subids":
        probes.need("subids")
    made = overlays.Overlays(request.param)
    yield made
    made.close()
