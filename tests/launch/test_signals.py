"""Signals, orphans, and what a start does with the state that its caller left it in."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from support.sandbox import inside_of, wait_for

TRAP = """
for s in TERM INT HUP USR1 USR2 QUIT ALRM; do trap "echo $s; exit 7" $s; done
echo ready
while :; do sleep 0.01; done
"""


def start(layerrun, who, *words, **options):
    """Start a command whose first line is ``ready``; return once that has come."""
    process = subprocess.Popen(
        layerrun.argv("app", "a", "--", *words, user=who),
        env=layerrun.env(who),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    line = process.stdout.readline()
    assert line == "ready\n", (line, process.stderr.read())
    return process


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT", "ALRM"])
def test_a_signal_reaches_the_command(layerrun, spawned, name):
    process = start(layerrun, None, "sh", "-c", TRAP)
    spawned.append(process)
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.communicate(timeout=60)[0] == f"{name}\n"
    assert process.returncode == 7


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1"])
def test_a_signal_reaches_a_plain_users_command(layerrun, spawned, any_user, name):
    process = start(layerrun, any_user, "sh", "-c", TRAP)
    spawned.append(process)
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert process.communicate(timeout=60)[0] == f"{name}\n"
    assert process.returncode == 7


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "QUIT"])
def test_a_signal_that_is_not_caught_ends_it(layerrun, spawned, name):
    process = start(layerrun, None, "sh", "-c", "echo ready; while :; do sleep 0.01; done")
    spawned.append(process)
    number = getattr(signal, f"SIG{name}")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number


def test_stop_and_go_on(layerrun, spawned):
    process = start(
        layerrun, None, "sh", "-c", "trap 'echo on; exit 3' CONT; echo ready; while :; do sleep 0.01; done"
    )
    spawned.append(process)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60)[0] == "on\n"
    assert process.returncode == 3


def test_what_the_command_of_a_throwaway_leaves_behind_goes_with_it(layerrun, who):
    """Of an app it lives on: tests/instances."""
    script = (
        "setsid sleep 1000 >/dev/null 2>&1 & (trap '' TERM HUP; sleep 1000 >/dev/null 2>&1 &) ; echo done"
    )
    done = layerrun("try", "-n", "--", "sh", "-c", script, user=who, check=0)
    assert done.out.startswith("done\n")  # and no_leaks looks for the rest


ORPHANS = """
import os, sys
for i in range({count}):
    pid = os.fork()
    if pid == 0:
        if os.fork() == 0:
            os.setsid()
        os._exit(0)
    os.waitpid(pid, 0)
left = []
for _ in range(1000):
    left = [p for p in os.listdir("/proc") if p.isdecimal() and p not in ("1", str(os.getpid()))]
    if not left: break
    os.sched_yield(); __import__("time").sleep(0.01)
