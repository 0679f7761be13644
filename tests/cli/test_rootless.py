"""The same verbs for a plain user: their own store, the same words, the same statuses."""

from __future__ import annotations

import json
import os
import stat

import pytest

pytestmark = pytest.mark.rootless

WRITE = ["sh", "-c", "echo x >~/layerrun-test; exit 4"]


def document(layerrun, *words, user):
    return json.loads(layerrun(*words, "--json", user=user, check=0).out)


def test_an_app_from_start_to_end(layerrun, any_user):
    first = layerrun("app", "web", "--", *WRITE, user=any_user, check=4)
    assert first.err == "layerrun: created app web over host\n"
    assert not os.path.exists(os.path.join(any_user.home, "layerrun-test"))
    path = os.path.join(any_user.home, "layerrun-test")
    changes = document(layerrun, "diff", "web", user=any_user)["changes"]
    assert [(c["change"], c["path"], c["size"]) for c in changes] == [("A", path, 2)]
    assert document(layerrun, "show", "web", user=any_user)["mounts"]
    assert document(layerrun, "which", "web", path, user=any_user)["layer"] == "upper"
    assert document(layerrun, "du", user=any_user)["total"] > 0
    layerrun("plan", "web", user=any_user, check=0)
    layerrun("reset", "-y", "web", user=any_user, check=0)
    assert document(layerrun, "diff", "web", user=any_user)["changes"] == []
    layerrun("remove", "-y", "web", user=any_user, check=0)
    assert document(layerrun, "list", user=any_user)["apps"] == []
    assert stat.S_IMODE(os.stat(layerrun.store(any_user)).st_mode) == 0o700


def test_try(layerrun, any_user):
    done = layerrun("try", "--", "true", user=any_user, check=0)
    assert (done.out, done.err) == ("", "")
    done = layerrun("try", "--name", "t", "--", *WRITE, user=any_user, check=4)
    assert done.out == f"A         2 B  {any_user.home}/layerrun-test\n"
    assert "kept as t:" in done.err
    layerrun("discard", "-y", "t", user=any_user, check=0)
    assert document(layerrun, "list", user=any_user)["apps"] == []


def test_a_store_of_somebody_else(layerrun, store_path, any_user):
    layerrun("list", check=0)
    done = layerrun("--store", store_path, "list", user=any_user, check=1)
    assert done.err.startswith("layerrun: ")
    assert store_path in done.err


def test_doctor(layerrun, any_user):
    done = layerrun("doctor", "--json", user=any_user)
    assert done.rc in (0, 1)
    assert json.loads(done.out)["checks"]
