"""Starts that Python works out are carried out by the front door: no Python stays behind a running app."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from support.sandbox import wait_for

BIN = os.path.dirname(sys.executable)
WAIT = ["sh", "-c", "echo up; read x; exit 7"]


def is_python(pid):
    return "python" in os.path.basename(os.readlink(f"/proc/{pid}/exe"))


@pytest.fixture
def started(layerrun):
    """Start a verb that waits for a line inside; returns the process once its command is up."""
    running = []

    def start(*words, user=None, **options):
        process = subprocess.Popen(
            layerrun.argv(*words, user=user),
            env=layerrun.env(user, **options),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=60)


def ends(process, status=7):
    process.communicate("x\n", timeout=60)
    assert process.returncode == status


FORMS = {
    "the first": ["app", "new"],
    "with a variable": ["app", "a", "-e", "A=b"],
    "in a folder": ["app", "a", "--cwd", "/etc"],
    "ephemeral": ["app", "a", "--ephemeral"],
    "a new profile": ["app", "a", "--profile", "work"],
}


@pytest.mark.parametrize("form", FORMS)
def test_no_python_stays_behind(layerrun, started, who, form):
    layerrun("app", "a", "--", "true", user=who, check=0)
    process = started(*FORMS[form], "--", *WAIT, user=who)
    assert not is_python(process.pid)
    ends(process)


def test_no_python_stays_behind_an_enter(layerrun, started, who):
    first = started("app", "a", "--", *WAIT, user=who)
    second = started("enter", "a", "--", *WAIT, user=who)
    assert not is_python(second.pid)
    ends(second)
    ends(first)


def test_no_python_stays_behind_a_shell(layerrun, who):
    layerrun("app", "a", "--", "true", user=who, check=0)
    process = subprocess.Popen(
        layerrun.argv("shell", "a", user=who),
        env=layerrun.env(who),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    process.stdin.write("echo up\n")
    process.stdin.flush()
    assert process.stdout.readline() == "up\n"
    assert not is_python(process.pid)
    process.communicate("exit 7\n", timeout=60)
    assert process.returncode == 7


def test_it_can_be_turned_off(layerrun, started, who):
    process = started("app", "a", "--", *WAIT, user=who, LAYERRUN_FRONT_DOOR="0")
    assert is_python(process.pid)
    ends(process)


@pytest.mark.root
@pytest.mark.idmap
def test_many_first_starts_at_once_leave_no_python(layerrun):
    """One of them starts it, the others join, all through the front door."""
    processes = [
        subprocess.Popen(
            layerrun.argv("app", "a", "--", *WAIT),
            env=layerrun.env(),
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in processes:
        assert process.stdout.readline() == "up\n"
    assert not [process for process in processes if is_python(process.pid)]
    for process in processes:
        ends(process)


@pytest.mark.root
@pytest.mark.idmap
def test_an_ephemeral_start_is_thrown_away_by_python_at_its_end(layerrun, started, store_path):
    layerrun("app", "a", "--", "true", check=0)
    before = os.listdir(f"{store_path}/apps")
    process = started("app", "a", "--ephemeral", "--", *WAIT)
    assert len(os.listdir(f"{store_path}/apps")) == len(before) + 1
    ends(process)
    assert os.listdir(f"{store_path}/apps") == before


# What goes along


def test_variables_and_folder(layerrun, who):
    words = ["-e", "A=1", "-e", "A=2", "--env", "HOME=/x", "-e", "E=", "--cwd", "/usr"]
    script = "echo $A; echo $HOME; echo ${E-unset}; pwd; exit 5"
    for _ in range(2):
        done = layerrun("app", "a", *words, "--", "sh", "-c", script, user=who, check=5)
        assert done.out == "2\n/x\n\n/usr\n"


def test_nothing_of_it_is_seen_inside(layerrun, who):
    for verb in (["app", "a"], ["app", "a", "-e", "A=b"], ["try", "-n"]):
        done = layerrun(
            *verb, "--", "sh", "-c", "env; ls /proc/self/fd; ls -l /proc/self/fd", user=who, check=0
        )
        assert "LAYERRUN_START" not in done.out
        assert "LAYERRUN_PASSED" not in done.out
        assert "memfd" not in done.out
        assert "/apps" not in done.out


@pytest.mark.root
@pytest.mark.idmap
@pytest.mark.parametrize("words", [["x" * 100_000], [""], ["\udcff", "a\nb", "ü"], ["-x", "--", "--help"]])
def test_words_reach_the_command_untouched(layerrun, words):
    argv = ["sh", "-c", 'printf "%s\\0" "$@"', "sh", *words]
    assert layerrun("app", "a", "-e", "A=b", "--", *argv, check=0).out.split("\0")[:-1] == words


def test_a_command_that_is_not_there_takes_a_new_app_back(layerrun, who):
    for words, status in ((["/no-such"], 127), (["/etc"], 126)):
        done = layerrun("app", "new", "--", *words, user=who, check=status)
        assert "removed app new again: its command never ran" in done.err
        assert done.err.count("cannot run") == 1
        assert layerrun("list", user=who, check=0).out == ""


def test_a_folder_that_is_not_there(layerrun, who):
    layerrun("app", "a", "--", "true", user=who, check=0)
    done = layerrun("app", "a", "--cwd", "/nowhere", "--", "true", user=who, check=125)
    assert done.err.count("/nowhere") == 1


# What must not be believed


@pytest.fixture
def data(layerrun):
    """An app with data in it."""
    layerrun("app", "a", "--", "sh", "-c", "echo data >/etc/layerrun-test", check=0)


def still_there(layerrun):
    assert layerrun("app", "a", "--", "cat", "/etc/layerrun-test", check=0).out == "data\n"


@pytest.mark.root
@pytest.mark.idmap
@pytest.mark.parametrize(
    "value",
    ["created", "created:x", "1:created:x", "yes", ":", "", "0", "-1:yes", "99999999999999999999:yes"],
)
def test_variables_of_somebody_else(layerrun, data, value):
    for name in ("LAYERRUN_PASSED", "LAYERRUN_ENDED", "LAYERRUN_START"):
        layerrun("app", "a", "--", "no-such", env={name: value}, check=127)
        layerrun("app", "a", "-e", "A=b", "--", "no-such", env={name: value}, check=127)
        done = layerrun("app", "a", "-e", "A=b", "--", "env", env={name: value}, check=0)
        assert name not in done.out
        done = layerrun("try", "-n", "--", "env", env={name: value}, check=0)
        assert name not in done.out
    still_there(layerrun)


def run_with_start(layerrun, script, *words):
    """Run the front door in the process of a Python that has prepared what ``script`` says."""
    head = "import fcntl, os, sys\nSEALS = 15\n"
    tail = "\nos.execv(sys.argv[1], sys.argv[1:])\n"
    return subprocess.run(
        [sys.executable, "-c", head + script + tail, *layerrun.argv(*words)],
        env=layerrun.env(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


MEMORY = """
fd = os.memfd_create("x", {flags})
os.write(fd, {content!r})
{seal}
os.set_inheritable(fd, True)
os.environ["LAYERRUN_START"] = f"{{{pid}}}:{{fd}}"
"""
SEALED = "fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)"
# A start of nothing: its plan is refused.
HEAD = "layerrun-start 1 0 _ 0 1 0 0 - - - - 0 p a _ _ _ 0 0 0 plan _"
EMPTY = b"".join((b"" if word == "_" else word.encode()) + b"\0" for word in HEAD.split())


@pytest.mark.root
@pytest.mark.idmap
@pytest.mark.parametrize(
    "values",
    [
        {"content": EMPTY, "flags": "2", "seal": SEALED, "pid": "os.getpid()"},
        {"content": EMPTY[:-2], "flags": "2", "seal": SEALED, "pid": "os.getpid()"},
        {"content": EMPTY + b"\0" * 100, "flags": "2", "seal": SEALED, "pid": "os.getpid()"},
        {"content": b"", "flags": "2", "seal": SEALED, "pid": "os.getpid()"},
        {
            "content": EMPTY.replace(b"\x001\x00", b"\x002\x00", 1),
            "flags": "2",
            "seal": SEALED,
            "pid": "os.getpid()",
        },
        {
            "content": EMPTY.replace(b"-\0-\0", b"7\x008\0"),
            "flags": "2",
            "seal": SEALED,
            "pid": "os.getpid()",
        },
        {"content": EMPTY, "flags": "2", "seal": "", "pid": "os.getpid()"},
        {"content": EMPTY, "flags": "0", "seal": "", "pid": "os.getpid()"},
        {"content": EMPTY, "flags": "2", "seal": SEALED, "pid": "os.getppid()"},
        {"content": EMPTY, "flags": "2", "seal": SEALED, "pid": "''"},
    ],
    ids="refused cut-off longer empty another-version no-such-descriptors unsealed unsealable inherited no-pid".split(),
)
@pytest.mark.parametrize(
    "words",
    [
        ["app", "a", "--", "cat", "/etc/layerrun-test"],
        ["app", "a", "-e", "A=b", "--", "cat", "/etc/layerrun-test"],
    ],
)
def test_a_start_that_is_not_as_it_should_be(layerrun, data, values, words):
    done = run_with_start(layerrun, MEMORY.format(**values), *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "data\n", "")


@pytest.mark.root
@pytest.mark.idmap
def test_a_descriptor_that_is_no_memory_file(layerrun, data, store_path):
    for path in ("/dev/zero", "/etc", f"{store_path}/plans/a"):
        script = f"fd = os.open({path!r}, os.O_RDONLY)\nos.set_inheritable(fd, True)\n"
        script += "os.environ['LAYERRUN_START'] = f'{os.getpid()}:{fd}'\n"
        done = run_with_start(layerrun, script, "app", "a", "--", "cat", "/etc/layerrun-test")
        assert (done.returncode, done.stdout, done.stderr) == (0, "data\n", "")


@pytest.mark.root
@pytest.mark.idmap
def test_the_lock_is_held_all_the_way(layerrun, started, store_path):
    """From Python to the front door: whoever looks sees it locked, or the app not yet begun."""
    layerrun("app", "a", "--", "true", check=0)
    (app_id,) = os.listdir(f"{store_path}/apps")
    strace = ["strace", "-f", "-qq", "-e", "trace=flock,execve,clone3", "-o", f"{store_path}/../trace"]
    process = subprocess.Popen(
        [*strace, *layerrun.argv("app", "a", "-e", "A=b", "--ephemeral", "--", "true")],
        env=layerrun.env(),
        cwd="/",
        stdin=subprocess.DEVNULL,
    )
    assert process.wait(timeout=60) == 0
    with open(f"{store_path}/../trace") as file:
        lines = file.read().splitlines()
    handed = max(i for i, line in enumerate(lines) if 'execve("' in line and "/layerrun" in line)
    begun = next(i for i, line in enumerate(lines) if i > handed and "clone3(" in line)
    assert not [line for line in lines[handed:begun] if "flock(" in line]
    assert any("LOCK_EX" in line for line in lines[:handed])
    wait_for(lambda: os.listdir(f"{store_path}/apps") == [app_id])
