"""The front door, watched: a copy of bin/layerrun beside a python3 that says when it is called."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time
import types

import pytest
from support import probes, reach, users
from support.sandbox import Mounts, small_tree
from support.whose import whose

BIN = os.path.dirname(sys.executable)
# Others on the machine may touch what a plan depends on while a test runs: /etc/passwd, or, where something is mounted
# beneath a folder of everybody's, the names in it. Seconds to wait for a moment of rest.
PATIENCE = 30


class Door:
    """``door("app", "a", "--", "true", user=…, check=0)`` gives rc, out, err and whether Python was asked."""

    def __init__(self, layerrun, folder):
        self.layerrun = layerrun
        self.folder = os.path.join(folder, "door")
        self.log = os.path.join(folder, "python-was-here")
        os.mkdir(self.folder)
        self.elf = shutil.copy2(f"{BIN}/layerrun", self.folder)
        python = reach.translate([f"{BIN}/python3"])[0]
        shim = pathlib.Path(self.folder, "python3")
        shim.write_text(f'#!/bin/sh\necho x >>{self.log}\nexec {python} "$@"\n')
        shim.chmod(0o755)

    def hide_python(self):
        """Leave the front door alone in its folder."""
        os.unlink(f"{self.folder}/python3")

    def argv(self, *words, user=None):
        return [*(user.prefix() if user else []), self.elf, *words]

    def __call__(
        self, *words, user=None, check=None, env=None, prefix=(), words_before=(), cwd="/", **options
    ):
        with open(self.log, "w"):
            os.chmod(self.log, 0o666)
        if "input" not in options:
            options.setdefault("stdin", subprocess.DEVNULL)
        done = subprocess.run(
            [*prefix, *(user.prefix() if user else []), *words_before, self.elf, *words],
            env=self.layerrun.env(user, **(env or {})),
            cwd=cwd,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=120,
            **options,
        )
        python = os.path.getsize(self.log) > 0
        if check is not None:
            said = f"{done.stdout}\n{done.stderr}"
            assert done.returncode == check, f"{words}: status {done.returncode}, not {check}\n{said}"
        return types.SimpleNamespace(rc=done.returncode, out=done.stdout, err=done.stderr, python=python)

    def warm(self, *words, **options):
        """Start until no Python is asked, and return what that start gave."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            done = self(*words, **options)
            if not done.python:
                return done
        raise AssertionError(f"{words}: Python is asked every time:\n{done.out}\n{done.err}")

    def both(self, *words, env=None, **options):
        """Start without Python and with it; return both results without the word of who did it."""
        results = [
            self.warm(*words, env=env, **options),
            self(*words, env={**(env or {}), "LAYERRUN_FRONT_DOOR": "0"}, **options),
        ]
        assert results[1].python
        for result in results:
            del result.python
        return results


@pytest.fixture
def door(layerrun, folder):
    return Door(layerrun, folder)


@pytest.fixture(params=["root", users.PLAIN, users.SINGLE])
def who(request):
    """Whom a start belongs to: root (``None``), a plain user with subordinate ids, one without."""
    return whose(request.param)


@pytest.fixture
def small(layerrun, user_folder, folder):
    """A function from who to the app ``small`` of theirs over a small base of their own."""

    def make(who=None, *options):
        made = small_tree(os.path.join(user_folder(who) if who else folder, "tree"))
        if who:
            subprocess.run(["chown", "-Rh", f"{who.uid}:{who.gid}", made], check=True)
        layerrun("base", "import", "small", made, user=who, check=0)
        layerrun("create", "small", "--base", "small", *options, user=who, check=0)
        return "small"

    return make


@pytest.fixture
def mounts():
    """A private mount namespace."""
    probes.need("root")
    holder = Mounts()
    yield holder
    holder.end()


def pytest_collection_modifyitems(items):
    """With one id or with many, a command is run in the same way: but for what outdates a plan, one of them will do."""
    here = pathlib.Path(__file__).parent
    for item in items:
        every = item.path.stem in {"test_hot", "test_outdated"}
        if item.path.parent == here and users.SINGLE in item.name and not every:
            item.add_marker(pytest.mark.long)
