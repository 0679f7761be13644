"""Fixtures of the tests of stores."""

import pytest

from layerrun.model import AppConfig, IdMode
from layerrun.store.store import Store


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


@pytest.fixture
def web(store):
    return store.create_app("web", AppConfig(command=("true",)), ids=IdMode.RANGE)
