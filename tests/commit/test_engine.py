"""Commits by hand-made plans: done, taken back, done again, killed at every moment. See support/committing.py."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import probes, reach
from support.whose import whose

SUPPORT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(SUPPORT, "support", "committing.py")


@pytest.fixture
def committing(folder, user_folder):
    """Run support/committing.py as somebody in a folder of theirs; ``mount``: a file system of its own in the tree."""

    def run(name, *words, mount=None, timeout=250):
        user = whose(name)
        where = user_folder(user) if user else folder
        argv = [sys.executable, PROGRAM, where, *words]
        env = user.environ() if user else dict(os.environ)
        env["PYTHONPATH"] = SUPPORT
        if user:
            argv = [*user.prefix(), *reach.translate(argv)]
        if mount:
            probes.need("root")
            owner = f"{user.uid}:{user.gid}" if user else "0:0"
            # Beside a mount a plain user's throwaway cannot write: there it is the store that lies elsewhere.
            at = "store" if user else "tree/mnt"
            script = (
                f'mkdir -p "$1/tree" "$1/{at}" && {mount} "$1/{at}" && chown {owner} "$1/tree" "$1/{at}"'
                f' && chmod {700 if user else 755} "$1/{at}"'
                ' && shift && exec "$@"'
            )
            argv = ["unshare", "-m", "sh", "-ec", script, "sh", where, *argv]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, env=env, cwd=where)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    return run


TMPFS = "mount -t tmpfs x"


@pytest.mark.parametrize("name", ["root", "layerrun-test", "layerrun-single"])
def test_a_commit_is_as_a_direct_run_and_is_taken_back_exactly(committing, name):
    assert "fine" in committing(name, "straight")


@pytest.mark.parametrize("name", ["root", "layerrun-test"])
def test_the_same_across_file_systems(committing, name):
    assert "fine" in committing(name, "straight", mount=TMPFS)


@pytest.mark.parametrize("name", ["root", "layerrun-test"])
@pytest.mark.check(48)
def test_killed_at_some_moments(committing, name):
    committing(name, "sweep", "3", "7", mount=TMPFS)


@pytest.mark.long
@pytest.mark.parametrize("name", ["root", "layerrun-test", "layerrun-single"])
@pytest.mark.parametrize("mount", [None, TMPFS])
@pytest.mark.check(48)
def test_killed_at_every_moment(committing, name, mount):
    committing(name, "sweep", "1", "1", mount=mount)
