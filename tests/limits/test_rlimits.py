"""Rlimits: an app's own, for the command and for who joins; and what stands in where there is no control group."""

from __future__ import annotations

import subprocess

import pytest

SHOW = "ulimit -n; ulimit -Hn; ulimit -c; ulimit -Hf"


def test_they_are_set_for_the_command(layerrun, make, anybody):
    make("web", anybody, limits=["nofile=100:200", "fsize=1M"])
    for _ in range(2):  # worked out, and by the stored plan
        done = layerrun("app", "web", "--", "bash", "-c", SHOW, user=anybody, check=0)
        assert done.out == "100\n200\n0\n1024\n"
    done = layerrun(
        "app",
        "web",
        "--",
        "sh",
        "-c",
        "head -c 2M /dev/zero >/var/tmp/x; stat -c %s /var/tmp/x",
        user=anybody,
    )
    assert done.out == "1048576\n"


@pytest.mark.parametrize("caller", ["nofile=50:60", "fsize=500000:500000"])
def test_a_hard_limit_of_the_callers_is_not_raised(layerrun, make, anybody, caller):
    make("web", anybody, limits=["nofile=100:200", "fsize=1M"])
    argv = layerrun.argv("app", "web", "--", "bash", "-c", SHOW, user=anybody)
    head = len(argv) - len(layerrun.argv("app", "web", "--", "bash", "-c", SHOW))
    argv = [*argv[:head], "prlimit", f"--{caller}", "--", *argv[head:]]
    for _ in range(2):
        done = subprocess.run(
            argv, env=layerrun.env(anybody), cwd="/", capture_output=True, text=True, timeout=60, check=False
        )
        hard = int(caller.rpartition(":")[2])
        files = (min(100, hard), min(200, hard)) if "nofile" in caller else (100, 200)
        size = 488 if "fsize" in caller else 1024
        assert done.stdout == f"{files[0]}\n{files[1]}\n0\n{size}\n", done.stderr


def test_who_joins_has_them_too(layerrun, make, anybody):
    make("web", anybody, limits=["nofile=100:200", "fsize=1M"])
    words = ["app", "web", "--", "sh", "-c", "echo up; read line"]
    first = subprocess.Popen(
        layerrun.argv(*words, user=anybody),
        env=layerrun.env(anybody),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert first.stdout.readline() == "up\n"
        assert layerrun("app", "web", "--", "bash", "-c", SHOW, user=anybody).out == "100\n200\n0\n1024\n"
        argv = layerrun.argv("app", "web", "--", "bash", "-c", SHOW, user=anybody)
        head = len(argv) - len(layerrun.argv("app", "web", "--", "bash", "-c", SHOW))
        argv = [*argv[:head], "prlimit", "--nofile=50:60", "--", *argv[head:]]
        done = subprocess.run(
            argv, env=layerrun.env(anybody), cwd="/", capture_output=True, text=True, timeout=60, check=False
        )
        assert done.stdout == "60\n60\n0\n1024\n", done.stderr
    finally:
        first.communicate("\n", timeout=30)


FORK = "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; echo all"


def test_processes_are_counted(layerrun, make, anybody):
    """A limit on the processes of the app alone: the same user goes on outside, and in the next app."""
    make("web", anybody, limits=["pids=20"])
    make("other", anybody)
    done = layerrun("app", "web", "--ephemeral", "--", "sh", "-c", FORK, user=anybody)
    assert "all" not in done.out
    assert "fork" in done.err.lower()
    assert (
        layerrun("app", "other", "--ephemeral", "--", "sh", "-c", FORK, user=anybody, check=0).out == "all\n"
    )


def test_memory_of_a_process(layerrun, make, anybody):
    held = make("web", anybody, limits=["memory=64M"])
    hog = "import sys; b = bytearray(int(sys.argv[1]) << 20); print('had')"
    run = ["app", "web", "--", "/usr/bin/python3", "-c", hog]
    assert layerrun(*run, "16", user=anybody, check=0).out == "had\n"
    done = layerrun(*run, "128", user=anybody)
    if held["memory"] == "cgroup":  # which kills, where an rlimit only refuses
        assert done.rc == 137
    else:
        assert (done.rc, "MemoryError" in done.err) == (1, True)


def test_what_nothing_holds_is_said(make):
    held = make("web", limits=["cpu=0.5", "nofile=100"])
    assert held["nofile"] == "rlimit"
    assert held["cpu"] in ("cgroup", "nothing")
