"""Apps that run, to be joined: as root and as plain users, over the host and over an imported tree."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess

import pytest
from support import probes, users
from support.sandbox import small_tree, wait_for


def _whose(name):
    if name == "root":
        probes.need("root")
        probes.need("idmap")
        return None
    probes.need("rootless")
    probes.need("reachable")
    return users.ensure(name)


@pytest.fixture(params=["root", users.PLAIN, users.SINGLE])
def who(request):
    """Whose app it is: root's (``None``), a plain user's with subordinate ids, one's without."""
    return _whose(request.param)


@pytest.fixture(params=["root", users.PLAIN])
def either(request):
    """Root (``None``) and a plain user."""
    return _whose(request.param)


class Apps:
    """Starts commands in apps, and knows what runs."""

    def __init__(self, layerrun):
        self.layerrun = layerrun
        self.started = []

    def popen(self, *words, user=None, app="a", verb="app", env=None, **options):
        """Start a command in an app; its stdout and stderr are pipes of text unless said otherwise."""
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "cwd": "/",
            **options,
        }
        before = options.pop("before", [])
        argv = self.layerrun.argv(verb, app, "--", *words, user=user)
        process = subprocess.Popen([*before, *argv], env=self.layerrun.env(user, **(env or {})), **options)
        self.started.append(process)
        return process

    def ready(self, *words, **options):
        """Start a command, wait for its first line, which must be ``ready``."""
        process = self.popen(*words, **options)
        line = process.stdout.readline()
        assert line == "ready\n", (line, process.stderr.read())
        return process

    def first(self, user=None, app="a", **options):
        """Let an app run: a command that stays until it is told to end."""
        return self.ready("sh", "-c", "echo ready; exec sleep 1000", user=user, app=app, **options)

    def run(self, script, *words, user=None, app="a", check=0, verb="app", **options):
        """Run a shell script in an app and wait."""
        return self.layerrun(
            verb, app, "--", "sh", "-c", script, "sh", *words, user=user, check=check, **options
        )

    def ps(self, user=None):
        """Return what ``ps --json`` says, by the app's name."""
        done = json.loads(self.layerrun("ps", "--json", user=user, check=0).out)
        assert done["schema"] == 1
        return {one["name"]: one for one in done["instances"]}

    def init(self, user=None, app="a"):
        """Return the pid of an app's pid 1."""
        return self.ps(user)[app]["pid"]

    def gone(self, user=None, app="a"):
        """Wait until an app does not run any more."""
        wait_for(lambda: app not in self.ps(user))

    def end(self):
        """End what still runs."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
            process.wait(30)
            for stream in (process.stdout, process.stderr, process.stdin):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()


@pytest.fixture
def apps(layerrun):
    """A starter of commands; what it started is killed after the test, and apps left running are."""
    starter = Apps(layerrun)
    used = set()
    popen, run = starter.popen, starter.layerrun

    def note(*words, user=None, **options):
        used.add(user)
        return popen(*words, user=user, **options)

    def watch(*words, user=None, **options):
        used.add(user)
        return run(*words, user=user, **options)

    for name in ("argv", "env", "store"):
        setattr(watch, name, getattr(layerrun, name))
    starter.popen, starter.layerrun = note, watch
    yield starter
    for user in used:
        running = list(starter.ps(user))
        if running:
            layerrun("kill", *running, user=user)
    starter.end()


@pytest.fixture
def own_folder(user_folder, folder):
    """A function from who to a folder of theirs on disk."""
    return lambda who: user_folder(who) if who else folder


@pytest.fixture
def tree(layerrun, own_folder):
    """A function that makes an app over an imported tree: ``tree(who)``."""

    def make(who=None, app="a"):
        made = small_tree(os.path.join(own_folder(who), "tree"))
        if who:
            subprocess.run(["chown", "-Rh", f"{who.uid}:{who.gid}", made], check=True)
        layerrun("base", "import", "small", made, user=who, check=0)
        layerrun("create", app, "--base", "small", user=who, check=0)

    return make
