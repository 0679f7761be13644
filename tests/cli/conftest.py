"""Fixtures of the tests of verbs."""

from __future__ import annotations

import pytest
from support.asking import Terminal


@pytest.fixture
def terminal(layerrun):
    return lambda *words: Terminal(layerrun, *words)


@pytest.fixture
def web(layerrun):
    """An app that wrote something."""
    layerrun("app", "web", "--", "sh", "-c", "echo hello >/etc/layerrun-test", check=0)
    return "web"
