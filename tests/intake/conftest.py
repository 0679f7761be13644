"""A store for what is taken in."""

import pytest

from layerrun.store.store import Store


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened
