"""A stored plan in the wrong place is none: it starts nothing but what was asked for."""

import os
import shutil

import pytest


@pytest.fixture
def plans(layerrun):
    """Two apps, started once each, and the folder of their plans."""
    for name in ("a", "b"):
        layerrun("create", name, check=0)
        layerrun("app", name, "--", "true", check=0)
    path = f"{layerrun.store()}/plans"
    assert sorted(os.listdir(path)) == ["a", "b"]
    os.unlink(f"{path}/b")
    return path


def replace(name, content):
    with open(name, "wb") as file:
        file.write(content)
    os.chmod(name, 0o600)


WAYS = {
    "copied": lambda p: shutil.copy2(f"{p}/a", f"{p}/b"),
    "hard-linked": lambda p: os.link(f"{p}/a", f"{p}/b"),
    "linked": lambda p: os.symlink("a", f"{p}/b"),
    "a fifo": lambda p: os.mkfifo(f"{p}/b", 0o600),
    "a folder": lambda p: os.mkdir(f"{p}/b"),
    "empty": lambda p: replace(f"{p}/b", b""),
    "half": lambda p: replace(f"{p}/b", open(f"{p}/a", "rb").read(2000)),  # noqa: SIM115
}


@pytest.mark.root
@pytest.mark.parametrize("way", WAYS)
def test_in_the_place_of_anothers(layerrun, plans, way):
    WAYS[way](plans)
    for _ in range(2):
        done = layerrun("app", "b", "--", "/bin/sh", "-c", "echo $LAYERRUN_APP; echo > /var/here", check=0)
        assert done.out == "b\n"
    assert "/var/here" in layerrun("diff", "b", check=0).out
    assert "/var/here" not in layerrun("diff", "a", check=0).out
    assert layerrun("app", "a", "--", "/bin/sh", "-c", "echo $LAYERRUN_APP", check=0).out == "a\n"


@pytest.mark.root
def test_in_a_store_that_was_moved_and_copied_back(layerrun, plans):
    store = layerrun.store()
    os.rename(store, f"{store}.moved")
    shutil.copytree(f"{store}.moved", store, symlinks=True, ignore=shutil.ignore_patterns("socket"))
    os.chmod(store, 0o700)
    moved = {"LAYERRUN_STORE": f"{store}.moved"}
    layerrun("app", "a", "--", "/bin/sh", "-c", "echo > /var/here", env=moved, check=0)
    assert "/var/here" in layerrun("diff", "a", env=moved, check=0).out
    assert "/var/here" not in layerrun("diff", "a", check=0).out