print(len(left))
"""


def orphans(layerrun, who, count):
    done = layerrun(
        "app", "a", "--", "python3", "-c", ORPHANS.format(count=count), user=who, check=0, timeout=280
    )
    assert done.out == "0\n"


def test_orphans_are_reaped(layerrun, either):
    orphans(layerrun, either, 1000)


@pytest.mark.long
def test_ten_thousand_orphans_are_reaped(layerrun, either):
    orphans(layerrun, either, 10000)


STATE = """
import json, os, resource, signal, sys
print(json.dumps({
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "ignored": [line.split()[1] for line in open("/proc/self/status") if line.startswith("SigIgn")],
    "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
    "umask": os.umask(0),
    "nice": os.nice(0),
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "environ": dict(os.environ),
    "pid": os.getpid(), "ppid": os.getppid(),
}))
"""


def state(layerrun, who=None, *, before="", verb=("app", "a"), env=None, **options):
    """Return what a command inside finds itself in, when the caller did ``before`` (Python) to itself."""
    wrapper = f"import os, resource, signal, sys\n{before}\nos.execvp(sys.argv[1], sys.argv[1:])"
    # An interpreter without its own ideas: -E and -S read neither the environment nor the site.
    argv = layerrun.argv(*verb, "--", "/usr/bin/python3", "-ESc", STATE, user=who)
    done = subprocess.run(
        [sys.executable, "-c", wrapper, *argv],
        env=layerrun.env(who, **(env or {})),
        capture_output=True,
        text=True,
        cwd="/",
        stdin=subprocess.DEVNULL,
        **options,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[0])


def test_sigchld_ignored_by_the_caller(layerrun, either):
    before = "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"
    state(layerrun, either, before=before)
    argv = layerrun.argv("app", "a", "--", "sh", "-c", "true; exit 9", user=either)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import os, signal, sys\n{before}\nos.execvp(sys.argv[1], sys.argv[1:])",
            *argv,
        ],
        env=layerrun.env(either),
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert done.returncode == 9


def test_blocked_signals_stay_blocked_for_the_command(layerrun, either):
    before = "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])"
    assert state(layerrun, either, before=before)["blocked"] == [signal.SIGUSR1, signal.SIGTERM]
    assert state(layerrun, either)["blocked"] == []


def test_ignored_signals_stay_ignored(layerrun):
    """As with nohup(1); what Python ignores for itself (SIGPIPE, SIGXFSZ) is not passed on."""
    found = int(state(layerrun, before="signal.signal(signal.SIGHUP, signal.SIG_IGN)")["ignored"][0], 16)
    assert found & 1 << signal.SIGHUP - 1
    # The interpreter that looks ignores SIGPIPE and SIGXFSZ itself, so a shell is asked for these.
    done = layerrun("app", "a", "--", "sh", "-c", "grep SigIgn /proc/self/status", check=0)
    with open("/proc/self/status") as file:
        ours = next(int(line.split()[1], 16) for line in file if line.startswith("SigIgn"))
    # A run of the tests in the background ignores SIGINT and SIGQUIT: that is the caller's, and is passed on.
    pythons = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert int(done.out.split()[1], 16) & (pythons | ~ours) == 0


def test_the_umask_and_the_niceness_are_the_callers(layerrun, either):
    found = state(layerrun, either, before="os.umask(0o027); os.nice(5)")
    assert found["umask"] == 0o027
    assert found["nice"] == 5


def test_the_store_does_not_depend_on_the_umask(layerrun, folder):
    state(layerrun, before="os.umask(0o777)")
    assert os.stat(layerrun.store()).st_mode & 0o777 == 0o700
    state(layerrun, before="os.umask(0)")
    assert os.stat(layerrun.store()).st_mode & 0o777 == 0o700


def test_only_three_descriptors_are_inherited(layerrun, either, folder):
    before = (
        "fd = os.open('/', os.O_RDONLY)\n"
        "for n in range(3, 201): os.dup2(fd, n)\n"
        "os.dup2(os.open('/etc', os.O_PATH), 150); os.dup2(os.open('/', os.O_PATH), 1000)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 4000))"
    )
    found = state(layerrun, either, before=before)
    assert found["fds"] in ([0, 1, 2], [0, 1, 2, 3])  # 3: that of the listing itself
    # setpriv and the limits of a plain user aside, the limit is the caller's.
    assert found["nofile"] == [2000, 4000]


def test_pid_one_holds_nothing_of_the_caller(layerrun, spawned, folder):
    outside = os.open(folder, os.O_RDONLY)
    process = start(layerrun, None, "sh", "-c", "echo ready; exec sleep 1000", pass_fds=[outside])
    spawned.append(process)
    os.close(outside)
    init = inside_of(process.pid)[0]

    def held():
        return {os.readlink(f"/proc/{init}/fd/{fd}") for fd in os.listdir(f"/proc/{init}/fd")}

    wait_for(lambda: folder not in held())
    for target in held():
        own = ("socket:", "anon_inode:[signalfd]")
        assert target == "/dev/null" or target.startswith(own) or target.endswith("/lock"), target
    assert inside_of(process.pid)[1:] == inside_of(init)


LOOK = """
import os, sys
found = [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)]
os.write(int(sys.argv[1]), " ".join(found).encode())
sys.exit(4)
"""


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_closed_standard_descriptors(layerrun, either, closed):
    """The command gets /dev/null in their place, and no file of layerrun's own."""
    layerrun("create", "a", user=either, check=0)
    script = 'exec "$@" ' + " ".join(f"{fd}>&-" for fd in closed)
    free = next((fd for fd in (1, 2) if fd not in closed), 1)
    done = subprocess.run(
        [
            "sh",
            "-c",
            script,
            "sh",
            *layerrun.argv("app", "a", "--", "python3", "-c", LOOK, str(free), user=either),
        ],
        env=layerrun.env(either),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 4, done.stderr
    if free not in closed:
        found = (done.stdout if free == 1 else done.stderr).split()
        for fd, target in enumerate(found):
            assert target == "/dev/null" if fd in closed or fd == 0 else target.startswith("pipe:"), found


@pytest.mark.parametrize("limit", [64, 20])
def test_few_descriptors(layerrun, either, limit):
    layerrun("create", "a", user=either, check=0)
    before = f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))"
    wrapper = f"import os, resource, sys\n{before}\nos.execvp(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            wrapper,
            *layerrun.argv("app", "a", "--", "sh", "-c", "echo ran", user=either),
        ],
        env=layerrun.env(either),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd="/",
    )
    if done.returncode:
        assert done.returncode == 125
        assert "ulimit -n" in done.stderr
        assert limit < 64
    else:
        assert done.stdout == "ran\n"
    layerrun("app", "a", "--", "true", user=either, check=0)


