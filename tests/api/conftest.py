"""Programs that use the API: each runs in a Python of its own, as root and as a plain user."""

from __future__ import annotations

import pytest
from support.programs import programs, story, who

__all__ = ["programs", "story", "way", "who"]


@pytest.fixture(params=["stored", "worked out"])
def way(request):
    """Both ways a start can go: by a stored plan, and worked out anew each time."""
    return {} if request.param == "stored" else {"LAYERRUN_FRONT_DOOR": "0"}
