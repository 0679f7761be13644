"""Profiles and ephemeral starts: as root and as plain users."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess

import pytest
from support import users
from support.sandbox import wait_for
from support.whose import whose


@pytest.fixture(params=["root", users.PLAIN])
def who(request):
    """Whose apps they are: root's (``None``), a plain user's."""
    return whose(request.param)


class Apps:
    """The command line of one user, and what it leaves running."""

    def __init__(self, layerrun, who):
        self.layerrun, self.who, self.started = layerrun, who, []
        self.path = layerrun.store(who)

    def __call__(self, *words, check=0, **options):
        """Run ``layerrun WORDS``."""
        return self.layerrun(*words, user=self.who, check=check, **options)

    def sh(self, script, *words, check=0, **options):
        """Run a shell script by ``layerrun app WORDS``; return its output."""
        return self("app", *words, "--", "sh", "-c", script, check=check, **options).out

    def popen(self, script, *words, **options):
        """Start a shell script by ``layerrun app WORDS`` and wait for its first line, ``ready``."""
        argv = self.layerrun.argv("app", *words, "--", "sh", "-c", script, user=self.who)
        process = subprocess.Popen(
            argv,
            env=self.layerrun.env(self.who),
            cwd="/",
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **options,
        )
        self.started.append(process)
        line = process.stdout.readline()
        assert line == "ready\n", (line, process.stderr.read())
        return process

    def ended(self, process, status=0):
        """Let a script that reads a line go on, and wait for its end."""
        process.communicate("go\n", timeout=60)
        assert process.returncode == status

    def apps(self):
        """Return the records of ``list --json`` by name."""
        return {one["name"]: one for one in json.loads(self("list", "--json").out)["apps"]}

    def folders(self):
        """Return what the store holds of apps: their folders, their plans, what is staged or thrown away."""
        found = {name: sorted(os.listdir(f"{self.path}/{name}")) for name in ("apps", "staging", "trash")}
        return found | {"plans": sorted(os.listdir(f"{self.path}/plans"))}

    def end(self):
        """End what still runs."""
        running = json.loads(self.layerrun("ps", "--json", user=self.who).out)["instances"]
        if running:
            self.layerrun("kill", *[one["name"] for one in running], user=self.who)
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            process.wait(30)
            for stream in (process.stdin, process.stdout, process.stderr):
                with contextlib.suppress(OSError):
                    stream.close()


@pytest.fixture
def run(layerrun, who):
    """The command line of root or of a plain user, with an app ``web`` that has written /var/tmp/token."""
    apps = Apps(layerrun, who)
    apps.sh("echo web >/var/tmp/token", "web")
    yield apps
    apps.end()


@pytest.fixture
def own_folder(who, folder, user_folder):
    """A folder on disk of whose apps they are."""
    return user_folder(who) if who else folder


def _is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


@pytest.fixture
def gone():
    """A function that waits until processes have ended, looked after or not."""
    return lambda pids: wait_for(lambda: not any(map(_is_alive, pids)))
