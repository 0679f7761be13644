"""``app --detach`` and ``logs``."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from support.sandbox import wait_for

DOORS = {"hot": None, "cold": "0"}


@pytest.fixture(params=DOORS)
def door(request):
    """Both ways: the environment of a start."""
    return {"LAYERRUN_FRONT_DOOR": DOORS[request.param]}


@pytest.fixture
def app(layerrun, who, door):
    """The app ``a`` with a stored plan; ended afterwards."""
    layerrun("app", "a", "--", "true", user=who, check=0)
    yield who
    layerrun("kill", "a", user=who)


def sh(layerrun, who, door, script, check=0):
    done = layerrun("app", "a", "--detach", "--", "sh", "-c", script, user=who, env=door, check=check)
    assert done.out == ""
    return done


def logged(layerrun, who, wanted, *options):
    wait_for(
        lambda: layerrun("logs", *options, "a", user=who, check=0).out == wanted,
        what=f"the log is {layerrun('logs', *options, 'a', user=who).out!r}",
    )


def runs(layerrun, who):
    return json.loads(layerrun("ps", "--json", user=who, check=0).out)["instances"]


def has_ended(layerrun, who):
    wait_for(lambda: not runs(layerrun, who), what="it never ended")


def test_it_runs_on_and_its_output_is_kept(layerrun, app, door):
    done = sh(layerrun, app, door, "echo out; echo err >&2; cat; readlink /proc/self/fd/0; exec sleep 1000")
    assert done.err == ""
    logged(layerrun, app, "out\nerr\n/dev/null\n")
    assert len(runs(layerrun, app)) == 1
    layerrun("stop", "a", user=app, check=0)
    assert layerrun("logs", "a", user=app, check=0).out == "out\nerr\n/dev/null\n"


def test_nothing_stays_but_pid_1_and_the_command(layerrun, app, door):
    sh(layerrun, app, door, "exec sleep 1000")
    (one,) = runs(layerrun, app)
    assert [process["command"] for process in one["processes"]] == ["sleep 1000"]
    with open(f"/proc/{one['pid']}/stat") as file:
        parent = int(file.read().rpartition(")")[2].split()[1])
    with open(f"/proc/{parent}/cmdline", "rb") as file:
        assert b"layerrun\0app" not in file.read()


def test_its_end_ends_the_app(layerrun, app, door):
    for script in ("exit 3", "kill -9 $$", ":"):
        sh(layerrun, app, door, script)
        has_ended(layerrun, app)


@pytest.mark.parametrize(("command", "status"), [("/no-such", 127), ("/etc", 126)])
def test_a_command_that_cannot_be_run(layerrun, app, door, command, status):
    sh(layerrun, app, door, "echo before")
    has_ended(layerrun, app)
    done = layerrun("app", "a", "-d", "--", command, user=app, env=door, check=status)
    assert f"cannot run '{command}'" in done.err
    assert layerrun("logs", "a", user=app, check=0).out == "before\n"
    assert not runs(layerrun, app)


def test_a_new_app_whose_command_cannot_be_run(layerrun, app, door):
    layerrun("app", "new", "-d", "--", "/no-such", user=app, env=door, check=127)
    assert "new" not in layerrun("list", user=app, check=0).out


def test_a_new_app(layerrun, app, door):
    layerrun("app", "new", "-d", "--", "echo", "x", user=app, env=door, check=0)
    wait_for(lambda: layerrun("logs", "new", user=app, check=0).out == "x\n")


def test_a_second_one_joins_and_adds_to_the_log(layerrun, app, door):
    sh(layerrun, app, door, "echo first; exec sleep 1000")
    logged(layerrun, app, "first\n")
    sh(layerrun, app, door, "echo second; exec sleep 1001")
    logged(layerrun, app, "first\nsecond\n")
    (one,) = runs(layerrun, app)
    assert [process["command"] for process in one["processes"]] == ["sleep 1000", "sleep 1001"]
    done = layerrun("app", "a", "-d", "--", "/no-such", user=app, env=door, check=127)
    assert "cannot run" in done.err
    layerrun("stop", "a", user=app, check=0)


def test_a_fresh_start_keeps_the_log_before_it(layerrun, app, door, store_path):
    for text in ("one", "two", "three"):
        sh(layerrun, app, door, f"echo {text}")
        has_ended(layerrun, app)
    logged(layerrun, app, "three\n")
    store = layerrun.store(app)
    (folder,) = os.listdir(f"{store}/apps")
    with open(f"{store}/apps/{folder}/log.1") as file:
        assert file.read() == "two\n"
    assert sorted(n for n in os.listdir(f"{store}/apps/{folder}") if n.startswith("log")) == ["log", "log.1"]
    assert os.stat(f"{store}/apps/{folder}/log").st_mode & 0o777 == 0o600


def test_reset_drops_the_log(layerrun, app, door):
    sh(layerrun, app, door, "echo x")
    has_ended(layerrun, app)
    layerrun("reset", "-y", "a", user=app, check=0)
    done = layerrun("logs", "a", user=app, check=6)
    assert "nothing has run in it detached" in done.err
    assert "--detach" in done.err


def test_one_attached_may_come_and_go(layerrun, app, door):
    sh(layerrun, app, door, "echo up; exec sleep 1000")
    logged(layerrun, app, "up\n")
    done = layerrun("app", "a", "--", "sh", "-c", "echo mine; exit 4", user=app, env=door, check=4)
    assert done.out == "mine\n"
    assert len(runs(layerrun, app)) == 1


def test_a_guest_that_is_detached_outlives_the_first_launcher(layerrun, app, door):
    first = subprocess.Popen(
        layerrun.argv("app", "a", "--", "sh", "-c", "echo up; exec sleep 1000", user=app),
        env=layerrun.env(app),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert first.stdout.readline() == b"up\n"
    sh(layerrun, app, door, "echo guest; exec sleep 1001")
    first.kill()
    first.communicate(timeout=60)
    wait_for(
        lambda: [p["command"] for one in runs(layerrun, app) for p in one["processes"]] == ["sleep 1001"]
    )


@pytest.mark.root
@pytest.mark.idmap
def test_the_caller_may_be_killed_at_once(layerrun):
    """Its process group, its session, its terminal: none of them is the command's."""
    layerrun("app", "a", "--", "true", check=0)
    words = layerrun.argv("app", "a", "-d", "--", "sh", "-c", "echo up; exec sleep 1000")
    caller = subprocess.Popen(
        ["sh", "-c", '"$@" && echo done && exec sleep 1000', "sh", *words],
        env=layerrun.env(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert caller.stdout.readline() == b"done\n"
    os.killpg(caller.pid, signal.SIGKILL)
    caller.communicate(timeout=60)
    logged(layerrun, None, "up\n")
    assert len(runs(layerrun, None)) == 1
    layerrun("kill", "a", check=0)


@pytest.mark.root
@pytest.mark.idmap
def test_a_pipe_of_the_callers_is_not_held_open(layerrun, door):
    read, write = os.pipe()
    layerrun("app", "a", "--", "true", check=0)
    layerrun("app", "a", "-d", "--", "sleep", "1000", env=door, pass_fds=[write], check=0)
    os.close(write)
    os.set_blocking(read, False)
    assert os.read(read, 1) == b""
    os.close(read)
    layerrun("kill", "a", check=0)


@pytest.mark.root
@pytest.mark.idmap
def test_status_fd(layerrun, door):
    layerrun("app", "a", "--", "true", check=0)
    read, write = os.pipe()
    words = ["app", "--status-fd", str(write), "-d", "a", "--", "sleep", "1000"]
    layerrun(*words, env=door, pass_fds=[write], check=0)
    os.close(write)
    with open(read) as file:
        assert [json.loads(line)["event"] for line in file] == ["started"]
    layerrun("kill", "a", check=0)


@pytest.mark.root
@pytest.mark.idmap
def test_with_an_ephemeral_start_it_makes_no_sense(layerrun):
    layerrun("app", "a", "--", "true", check=0)
    assert "exclude each other" in layerrun("app", "a", "-d", "--ephemeral", "--", "true", check=2).err


@pytest.mark.root
@pytest.mark.idmap
def test_many_at_once(layerrun, door):
    """One starts it, the others join; each line is there once."""
    layerrun("app", "a", "--", "true", check=0)
    layerrun("app", "a", "-d", "--", "sleep", "1000", env=door, check=0)
    started = [
        subprocess.Popen(
            layerrun.argv("app", "a", "-d", "--", "echo", f"line {number}"),
            env=layerrun.env(**door),
            cwd="/",
            stdin=subprocess.DEVNULL,
        )
        for number in range(10)
    ]
    assert [process.wait(timeout=120) for process in started] == [0] * 10
    wanted = sorted(f"line {number}" for number in range(10))
    wait_for(lambda: sorted(layerrun("logs", "a", check=0).out.splitlines()) == wanted)
    layerrun("kill", "a", check=0)


# logs


@pytest.fixture
def log(layerrun, store_path):
    """Write the log of the app ``a`` as it stands."""
    layerrun("app", "a", "-d", "--", "true", check=0)
    has_ended(layerrun, None)
    (folder,) = os.listdir(f"{store_path}/apps")

    def write(data):
        with open(f"{store_path}/apps/{folder}/log", "wb") as file:
            file.write(data)

    return write


LINES = b"".join(b"%d %s\n" % (number, b"x" * (number % 700)) for number in range(2000))


@pytest.mark.root
@pytest.mark.idmap
@pytest.mark.parametrize(
    "data", [b"", b"\n", b"a", b"a\nb", b"a\nb\n", b"\n\n\n", LINES, LINES + b"end"], ids=range(8)
)
def test_the_last_lines(layerrun, log, data):
    log(data)
    for count in (0, 1, 2, 3, 500, 1999, 2000, 2001, 100_000):
        wanted = b"".join(data.splitlines(keepends=True)[-count:]) if count else b""
        assert layerrun("logs", "-n", str(count), "a", text=False, check=0).out == wanted


@pytest.mark.root
@pytest.mark.idmap
def test_bytes_are_kept(layerrun, log):
    data = bytes(range(256)) * 300
    log(data)
    assert layerrun("logs", "a", text=False, check=0).out == data


@pytest.mark.root
@pytest.mark.idmap
def test_a_terminal_is_not_driven(layerrun, log):
    import pty

    log(
        b"plain \xc3\xbc \xff\n\x1b[31mred\x1b[0m\n\x1b]0;title\x07\x1b[2J\x1b[1;1H\x08\xc2\x9b2J\ra\r\nend\x1b[31"
    )
    master, slave = pty.openpty()
    done = subprocess.Popen(
        layerrun.argv("logs", "a"), env=layerrun.env(), stdin=slave, stdout=slave, stderr=slave, cwd="/"
    )
    os.close(slave)
    out = b""
    while True:
        try:
            block = os.read(master, 4096)
        except OSError:
            break
        if not block:
            break
        out += block
    os.close(master)
    assert done.wait(timeout=60) == 0
    assert out.replace(b"\r\n", b"\n").replace(b"\r", b"") == (
        b"plain \xc3\xbc \\xff\n\x1b[31mred\x1b[0m\n"
        b"\\x1b]0;title\\x07\\x1b[2J\\x1b[1;1H\\x08\\x9b2J\\ra\nend\\x1b[31"
    )


def test_following(layerrun, app, door):
    sh(layerrun, app, door, "echo one; sleep 0.5; echo two; sleep 0.5; echo three")
    done = layerrun("logs", "-f", "a", user=app, check=0)
    assert done.out == "one\ntwo\nthree\n"
    assert not runs(layerrun, app)
    assert layerrun("logs", "-f", "-n", "1", "a", user=app, check=0).out == "three\n"


@pytest.mark.root
@pytest.mark.idmap
def test_following_is_interrupted_without_harm(layerrun):
    layerrun("app", "a", "-d", "--", "sh", "-c", "echo up; exec sleep 1000", check=0)
    process = subprocess.Popen(
        layerrun.argv("logs", "-f", "a"),
        env=layerrun.env(),
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == 130
    assert len(runs(layerrun, None)) == 1
    layerrun("kill", "a", check=0)


@pytest.mark.root
@pytest.mark.idmap
def test_following_a_reader_who_leaves(layerrun):
    layerrun("app", "a", "-d", "--", "sh", "-c", "while echo x; do sleep 0.01; done", check=0)
    process = subprocess.Popen(
        layerrun.argv("logs", "-f", "a"),
        env=layerrun.env(),
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"x\n"
    process.stdout.close()
    assert process.wait(timeout=60) == 141
    assert process.stderr.read() == b""
    layerrun("kill", "a", check=0)


@pytest.mark.root
@pytest.mark.idmap
def test_no_app_and_no_log(layerrun):
    layerrun("logs", "none", check=6)
    layerrun("app", "a", "--", "true", check=0)
    assert "nothing has run in it detached" in layerrun("logs", "a", check=6).err
