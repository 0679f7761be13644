"""kill -9 of any process of a start: nothing stays, the next start works, and no upper is mounted twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time

import pytest
from support.sandbox import inside_of, overlay_log, wait_for

SLEEP = ["sh", "-c", "echo ready; sleep 1000 & exec sleep 1000"]


def launch(layerrun, who, words=SLEEP, **options):
    return subprocess.Popen(
        layerrun.argv("app", "a", "--", *words, user=who),
        env=layerrun.env(who),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        **options,
    )


def ready(layerrun, who, spawned):
    process = launch(layerrun, who)
    spawned.append(process)
    assert process.stdout.readline() == b"ready\n"
    wait_for(lambda: len(inside_of(process.pid)) >= 3)
    return process


def free(layerrun, who):
    """A start waits for the end if need be, and then nothing runs: a reset works."""
    layerrun("app", "a", "--", "sh", "-c", "true", user=who, check=0)
    layerrun("reset", "-y", "a", user=who, check=0)


@pytest.fixture
def quiet_log():
    """Fail if the kernel said that an upper is mounted twice."""
    before = len(overlay_log())
    yield
    said = [line for line in overlay_log()[before:] if "in-use" in line]
    assert not said


@pytest.mark.alone
def test_the_launcher_is_killed(layerrun, who, spawned, quiet_log):
    layerrun("create", "a", user=who, check=0)
    process = ready(layerrun, who, spawned)
    pids = inside_of(process.pid)
    process.kill()
    process.wait()
    free(layerrun, who)
    assert not [pid for pid in pids if os.path.exists(f"/proc/{pid}/ns/mnt") and _alive(pid)]


def _alive(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.alone
def test_pid_one_is_killed(layerrun, who, spawned, quiet_log):
    layerrun("create", "a", user=who, check=0)
    process = ready(layerrun, who, spawned)
    os.kill(inside_of(process.pid)[0], signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL
    free(layerrun, who)


@pytest.mark.alone
def test_the_command_is_killed(layerrun, who, spawned, quiet_log):
    layerrun("create", "a", user=who, check=0)
    process = ready(layerrun, who, spawned)
    os.kill(inside_of(process.pid)[1], signal.SIGKILL)
    assert process.wait(60) == 128 + signal.SIGKILL
    layerrun("reset", "-y", "a", user=who, check=5)  # what it left behind still runs
    layerrun("kill", "a", user=who, check=0)
    free(layerrun, who)


def test_the_launcher_is_stopped_and_killed(layerrun, either, spawned):
    layerrun("create", "a", user=either, check=0)
    process = ready(layerrun, either, spawned)
    process.send_signal(signal.SIGSTOP)
    process.kill()
    process.wait()
    free(layerrun, either)


@pytest.mark.alone
def test_a_start_right_after_a_kill_never_mounts_twice(layerrun, who, spawned, quiet_log):
    """The lock of a dying sandbox is free before its mounts are gone; whoever gets it waits."""
    layerrun("create", "a", user=who, check=0)
    for i in range(6):
        process = ready(layerrun, who, spawned)
        process.kill()
        # Many processes inside take their time to die.
        done = layerrun("app", "a", "--", "sh", "-c", f"echo {i} >>~/layerrun-test-count", user=who)
        assert done.rc in {0, 5}, done
        process.wait()
    assert (
        layerrun("app", "a", "--", "sh", "-c", "wc -l <~/layerrun-test-count", user=who, check=0).out == "6\n"
    )


def test_a_reset_right_after_a_kill(layerrun, either, spawned):
    layerrun("create", "a", user=either, check=0)
    for _ in range(3):
        process = ready(layerrun, either, spawned)
        process.kill()
        layerrun("reset", "-y", "a", user=either, check=0)
        process.wait()
    free(layerrun, either)


def sweep(layerrun, who, rounds, seed):
    """Kill a random process of a start after a random time, again and again."""
    layerrun("app", "a", "--", "sh", "-c", "echo kept >~/layerrun-test-kept", user=who, check=0)
    start = time.monotonic()
    layerrun("app", "a", "--", "true", user=who, check=0)
    whole = time.monotonic() - start
    chance = random.Random(seed)
    for _ in range(rounds):
        process = launch(layerrun, who, ["sh", "-c", "for i in 1 2 3; do /bin/true; done"])
        time.sleep(chance.uniform(0, 1.2 * whole))
        victims = [process.pid, *inside_of(process.pid)]
        # The plain user's prefix (setpriv) has become the launcher by exec.
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(victims), signal.SIGKILL)
        process.stdout.close()
        if process.wait(60) == -signal.SIGKILL:
            continue
    done = layerrun("app", "a", "--", "sh", "-c", "cat ~/layerrun-test-kept", user=who, check=0)
    assert done.out == "kept\n"
    assert os.listdir(f"{layerrun.store(who)}/staging") == []
    layerrun("reset", "-y", "a", user=who, check=0)


@pytest.mark.alone
def test_kills_at_random(layerrun, who, quiet_log):
    sweep(layerrun, who, 25, 1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2, 6))
@pytest.mark.alone
def test_more_kills_at_random(layerrun, who, seed, quiet_log):
    sweep(layerrun, who, 150, seed)
