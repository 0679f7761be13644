"""The plugin of pytest: fixtures for throwaway layers, and a marker that runs a whole test in one.

pytest loads it at each start where layerrun is installed, so nothing of layerrun is imported before it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from layerrun.api import Store, Throwaway

__all__ = ["INSIDE", "MARKER"]

MARKER = "throwaway"
# The name of what is registered in the pytest that runs inside a layer.
INSIDE = "layerrun-inside"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the place of the store to the settings."""
    parser.addini(
        "layerrun_store", "The store in which layers for tests are made. Without it: the command line's."
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        f"{MARKER}(hides=(), network=None, policy=None, ids=None): run the whole test, its fixtures too, in a throwaway"
        " layer over this machine",
    )


@pytest.fixture(scope="session")
def layerrun_store(pytestconfig: pytest.Config) -> Iterator[Store]:
    """The store in which layers for tests are made, a `layerrun.Store`."""
    with _store(pytestconfig) as store:
        yield store


@pytest.fixture
def throwaway(layerrun_store: Store) -> Iterator[Throwaway]:
    """A throwaway layer over this machine, a `layerrun.Throwaway`, which is discarded after the test."""
    with layerrun_store.throwaway() as layer:
        yield layer


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test with the marker in a layer."""
    mark = item.get_closest_marker(MARKER)
    if mark is None or item.config.pluginmanager.hasplugin(INSIDE):
        return None
    from layerrun.testing.outside import run

    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in run(item, nextitem, lambda: _store(item.config), mark):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def _store(config: pytest.Config) -> Store:
    from layerrun.api import Store

    path = config.getini("layerrun_store")
    return Store(config.rootpath / path if path else None)
