"""What a command has from its caller, also in an app that somebody else started."""

from __future__ import annotations

import os
import resource
import subprocess

import pytest

LIMITS = "nofile=500:600 core=0:2048 fsize=1000000:2000000 as=4000000000:5000000000 cpu=100:200".split()
SHOW = "ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hc; ulimit -f; ulimit -Hf; ulimit -v; ulimit -t; ulimit -Ht"
SEEN = "500\n600\n0\n2\n976\n1953\n3906250\n100\n200\n"


def limited(*limits):
    """Return words that run what follows with these limits."""
    return ["prlimit", *(f"--{limit}" for limit in limits), "--"]


def test_limits_are_the_callers(apps, either):
    apps.first(user=either)
    guest = apps.popen("bash", "-c", SHOW, user=either, before=limited(*LIMITS))
    out, err = guest.communicate(timeout=60)
    assert out == SEEN, err
    # The next one has its own again.
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert apps.run("ulimit -n", user=either).out in (f"{soft}\n", "unlimited\n")


def test_a_hard_limit_of_the_first_stays(apps, either):
    """It is not the guest's to raise; what lies below it is."""
    apps.first(user=either, before=limited("nofile=300:400"))
    assert apps.run("ulimit -n; ulimit -Hn", user=either).out == "400\n400\n"
    guest = apps.popen("sh", "-c", "ulimit -n; ulimit -Hn", user=either, before=limited("nofile=350:1000"))
    assert guest.communicate(timeout=60)[0] == "350\n400\n"


def test_niceness_and_processors(apps, either):
    apps.first(user=either)
    look = "nice; taskset -p $$ | cut -d: -f2"
    mine = subprocess.run(["sh", "-c", look], capture_output=True, text=True, check=True).stdout
    assert apps.run(look, user=either).out == mine
    cpu = min(os.sched_getaffinity(0))
    guest = apps.popen("sh", "-c", look, user=either, before=["taskset", "-c", str(cpu), "nice", "-n", "7"])
    assert guest.communicate(timeout=60)[0] == f"7\n {1 << cpu:x}\n"


def test_a_nice_first_does_not_slow_the_processors_of_others(apps):
    """Processors may be had again that the first start did without; niceness only where the kernel lets it."""
    cpu = min(os.sched_getaffinity(0))
    apps.first(before=["taskset", "-c", str(cpu)])
    assert (
        apps.run("taskset -p $$ | cut -d: -f2").out.strip()
        == f"{sum(1 << c for c in os.sched_getaffinity(0)):x}"
    )


@pytest.mark.parametrize("limit", ["nofile=10:10", "fsize=0:0", "stack=65536:65536"])
def test_a_guest_with_hardly_anything(apps, limit):
    """It runs or fails for itself; the app and the next one are as before."""
    first = apps.first()
    guest = apps.popen("sh", "-c", "echo in", before=limited(limit))
    guest.communicate(timeout=60)
    assert apps.run("echo in").out == "in\n"
    assert first.poll() is None
