"""Somebody inside, and whoever left odd things in the app's folder."""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import subprocess
import sys

import pytest
from support.sandbox import wait_for

REACH = """
import os, signal, sys
for pid in sorted(int(p) for p in os.listdir("/proc") if p.isdecimal()):
    try:
        with open(f"/proc/{pid}/comm") as f: name = f.read().strip()
    except OSError: continue
    if name != "layerrun": continue
    for what in ("fd", "environ", "mem", "maps", "root", "cwd", "exe", "ns/mnt", "task", "fdinfo"):
        path = f"/proc/{pid}/{what}"
        try:
            if what in ("root", "cwd", "exe", "ns/mnt"): os.readlink(path)
            elif what == "fd": [os.readlink(f"{path}/{n}") for n in os.listdir(path)]
            elif what == "fdinfo": [open(f"{path}/{n}").read() for n in os.listdir(path)]
            elif what == "task": continue
            else: open(path, "rb").read(1)
        except OSError: continue
        print("open", pid, what)
    for fd in range(16):
        try: os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY)
        except OSError: continue
        print("opened", pid, fd)
"""


def test_what_stands_beside_is_out_of_reach(apps, either):
    """Neither pid 1 nor what stands beside a guest shows its descriptors, memory or namespaces."""
    apps.first(user=either)
    apps.first(user=either)
    done = apps.popen("python3", "-c", REACH, user=either)
    out, err = done.communicate(timeout=60)
    assert (out, err) == ("", "")


def test_nobody_inside_finds_the_socket(apps, layerrun, either):
    apps.first(user=either)
    store = layerrun.store(either)
    (name,) = os.listdir(f"{store}/apps")
    assert os.path.exists(f"{store}/apps/{name}/socket")
    apps.run('! ls "$1"', f"{store}/apps/{name}/socket", user=either)
    # Sockets of path names are listed for the network namespace, so by name they may be seen; not reached.
    script = (
        "import socket, sys\ns = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
        "try: s.connect(sys.argv[1])\nexcept OSError as e: print(e.errno in (2, 13))"
    )
    done = apps.popen("python3", "-c", script, f"{store}/apps/{name}/socket"[-100:], user=either)
    assert done.communicate(timeout=60)[0] == "True\n"


def test_signals_from_inside(apps, layerrun, either):
    """Pid 1 takes none; who kills what stands beside a guest harms only that guest."""
    first = apps.first(user=either)
    guest = apps.first(user=either)
    script = """
import os, signal
for number in range(1, 65):
    if number not in (32, 33):
        try: os.kill(1, number)
        except OSError: pass
beside = [int(p) for p in os.listdir("/proc") if p.isdecimal() and p != "1"
          and open(f"/proc/{p}/comm").read() == "layerrun\\n"
          and open(f"/proc/{p}/stat").read().rpartition(")")[2].split()[1] == "1"]
mine = os.getppid()
for pid in beside:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCONT):
        os.kill(pid, number)
for pid in beside:
    if pid != mine: os.kill(pid, signal.SIGKILL)
print(len(beside))
"""
    done = apps.popen("python3", "-c", script, user=either)
    out, err = done.communicate(timeout=60)
    assert (out, err, done.returncode) == ("2\n", "", 0)
    assert guest.wait(60) == 137
    assert first.poll() is None
    apps.run("true", user=either)


@pytest.mark.parametrize("how", ["kill -9 0", "kill -9 -1", "kill -9 -- -$$; kill -9 0"])
def test_a_group_ends_at_the_border(apps, layerrun, who, how):
    """kill(0) reaches a whole process group, across pid namespaces: the caller's must be another."""
    argv = layerrun.argv("app", "a", "--", "sh", "-c", how, user=who)
    layerrun("create", "a", user=who, check=0)
    for _ in range(2):  # a fresh start, a join
        # As a script runs it: all of it is one group.
        script = 'trap "" TERM; "$@"; echo "outside: $?"'
        prefix = who.prefix() if who else []
        done = subprocess.run(
            ["setsid", *prefix, "sh", "-c", script, "sh", *argv[len(prefix) :]],
            env=layerrun.env(who),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
        )
        # kill(-1) spares who calls it, and finds nobody else.
        assert f"outside: {1 if how == 'kill -9 -1' else 137}\n" in done.stdout, done
        if how == "kill -9 -1":
            break
        apps.first(user=who)


