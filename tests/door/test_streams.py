"""Nothing in the way: full pipes, readers who have gone, closed descriptors; and how little stays behind."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time

import pytest
from support.sandbox import wait_for

# How a command comes to run: by a stored plan; by Python, which hands it over; in what runs already; by Python alone.
WAYS = {
    "hot": (["app", "a"], {}),
    "handed": (["app", "a", "--ephemeral"], {}),
    "joined": (["app", "b"], {}),
    "entered": (["enter", "b"], {}),
    "python": (["app", "a"], {"LAYERRUN_FRONT_DOOR": "0"}),
}


@pytest.fixture(params=WAYS)
def way(request, layerrun, who):
    """``way(*argv, redirect=…, **options)`` starts a command; returns a Popen."""
    words, env = WAYS[request.param]
    layerrun("app", words[1], "--", "true", user=who, check=0)
    running = None
    if words[1] == "b":
        running = subprocess.Popen(
            layerrun.argv("app", "b", "--", "sh", "-c", "echo up; read x", user=who),
            env=layerrun.env(who),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert running.stdout.readline() == b"up\n"

    def start(*argv, redirect="", **options):
        before = ["bash", "-c", f'exec "$@" {redirect}', "bash"] if redirect else []
        return subprocess.Popen(
            before + layerrun.argv(*words, "--", *argv, user=who),
            env=layerrun.env(who, **env),
            cwd="/",
            **{"stdin": subprocess.DEVNULL, **options},
        )

    yield start
    if running:
        running.communicate(b"x\n", timeout=60)


BYTES = 3_000_000
WRITE = f"head -c {BYTES} /dev/zero | tr '\\0' x"


def test_a_slow_reader_gets_every_byte(way):
    process = way("sh", "-c", WRITE + "; exit 3", stdout=subprocess.PIPE)
    time.sleep(0.3)  # the pipe is full by now, and the command waits
    assert process.poll() is None
    data = process.stdout.read()
    assert hashlib.sha256(data).digest() == hashlib.sha256(b"x" * BYTES).digest()
    assert process.wait(timeout=60) == 3


def test_a_reader_who_leaves_ends_the_command_by_sigpipe(way):
    process = way("sh", "-c", "yes; exec yes", stdout=subprocess.PIPE)
    assert process.stdout.read(2) == b"y\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE


def test_a_reader_who_leaves_before_anything_is_written(way):
    read, write = os.pipe()
    os.close(read)
    process = way(
        "sh", "-c", "trap '' PIPE; echo x 2>/dev/null; echo $? >&2", stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert err.strip().isdigit()
    assert int(err) != 0
    assert process.returncode == 0


def test_a_full_pipe_does_not_keep_a_signal_out(way):
    process = way(
        "sh",
        "-c",
        "trap 'exit 9' TERM; echo up; yes >&2 & wait",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"up\n"
    time.sleep(0.2)
    process.terminate()
    assert process.wait(timeout=60) == 9
    process.stderr.close()  # what still writes to it ends


def test_what_is_left_unread_of_stdin_is_the_callers(way):
    read, write = os.pipe()
    os.write(write, b"one\ntwo\nthree\n")
    process = way("sh", "-c", "read a; read b; echo $b", stdin=read, stdout=subprocess.PIPE)
    assert process.communicate(timeout=60)[0] == b"two\n"
    os.close(write)
    assert os.read(read, 100) == b"three\n"
    os.close(read)


@pytest.mark.parametrize("redirect", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_descriptors(way, redirect):
    """What is closed is /dev/null inside, and none of our own files takes its place."""
    script = "cat; echo x; echo y >&2; test -c /dev/fd/0 || test -p /dev/fd/0 || exit 8; exit 6"
    process = way("sh", "-c", script, redirect=redirect, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    out, err = process.communicate(timeout=60)
    closed = [fd for fd, mark in enumerate(["<&-", "", "2>&-"]) if mark and mark in redirect]
    out_closed = re.search(r"(^| )>&-", redirect) is not None
    assert out == (b"" if out_closed else b"x\n")
    assert err == (b"" if 2 in closed else b"y\n")
    assert process.returncode == 6


def test_output_that_cannot_be_written(way):
    with open("/dev/full", "wb") as full:
        process = way("sh", "-c", "echo x || exit 5", stdout=full, stderr=subprocess.PIPE)
        process.communicate(timeout=60)
    assert process.returncode == 5


# What stays


def rss(pid):
    """Return the kilobytes of memory that a process holds, what it shares with whomever counted in full."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return int(re.search(r"^Rss:\s+(\d+) kB", file.read(), re.MULTILINE)[1])


@pytest.mark.parametrize("way", [name for name in WAYS if name != "python"], indirect=True)
def test_less_than_a_mebibyte_stays_behind(way):
    """What others share of it makes no difference here; and the code of the start is given back after a moment."""
    process = way("sh", "-c", "echo up; read x", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"up\n"
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
            beside = [int(pid) for pid in file.read().split()]  # pid 1; of one who has joined there is none
        everybody = [process.pid, *beside]
        wait_for(lambda: sum(rss(pid) for pid in everybody) < 1024, 10, [rss(pid) for pid in everybody])
    finally:
        process.communicate(b"x\n", timeout=60)


@pytest.mark.root
@pytest.mark.idmap
def test_a_killed_launcher_leaves_nothing_of_its_command(layerrun):
    layerrun("app", "a", "--", "true", check=0)
    process = subprocess.Popen(
        layerrun.argv("app", "a", "--ephemeral", "--", "sh", "-c", "echo up; sleep 1000 & wait"),
        env=layerrun.env(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"up\n"
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        (one,) = file.read().split()
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: has_ended(one), what="its pid 1 lives on")


def has_ended(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in ("Z", "X")
    except FileNotFoundError:
        return True
