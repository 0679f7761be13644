"""Apps to start, as root and as plain users; a private mount namespace to try odd mounts in."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest
from support import probes, users
from support.sandbox import Mounts, small_tree
from support.whose import whose


@pytest.fixture(params=["root", users.PLAIN, users.SINGLE])
def who(request):
    """Whom a start belongs to: root (``None``), a plain user with subordinate ids, one without."""
    return whose(request.param)


@pytest.fixture(params=["root", users.PLAIN])
def either(request):
    """Root (``None``) and a plain user."""
    return whose(request.param)


@pytest.fixture
def inside(layerrun):
    """Run a shell script in the app ``a``: ``inside(script, who, app=..., check=0)``."""

    def run(script, who=None, *words, app="a", check=0, **options):
        return layerrun("app", app, "--", "sh", "-c", script, "sh", *words, user=who, check=check, **options)

    return run


@pytest.fixture
def own_folder(user_folder, folder):
    """A function from who to a folder of theirs on disk."""
    return lambda who: user_folder(who) if who else folder


@pytest.fixture
def tree(own_folder):
    """A function from who to a small root file system of theirs: a shell and a few programs of the machine."""

    def make(who=None):
        made = small_tree(os.path.join(own_folder(who), "tree"))
        if who:
            subprocess.run(["chown", "-Rh", f"{who.uid}:{who.gid}", made], check=True)
        return made

    return make


@pytest.fixture
def mounts():
    """A private mount namespace; what is mounted there goes with the test, whatever hangs in it."""
    probes.need("root")
    holder = Mounts()
    yield holder
    holder.end()


@pytest.fixture
def spawned():
    """A list of processes that are killed after the test if they still run."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(30)