def test_a_group_has_the_callers_niceness_no_more(apps, either):
    """setpriority(PRIO_PGRP, 0) too stays inside."""
    script = "import os; os.setpriority(os.PRIO_PGRP, 0, 7); print('ready', flush=True); import time; time.sleep(1000)"
    first = apps.ready("python3", "-c", script, user=either, start_new_session=True)
    assert os.getpriority(os.PRIO_PROCESS, first.pid) == 0


def test_full_pids(apps, layerrun, plain_user):
    """No process more may be made: who wants to join is told why, and the app goes on."""
    layerrun("create", "a", user=plain_user, check=0)
    fill = """
import os, signal, sys
children = []
try:
    while len(children) < 100:
        pid = os.fork()
        if not pid: signal.pause()
        children.append(pid)
except BlockingIOError:
    print("ready", flush=True)
sys.stdin.readline()
for pid in children: os.kill(pid, signal.SIGKILL)
for pid in children: os.waitpid(pid, 0)
print("room", flush=True)
sys.stdin.readline()
"""
    # The limit is that of whoever started it first, and counts all processes of the user.
    first = apps.ready("python3", "-c", fill, user=plain_user, before=["prlimit", "--nproc=30"], stdin=-1)
    done = apps.run("echo in", user=plain_user, check=None)
    assert done.rc == 125
    assert "ulimit -u" in done.err, done.err
    first.stdin.write("\n")
    first.stdin.flush()
    assert first.stdout.readline() == "room\n"
    assert apps.run("echo in", user=plain_user).out == "in\n"
    first.stdin.close()
    assert first.wait(60) == 0


def test_a_guest_may_fill_its_pipe(apps):
    """A guest that nobody reads holds nobody else up."""
    apps.first()
    apps.popen("yes")
    for _ in range(5):
        assert apps.run("echo through").out == "through\n"


def folder_of(layerrun, who):
    (name,) = os.listdir(f"{layerrun.store(who)}/apps")
    return f"{layerrun.store(who)}/apps/{name}"


@pytest.mark.parametrize("what", ["stale", "fifo", "file", "link"])
def test_an_odd_socket_is_replaced(apps, layerrun, either, what):
    """A start takes away what an earlier one, or a restored backup, left there."""
    layerrun("create", "a", user=either, check=0)
    path = f"{folder_of(layerrun, either)}/socket"
    victim = f"{folder_of(layerrun, either)}/data"
    if what == "stale":
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
            here = os.open(os.path.dirname(path), os.O_PATH)
            left.bind(f"/proc/self/fd/{here}/socket")
            os.close(here)
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "file":
        open(path, "w").close()
    else:
        os.symlink(victim, path)
    assert os.path.lexists(path)
    apps.first(user=either)
    assert apps.run("echo in", user=either).out == "in\n"
    assert os.path.isdir(victim)


@pytest.mark.parametrize("what", ["missing", "fifo", "stale"])
def test_a_running_app_whose_socket_is_gone(apps, layerrun, either, what):
    """Nobody can join: busy, with what ends it; and that works."""
    first = apps.first(user=either)
    path = f"{folder_of(layerrun, either)}/socket"
    os.unlink(path)
    if what == "fifo":
        os.mkfifo(path)
    elif what == "stale":
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
            here = os.open(os.path.dirname(path), os.O_PATH)
            left.bind(f"/proc/self/fd/{here}/socket")
            os.close(here)
    if either and what != "missing":
        os.chown(path, either.uid, either.gid)
    done = layerrun("app", "a", "--", "true", user=either, check=5)
    assert "layerrun stop a" in done.err
    done = layerrun("enter", "a", "--", "true", user=either, check=5)
    assert "layerrun stop a" in done.err
    layerrun("stop", "a", "--timeout", "5", user=either, check=0)
    assert first.wait(60) in {137, 143}
    layerrun("app", "a", "--", "true", user=either, check=0)


