"""What a start over frozen layers says where the kernel does not take them, and what it forgets."""

import errno
import os

from support.whose import whose

from layerrun.model import AppConfig, IdMode
from layerrun.native.launch import Failure
from layerrun.runtime import snapshots, squash
from layerrun.runtime.explain import launch_error
from layerrun.store.plans import is_stored, write_plan
from layerrun.store.store import Store


def test_a_host_that_is_an_overlay(store_path):
    with Store.open(store_path) as store:
        app = store.create_app("web", AppConfig(), ids=IdMode.RANGE)
        failure = Failure(
            errno.EINVAL, 3, "set apart from the layers in it", "/ (maximum fs stacking depth exceeded)"
        )
        error = launch_error(failure, app, store.path)
    assert error.exit_status == 125
    assert "two overlays at most" in (error.hint or "")


def test_a_plan_of_layers_that_were_exchanged_is_not_stored(store_path):
    """A start that read the app before its layers became one must not leave a plan that names the old ones."""
    whose("root")
    with Store.open(store_path) as store:
        store.create_app("web", AppConfig(), ids=IdMode.RANGE)
        for number in range(3):
            path = f"{store.app_dir(store.app('web'))}/data/upper/{number}"
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
            snapshots.snapshot(store, store.app("web"))
        old = store.app("web")
        write_plan(store, old, b"old")
        assert is_stored(store, "web", b"old")
        with store.app_lock(old, "run app web"):
            squash.squash(store, old)
            assert not is_stored(store, "web", b"old")
            write_plan(store, old, b"old")
            assert not is_stored(store, "web", b"old")
            write_plan(store, store.app("web"), b"new")
            assert is_stored(store, "web", b"new")
