"""One behaviour, two speeds: the suites that start something, with every start worked out and waited for by Python.

All others run as they are: through the front door.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def without_the_front_door(*words, timeout):
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, "LAYERRUN_FRONT_DOOR": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    print(done.stdout[-300:])


@pytest.mark.root
@pytest.mark.idmap
def test_a_few_of_each_kind():
    """Statuses, errors, environments and folders: what is likeliest to differ, as root."""
    without_the_front_door(
        *("tests/cli/test_exits.py", "tests/launch/test_start.py"),
        *("-m", "not long", "-k", "not layerrun-test and not layerrun-single and not working_folder"),
        timeout=290,
    )


@pytest.mark.root
@pytest.mark.idmap
@pytest.mark.long
@pytest.mark.timeout(5400)
def test_the_whole_command_line():
    without_the_front_door("tests/cli", "tests/launch", "tests/instances", "-m", "not long", timeout=5300)
