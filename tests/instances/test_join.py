"""A second start joins what runs: it sees the same, and is told the same."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys

import pytest
from support.sandbox import wait_for

LOOK = """
for ns in mnt pid ipc uts net user; do readlink /proc/self/ns/$ns; done
while read -r name value; do
  case $name in Uid:|Gid:|Groups:|Cap*|NoNewPrivs:|Seccomp:|Seccomp_filters:) echo "$name $value";; esac
done </proc/self/status
readlink /proc/self/root; cat /proc/self/oom_score_adj; cat /proc/self/uid_map
"""


def test_it_is_in_the_same_place(apps, who):
    """Namespaces, ids, capabilities, seccomp: as the first command has them."""
    script = f"({LOOK}) >/tmp/first; echo ready; exec sleep 1000"
    apps.ready("sh", "-c", script, user=who)
    first = apps.run("cat /tmp/first", user=who).out
    assert apps.run(LOOK, user=who).out == first
    assert "NoNewPrivs: 1" in first
    assert "Seccomp: 2" in first


def test_it_is_in_the_same_place_over_a_tree(apps, who, tree):
    tree(who)
    apps.ready("sh", "-c", f"({LOOK}) >/tmp/first; echo ready; exec sleep 1000", user=who)
    assert apps.run(LOOK, user=who).out == apps.run("cat /tmp/first", user=who).out


def test_it_sees_the_others_processes(apps, who):
    apps.ready("sh", "-c", "echo $$ >/tmp/pid; echo ready; exec sleep 1000", user=who)
    out = apps.run(
        "kill -0 $(cat /tmp/pid) && cat /proc/$(cat /tmp/pid)/cmdline | tr '\\0' ' '", user=who
    ).out
    assert out == "sleep 1000 "
    assert len(apps.ps(who)) == 1


def test_enter_joins_and_starts_nothing(apps, layerrun, either):
    layerrun("create", "a", user=either, check=0)
    done = apps.run("echo no", user=either, verb="enter", check=125)
    assert "not running" in done.err
    assert "layerrun app a" in done.err
    apps.first(user=either)
    assert apps.run("echo yes", user=either, verb="enter").out == "yes\n"
    assert apps.run("exit 9", user=either, verb="enter", check=9).rc == 9


def test_a_shell_joins(apps, layerrun, either):
    apps.ready("sh", "-c", "echo hi >/tmp/x; echo ready; exec sleep 1000", user=either)
    done = layerrun("shell", "a", user=either, input="cat /tmp/x; exit 3\n", check=3)
    assert "hi\n" in done.out


@pytest.mark.parametrize("code", [0, 1, 2, 125, 126, 127, 128, 130, 137, 255])
def test_the_exit_status_is_the_commands(apps, code):
    apps.first()
    apps.run(f"exit {code}", check=code)


def test_every_exit_status(apps, plain_user):
    """All of them, by one command that many guests run, each once."""
    apps.first(user=plain_user)
    for start in range(0, 256, 32):
        running = [apps.popen("sh", "-c", f"exit {n}", user=plain_user) for n in range(start, start + 32)]
        assert [process.wait(60) for process in running] == list(range(start, start + 32))


@pytest.mark.parametrize("name", ["TERM", "KILL", "HUP", "SEGV", "USR1", "PIPE", "ABRT", "SYS"])
def test_the_signal_that_ended_it(apps, name):
    apps.first()
    apps.run(f"ulimit -c 0; kill -{name} $$", check=128 + getattr(signal, f"SIG{name}"))


BAD = {
    "missing": (["/no/such"], 127),
    "no-path": (["nosuchprogram"], None),  # 126 where a folder of PATH is closed to the caller
    "folder": (["/etc"], 126),
    "no-mode": (["/etc/passwd"], 126),
    "empty": ([""], None),
    "cwd": (["--cwd", "/no/such", "true"], 125),
}


@pytest.mark.parametrize("case", BAD)
def test_the_same_message_as_a_fresh_start(apps, layerrun, either, case):
    words, code = BAD[case]
    options = words[:-1] if case == "cwd" else []
    command = words[-1:] if case == "cwd" else words
    layerrun("create", "a", user=either, check=0)
    fresh = layerrun("app", "a", *options, "--", *command, user=either)
    apps.first(user=either)
    joined = layerrun("app", "a", *options, "--", *command, user=either)
    assert (joined.rc, joined.out, joined.err) == (fresh.rc, fresh.out, fresh.err)
    assert code in (None, joined.rc)
    assert joined.err
    entered = layerrun("enter", "a", *options, "--", *command, user=either)
    assert (entered.rc, entered.err) == (fresh.rc, fresh.err)


STATE = """
import json, os, resource, signal, sys
print(json.dumps({
    "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "ignored": [line.split()[1] for line in open("/proc/self/status") if line.startswith("SigIgn")],
    "umask": os.umask(0),
    "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
    "environ": dict(os.environ),
    "cwd": os.getcwd(),
    "leads": [os.getpid() == os.getpgid(0), os.getpid() == os.getsid(0)],
}))
"""


def state(layerrun, who, *options, before="", cwd="/", env=None):
    """Return what a command finds itself in, when the caller did ``before`` (Python) to itself."""
    wrapper = f"import os, resource, signal, sys\n{before}\nos.execvp(sys.argv[1], sys.argv[1:])"
    argv = layerrun.argv("app", "a", *options, "--", "/usr/bin/python3", "-ESc", STATE, user=who)
    done = subprocess.run(
        [sys.executable, "-c", wrapper, *argv],
        env=layerrun.env(who, **(env or {})),
        capture_output=True,
        text=True,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return __import__("json").loads(done.stdout.splitlines()[0])


def test_what_a_guest_brings_along(apps, layerrun, either):
    """The umask, the signals blocked and ignored, the working folder, the environment: all its own."""
    layerrun("create", "a", user=either, check=0)
    before = (
        "os.umask(0o027)\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])\n"
        "for n in range(3, 51): os.dup2(os.open('/', os.O_RDONLY), n)"
    )
    options = ("-e", "MINE=a=b")
    extra = {"LC_TIME": "C", "SECRET": "x"}
    fresh = state(layerrun, either, *options, before=before, cwd="/usr", env=extra)
    plain = state(layerrun, either)
    apps.first(user=either, env={"LC_TIME": "POSIX"}, before=["nohup"])
    joined = state(layerrun, either, *options, before=before, cwd="/usr", env=extra)
    assert joined == fresh
    assert joined["cwd"] == "/usr"
    assert joined["fds"] in ([0, 1, 2], [0, 1, 2, 3])
    assert joined["blocked"] == [signal.SIGUSR2]
    # The next has nothing of those before it: not even what the first, under nohup, ignores.
    assert state(layerrun, either) == plain


def test_a_guest_that_ignores_hup(apps):
    """As with a fresh start, nohup(1) holds inside."""
    apps.first()
    done = apps.popen("sh", "-c", "kill -HUP $$; echo still", before=["nohup"])
    assert done.communicate(timeout=60)[0] == "still\n"


def test_a_working_folder_that_is_not_there(apps, layerrun, either, folder):
    layerrun("create", "a", "--hide", "/var/tmp", user=either, check=0)
    apps.first(user=either)
    done = layerrun("app", "a", "--", "pwd", user=either, cwd=folder, check=0)
    assert folder in done.err
    assert done.out.strip() != folder
    assert layerrun("app", "a", "--cwd", "/etc", "--", "pwd", user=either, check=0).out == "/etc\n"


ODD = [b"a b", b"\xff\xfe\x01", b"new\nline", b"'\"$x\\", b"-n", b"", b"=", "\u00e9".encode()]


def test_odd_bytes(apps, layerrun, either):
    layerrun("create", "a", user=either, check=0)
    apps.first(user=either)
    words = [os.fsdecode(word) for word in ODD]
    done = layerrun("app", "a", "--", "printf", "%s\\0", *words, user=either, text=False, check=0)
    assert done.out == b"".join(word + b"\0" for word in ODD)
    value = os.fsdecode(b"\xffx\n=y")
    done = layerrun(
        "app", "a", "-e", f"ODD={value}", "--", "printenv", "ODD", user=either, text=False, check=0
    )
    assert done.out == b"\xffx\n=y\n"


def test_a_megabyte_of_arguments(apps, layerrun, either):
    layerrun("create", "a", user=either, check=0)
    apps.first(user=either)
    script = "n=0; for w; do n=$((n + ${#w})); done; echo $n"
    words = ["x" * 100_000] * 10 + ["y"] * 5000
    assert apps.run(script, *words, user=either).out == "1005000\n"


def test_closed_standard_descriptors(apps, layerrun):
    apps.first()
    argv = layerrun.argv("app", "a", "--", "sh", "-c", "readlink /proc/self/fd/0 >/tmp/fd; exit 4")
    for closed in ("0>&-", "0>&- 1>&-", "0>&- 2>&-", "1>&- 2>&-", "0>&- 1>&- 2>&-"):
        script = f'exec "$@" {closed}'
        done = subprocess.run(["sh", "-c", script, "sh", *argv], env=layerrun.env(), cwd="/")
        assert done.returncode == 4
        if "0>" in closed:
            assert apps.run("cat /tmp/fd").out == "/dev/null\n"


@pytest.mark.parametrize("limit", [4, 6, 8, 10, 16, 64])
def test_few_descriptors_of_a_guest(apps, layerrun, limit):
    layerrun("create", "a", check=0)
    apps.first()
    done = apps.popen("echo", "ran", before=["prlimit", f"--nofile={limit}"])
    out, err = done.communicate(timeout=60)
    assert done.returncode in {0, 1, 125}, err
    if done.returncode:
        assert "open files" in err or "ulimit -n" in err
    else:
        assert out == "ran\n"
    apps.run("true")


@pytest.mark.parametrize("limit", [16, 24, 64])
def test_few_descriptors_of_the_first(apps, layerrun, limit):
    """Its limit is that of pid 1, which lets others in."""
    layerrun("create", "a", check=0)
    layerrun("app", "a", "--", "true", check=0)
    first = apps.popen("sh", "-c", "echo ready; exec sleep 1000", before=["prlimit", f"--nofile={limit}"])
    if first.stdout.readline() != "ready\n":
        assert "ulimit -n" in first.stderr.read()
        return
    assert apps.run("echo in").out == "in\n"


def test_no_descriptor_stays_with_pid_one(apps, layerrun, folder, either):
    layerrun("create", "a", user=either, check=0)
    apps.first(user=either)
    init = apps.init(either)
    held = os.listdir(f"/proc/{init}/fd")
    for _ in range(20):
        apps.run("true", user=either)
    assert os.listdir(f"/proc/{init}/fd") == held
    for fd in held:
        target = os.readlink(f"/proc/{init}/fd/{fd}")
        assert re.fullmatch(r"/dev/null|socket:.*|anon_inode:\[signalfd\]|.*/lock", target), target


def test_a_pipe_from_guest_to_guest(apps, layerrun):
    """What stands beside a guest's command keeps no end of its pipes open."""
    apps.first()
    apps.ready("sh", "-c", "echo ready; exec sleep 999")
    init = apps.init()
    with open(f"/proc/{init}/task/{init}/children") as file:
        beside = file.read().split()[1]
    for fd in os.listdir(f"/proc/{beside}/fd"):
        target = os.readlink(f"/proc/{beside}/fd/{fd}")
        assert re.fullmatch(r"/dev/null|socket:.*|anon_inode:\[signalfd\]", target), target
    done = layerrun("app", "a", "--", "cat", input="through\n", check=0)
    assert done.out == "through\n"
    lines = apps.popen("yes")
    assert lines.stdout.readline() == "y\n"
    lines.stdout.close()
    assert lines.wait(60) == 128 + signal.SIGPIPE


def test_no_python_stays(apps, layerrun, either):
    """Nor after the very first start, which makes the app; what stays is small."""
    processes = [apps.first(user=either), apps.first(user=either)]
    pids = [process.pid for process in processes] + [apps.init(either)]
    for pid in pids:
        wait_for(lambda pid=pid: "python" not in os.readlink(f"/proc/{pid}/exe"))
        with open(f"/proc/{pid}/status") as file:
            (size,) = re.findall(r"VmRSS:\s+(\d+) kB", file.read())
        assert int(size) < 1024
    init = pids[-1]
    with open(f"/proc/{init}/task/{init}/children") as file:
        inside = file.read().split()
    assert len(inside) == 2  # the first command, and what stands beside the second
    for pid in inside:
        assert "python" not in os.readlink(f"/proc/{pid}/exe")
