"""What a start brings along for pid 1: descriptors that it holds as long as it lives, a network namespace."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

# Runs a start of the app ``a`` with the pipe and the namespace that were inherited; through the front door or not.
START = """
import contextlib, os, sys
from layerrun.runtime import launch, network
from layerrun.runtime.handoff import Door
from layerrun.runtime.plan import Op
from layerrun.store.store import Store
keep, net, through = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "door"
compiled = launch.compile_plan
@contextlib.contextmanager
def made(*args):
    yield network.Made(net, (keep,))
def planned(*args, **options):
    plan = compiled(*args, **options)
    if net >= 0:
        plan.ops.insert(1, Op("namespace", ("net-given",)))
    return plan
network.made = made
launch.compile_plan = planned
launch.store_plan = lambda *args: None
program = os.path.join(os.path.dirname(sys.executable), "layerrun")
with Store.open() as store:
    door = Door(program, ("app", "a")) if through else None
    sys.exit(launch.run(store, store.app("a"), sys.argv[4:], door=door))
"""


@pytest.fixture(params=["door", "python"])
def begin(layerrun, request):
    """Start a command in the app ``a``; returns the process and the end of a pipe whose other end it holds."""
    layerrun("create", "a", check=0)
    running = []

    def start(*words, net=-1):
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-c", START, str(writing), str(net), request.param, *words],
            env=layerrun.env(),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[fd for fd in (writing, net) if fd >= 0],
        )
        os.close(writing)
        running.append((process, reading))
        return process, reading

    yield start
    for process, reading in running:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=60)
        os.close(reading)


def is_held(reading, seconds):
    return not select.select([reading], [], [], seconds)[0]


@pytest.mark.root
@pytest.mark.idmap
def test_pid_1_alone_holds_what_is_kept(layerrun, begin):
    process, reading = begin("sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; echo up; read x; exit 7")
    # The fourth is that of ls on the folder itself.
    assert process.stdout.readline().split() == ["0", "1", "2", "3", "up"]
    joined = layerrun("app", "a", "--", "sh", "-c", "ls /proc/self/fd", check=0)
    assert joined.out.split() == ["0", "1", "2", "3"]
    assert is_held(reading, 0)
    process.communicate("x\n", timeout=60)
    assert process.returncode == 7
    assert not is_held(reading, 30)


@pytest.mark.root
@pytest.mark.idmap
def test_what_stays_behind_a_launcher_keeps_it(layerrun, begin):
    process, reading = begin("sh", "-c", "sleep 600 >/dev/null 2>&1 & echo up")
    assert process.stdout.readline() == "up\n"
    assert process.wait(60) == 0
    assert is_held(reading, 0.2)
    layerrun("kill", "a", check=0)
    assert not is_held(reading, 30)


@pytest.mark.root
@pytest.mark.idmap
def test_a_namespace_that_is_given(begin):
    holder = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", "ip link set lo up; echo up; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "up\n"
    net = os.open(f"/proc/{holder.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    name = os.readlink(f"/proc/{holder.pid}/ns/net")
    process, _ = begin(
        "sh", "-c", "readlink /proc/self/ns/net; ip link set lo down; echo $?; read x", net=net
    )
    assert process.stdout.readline().strip() == name
    assert process.stdout.readline().strip() != "0"
    # Whoever started it is in its own.
    assert os.readlink(f"/proc/{process.pid}/ns/net") != name
    process.communicate("x\n", timeout=60)
    holder.communicate("x\n", timeout=60)
    os.close(net)
