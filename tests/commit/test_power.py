"""The power goes during commits, undos, redos and changes of an app's stack: the old state is there, or the new one.

See support/power.py for how it is cut and what that shows.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support import probes

SUPPORT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture
def cutting(folder):
    """Run one of the programs in a mount namespace of its own, with a number of cuts."""
    probes.need("root")
    probes.need("cuttable")

    def run(program, cuts, timeout):
        words = [sys.executable, f"{SUPPORT}/support/{program}.py", folder, str(cuts)]
        env = {**os.environ, "PYTHONPATH": SUPPORT}
        done = subprocess.run(
            ["unshare", "-m", "timeout", "-s", "KILL", str(timeout), *words],
            capture_output=True,
            text=True,
            check=False,
            env=env,
        )
        assert done.returncode == 0, f"{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
        print(done.stdout)

    return run


@pytest.mark.root
@pytest.mark.check(49)
def test_some_cuts_of_commits(cutting):
    cutting("power_commits", 6, 100)


@pytest.mark.root
@pytest.mark.check(49)
def test_some_cuts_of_snapshots(cutting):
    cutting("power_snapshots", 6, 100)


@pytest.mark.long
@pytest.mark.root
@pytest.mark.timeout(1500)
@pytest.mark.check(49)
@pytest.mark.parametrize("program", ["power_commits", "power_snapshots"])
def test_many_cuts(cutting, program):
    cutting(program, 300, 1400)