def test_a_silent_caller_at_the_door(apps, layerrun):
    """Who knocks and says nothing, or nonsense, or goes away, is no obstacle."""
    apps.first()
    here = os.open(folder_of(layerrun, None), os.O_PATH)
    callers = []
    try:
        for said in (None, b"", b"x", b"\0" * 4096, b"J" * 600, os.urandom(600)):
            caller = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            caller.connect(f"/proc/self/fd/{here}/socket")
            callers.append(caller)
            if said is not None:
                caller.send(said)
            assert apps.run("echo in").out == "in\n"
    finally:
        for caller in callers:
            caller.close()
        os.close(here)
    children = pathlib.Path(f"/proc/{apps.init()}/task/{apps.init()}/children")
    wait_for(lambda: len(children.read_text().split()) == 1)


LIMITS = b" ".join([b"400 1000"] * 16) + b" 14 1"


def request(version=b"1", limits=LIMITS, count=b"1", end=b"true\0"):
    """Return a request to join, as csrc/join.c has it."""
    head = [version, b"0", b"0", b"022", b"0", b"0", limits, b"", b"/", count]
    return b"".join(word + b"\0" for word in head) + end


BROKEN = {
    "empty": b"",
    "no-nul": b"1",
    "short": b"1\0" + b"0\0" * 5,
    "no-words": request(end=b""),
    "count": request(count=b"99999999999"),
    "negative": request(count=b"-1"),
    "zero": request(count=b"0"),
    "version": request(version=b"9"),
    "no-limits": request(limits=b""),
    "bad-limits": request(limits=b"x"),
    "few-limits": request(limits=b"400 1000 400"),
    "too-nice": request(limits=LIMITS.replace(b" 14 1", b" 29 1")),
    "many-processors": request(limits=LIMITS + b" 0" * 16),
    "odd-processors": request(limits=LIMITS + b" x"),
}


def answers_to(layerrun, bytes_):
    """Send a request as only the owner can; return the types of the answers."""
    here = os.open(folder_of(layerrun, None), os.O_PATH)
    memory = os.memfd_create("request")
    os.write(memory, bytes_)
    null = os.open("/dev/null", os.O_RDWR)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as caller:
        caller.connect(f"/proc/self/fd/{here}/socket")
        socket.send_fds(caller, [apps_message()], [memory, null, null, null])
        caller.settimeout(30)
        answers = []
        while got := caller.recv(65536):
            answers.append(got[:1])
    for fd in (here, memory, null):
        os.close(fd)
    return answers


def test_a_whole_request(apps, layerrun):
    """What the broken ones are made from. A last word that does not end loses a letter."""
    apps.first()
    assert answers_to(layerrun, request(end=b"/bin/true\0")) == [b"W", b"X"]
    assert answers_to(layerrun, request(end=b"/bin/true")) == [b"W", b"E", b"X"]


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_request(apps, layerrun, case):
    """It ends nothing but itself."""
    apps.first()
    assert answers_to(layerrun, BROKEN[case]) == [b"W", b"E"]
    assert apps.run("echo in").out == "in\n"


def apps_message():
    """Return a request's message: type, more, value, number of descriptors, and room for a record."""
    from layerrun.native import ffi

    record = ffi.sizeof("struct lr_error")
    room = max(500, record)
    body = ord("J").to_bytes(4, sys.byteorder) + bytes(8) + (4).to_bytes(4, sys.byteorder) + bytes(room)
    return body + bytes(-len(body) % 4)


def test_a_shares_folder_cannot_hold_the_store(layerrun, either, own_folder):
    """Else the socket could be reached from inside."""
    store = layerrun.store(either)
    layerrun("list", user=either, check=0)
    done = layerrun("create", "a", "--share", store, user=either)
    if done.rc == 0:
        seen = layerrun("app", "a", "--", "ls", store, user=either)
        assert "apps" not in seen.out


def test_signal_numbers_of_a_stranger(apps, layerrun):
    """A message that is no request signals everybody but pid 1."""
    first = apps.ready("sh", "-c", "trap 'echo usr; exit 4' USR1; echo ready; while :; do sleep 0.01; done")
    here = os.open(folder_of(layerrun, None), os.O_RDONLY)
    from layerrun.native.launch import signal_app

    signal_app(here, signal.SIGUSR1)
    os.close(here)
    assert first.communicate(timeout=60)[0] == "usr\n"
    assert first.returncode == 4