@pytest.mark.parametrize("limit", [4, 7, 8, 9, 10, 12])
def test_hardly_any_descriptor(layerrun, limit):
    """However few there are: it runs, or says that they are too few; never a crash, never a hang."""
    layerrun("create", "a", check=0)
    wrapper = (
        "import os, resource, sys\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))\nos.execvp(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", wrapper, *layerrun.argv("app", "a", "--", "true")],
        env=layerrun.env(), capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    assert done.returncode in {0, 1, 125}, done
    if done.returncode:
        assert "open files" in done.stderr or "ulimit -n" in done.stderr, done.stderr
    layerrun("app", "a", "--", "true", check=0)


def test_few_processes(layerrun, plain_user):
    """A limit on processes (which counts a user's own) is named."""
    layerrun("create", "a", user=plain_user, check=0)
    wrapper = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))\nos.execvp(sys.argv[1], sys.argv[1:])"
    )
    words = layerrun.argv("app", "a", "--", "true", user=plain_user)
    at = len(plain_user.prefix())
    done = plain_user.run(["/usr/bin/python3", "-c", wrapper, *words[at:]], env=layerrun.env(plain_user))
    assert done.returncode == 125, done
    assert "ulimit -u" in done.stderr
    layerrun("app", "a", "--", "true", user=plain_user, check=0)


def test_no_file_may_be_written(layerrun):
    """RLIMIT_FSIZE of 0: SQLite cannot work then; it is said, and nothing is lost."""
    layerrun("create", "a", check=0)
    wrapper = (
        "import os, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\nos.execvp(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", wrapper, *layerrun.argv("app", "a", "--", "true")],
        env=layerrun.env(), capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    assert done.returncode in {0, 125}, done
    layerrun("app", "a", "--", "true", check=0)


def test_the_environment_of_an_app(layerrun, either):
    extra = {
        "SECRET": "x",
        "LC_TIME": "C",
        "TZ": "UTC",
        "LD_PRELOAD": "",
        "PYTHONPATH": "/x",
        "BASH_ENV": "/x",
    }
    found = state(layerrun, either, env=extra, verb=("app", "a", "-e", "MINE=a=b"))["environ"]
    assert found["MINE"] == "a=b"
    assert (found["LC_TIME"], found["TZ"]) == ("C", "UTC")
    assert found["LAYERRUN_APP"] == "a"
    assert found["HOME"] == (either.home if either else "/root")
    assert not {"SECRET", "PYTHONPATH", "BASH_ENV", "LAYERRUN_STORE", "LD_PRELOAD"} & set(found)


def test_the_environment_of_a_try(layerrun, either):
    found = state(layerrun, either, env={"SECRET": "x"}, verb=("try", "-n"))["environ"]
    assert found["SECRET"] == "x"
    assert found["LAYERRUN_APP"] == "try"


def test_it_is_pid_two(layerrun, either):
    found = state(layerrun, either)
    assert (found["pid"], found["ppid"]) == (2, 1)


@pytest.mark.parametrize("who", [None, "single_user"])
def test_kill_0_stays_inside(layerrun, request, who):
    """A process group reaches beyond a pid namespace, and without root the caller's processes may be signalled."""
    user = request.getfixturevalue(who) if who else None
    script = '"$@" sh -c "trap : TERM; kill -TERM 0; echo inside" & wait $!; echo outside'
    words = [*layerrun.argv("app", "a", "--", user=user)]
    layerrun("app", "a", "--", "true", user=user, check=0)
    done = subprocess.run(
        ["setsid", "-w", "sh", "-c", script, "sh", *words],
        env=layerrun.env(user),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert done.stdout == "inside\noutside\n", done.stderr
    assert done.returncode == 0
