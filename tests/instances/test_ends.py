"""Who ends what: signals, kill -9, the last process, stop and kill."""

from __future__ import annotations

import os
import signal
import time

import pytest
from support.sandbox import inside_of, wait_for

TRAP = """
for s in TERM INT HUP USR1 USR2 QUIT ALRM; do trap "echo $s; exit 7" $s; done
echo ready
while :; do sleep 0.01; done
"""


def alive(pid):
    """Say whether a process runs (and is not merely unreaped)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2", "QUIT", "ALRM"])
def test_a_signal_reaches_the_guests_command_only(apps, either, name):
    first = apps.ready("sh", "-c", TRAP, user=either)
    other = apps.ready("sh", "-c", TRAP, user=either)
    guest = apps.ready("sh", "-c", TRAP, user=either)
    guest.send_signal(getattr(signal, f"SIG{name}"))
    assert guest.communicate(timeout=60)[0] == f"{name}\n"
    assert guest.returncode == 7
    assert first.poll() is None
    assert other.poll() is None
    first.send_signal(getattr(signal, f"SIG{name}"))
    assert first.communicate(timeout=60)[0] == f"{name}\n"
    assert other.poll() is None
    apps.run("echo still", user=either)


def state_of(apps, who, file):
    return apps.run(f"awk '{{print $3}}' /proc/$(cat {file})/stat", user=who).out.strip()


def test_stop_and_go_on(apps, either):
    """SIGTSTP to the launcher stops its command and itself, SIGCONT wakes both; nobody else's."""
    loop = "echo $$ >/tmp/{}; echo ready; while :; do sleep 0.01; done"
    apps.ready("sh", "-c", loop.format("first"), user=either)
    # A job of a shell: the kernel takes no notice of SIGTSTP in a group that nobody could wake.
    guest = apps.ready("sh", "-c", loop.format("guest"), user=either, process_group=0)
    guest.send_signal(signal.SIGTSTP)
    wait_for(lambda: state_of(apps, either, "/tmp/guest") == "T")
    wait_for(lambda: os.waitid(os.P_PID, guest.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None)
    assert state_of(apps, either, "/tmp/first") != "T"
    guest.send_signal(signal.SIGCONT)
    wait_for(lambda: state_of(apps, either, "/tmp/guest") != "T")
    guest.terminate()
    assert guest.wait(60) == 143


def test_a_killed_guest_takes_its_command_along(apps, either):
    first = apps.first(user=either)
    other = apps.first(user=either)
    guest = apps.ready("sh", "-c", "sleep 777 & echo $$ >/tmp/pid; echo ready; sleep 778; :", user=either)
    guest.kill()
    guest.wait(30)
    wait_for(lambda: not any("77" in p["command"] for p in apps.ps(either)["a"]["processes"]))
    assert first.poll() is None
    assert other.poll() is None


def test_the_first_killed_alone_ends_everything(apps, layerrun, who):
    first = apps.ready(
        "sh", "-c", "setsid sleep 777 & (trap '' TERM HUP; sleep 778 &) ; echo ready; wait", user=who
    )
    pids = inside_of(first.pid)
    assert len(pids) >= 3
    first.kill()
    first.wait(30)
    wait_for(lambda: not any(alive(pid) for pid in pids))
    assert apps.ps(who) == {}
    layerrun("reset", "-y", "a", user=who, check=0)
    layerrun("remove", "-y", "a", user=who, check=0)


def test_the_first_killed_with_others_there(apps, layerrun, either):
    first = apps.ready("sh", "-c", "echo ready; sleep 777; :", user=either)
    guest = apps.first(user=either)
    first.kill()
    first.wait(30)
    wait_for(lambda: not any("777" in p["command"] for p in apps.ps(either)["a"]["processes"]))
    assert guest.poll() is None
    apps.run("true", user=either)
    layerrun("reset", "-y", "a", user=either, check=5)
    guest.terminate()
    assert guest.wait(60) == 143
    apps.gone(either)
    layerrun("reset", "-y", "a", user=either, check=0)


def test_pid_one_killed_ends_all(apps, layerrun, either):
    everybody = [apps.first(user=either) for _ in range(4)]
    os.kill(apps.init(either), signal.SIGKILL)
    assert [process.wait(60) for process in everybody] == [137] * 4
    apps.gone(either)
    layerrun("app", "a", "--", "true", user=either, check=0)


def test_the_first_may_end_first(apps, layerrun, either):
    """Its status is its own command's, at once; who joined goes on, and the last one out ends it."""
    first = apps.ready("sh", "-c", "echo x >/tmp/x; echo ready; read line; exit 9", user=either, stdin=-1)
    guest = apps.first(user=either)
    first.stdin.write("\n")
    first.stdin.flush()
    assert first.wait(60) == 9
    assert guest.poll() is None
    assert apps.run("cat /tmp/x", user=either).out == "x\n"
    guest.terminate()
    guest.wait(60)
    apps.gone(either)
    assert apps.run("ls -A /tmp", user=either).out == ""


def daemon(apps, who, command="sleep 1000"):
    """Leave a process behind in the app."""
    apps.run(f"echo x >/tmp/x; setsid {command} >/dev/null 2>&1 </dev/null & echo left", user=who)


def test_a_daemon_keeps_the_app_running(apps, layerrun, who):
    daemon(apps, who)
    (process,) = apps.ps(who)["a"]["processes"]
    assert process["command"] == "sleep 1000"
    assert "sleep 1000" in layerrun("ps", user=who, check=0).out
    for words in (("reset", "-y", "a"), ("remove", "-y", "a"), ("clear-cache", "-y", "a")):
        done = layerrun(*words, user=who, check=5)
        assert "layerrun stop a" in done.err, done.err
        assert "is running" in done.err
    assert apps.run("cat /tmp/x", user=who).out == "x\n"
    layerrun("stop", "a", user=who, check=0)
    assert apps.ps(who) == {}
    assert apps.run("ls -A /tmp; true", user=who).out == ""
    layerrun("remove", "-y", "a", user=who, check=0)


def test_a_guests_daemon_keeps_it_running(apps, layerrun, either):
    first = apps.first(user=either)
    daemon(apps, either)
    first.terminate()
    assert first.wait(60) == 143
    assert [p["command"] for p in apps.ps(either)["a"]["processes"]] == ["sleep 1000"]
    layerrun("kill", "a", user=either, check=0)
    assert apps.ps(either) == {}


def test_the_daemons_end_is_the_apps(apps, layerrun, either):
    daemon(apps, either)
    (process,) = apps.ps(either)["a"]["processes"]
    os.kill(process["pid"], signal.SIGTERM)
    apps.gone(either)
    assert apps.run("ls -A /tmp", user=either).out == ""


def test_stop_asks_first(apps, layerrun, either):
    """SIGTERM reaches every process, also one that is stopped."""
    script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done"
    both = [apps.ready("sh", "-c", script, user=either) for _ in range(2)]
    daemon(apps, either, "sh -c 'kill -STOP $$; sleep 1000'")
    layerrun("stop", "a", "--timeout", "60", user=either, check=0)
    for process in both:
        assert process.communicate(timeout=60)[0] == "bye\n"
        assert process.returncode == 3
    assert apps.ps(either) == {}
    done = layerrun("stop", "a", user=either, check=0)
    assert "not running" in done.err


def test_stop_ends_what_will_not_listen(apps, layerrun, either):
    script = "trap '' TERM; echo ready; while :; do sleep 0.01; done"
    deaf = apps.ready("sh", "-c", script, user=either)
    layerrun("stop", "a", "--timeout", "0.3", user=either, check=0)
    assert deaf.wait(60) == 137
    assert apps.ps(either) == {}


def test_stop_reaches_other_users_inside(apps, layerrun, tree):
    """A daemon that gave up root: pid 1 may signal it all the same."""
    script = (
        "import os; os.setgid(33); os.setuid(33); print('ready', flush=True); import time; time.sleep(1000)"
    )
    apps.ready("python3", "-c", script)
    layerrun("stop", "a", "--timeout", "60", check=0)
    assert apps.started[0].wait(60) == 143


def test_kill_is_at_once(apps, layerrun, who):
    script = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done"
    processes = [apps.ready("sh", "-c", script, user=who) for _ in range(2)]
    layerrun("kill", "a", user=who, check=0)
    assert [process.wait(60) for process in processes] == [137, 137]
    layerrun("remove", "-y", "a", user=who, check=0)


def test_ps(apps, layerrun, either):
    assert layerrun("ps", user=either, check=0).out == ""
    assert apps.ps(either) == {}
    before = time.time()
    apps.first(user=either, app="b")
    apps.first(user=either, app="a")
    apps.ready("sh", "-c", "echo ready; exec sleep 999", user=either, app="a")
    found = apps.ps(either)
    assert sorted(found) == ["a", "b"]
    assert set(found["a"]) == {"name", "pid", "started", "network", "address", "publish", "processes"}
    assert (found["a"]["network"], found["a"]["address"], found["a"]["publish"]) == ("host", None, [])
    commands = [process["command"] for process in found["a"]["processes"]]
    assert "sleep 1000" in commands
    assert "sleep 999" in commands
    assert len(commands) == 2  # not what stands beside the second
    for process in found["a"]["processes"]:
        assert alive(process["pid"])
    started = time.mktime(time.strptime(found["a"]["started"], "%Y-%m-%dT%H:%M:%SZ")) - time.timezone
    assert before - 5 < started < time.time() + 5
    lines = layerrun("ps", user=either, check=0).out.splitlines()
    assert lines[0].split() == ["NAME", "PID", "STARTED", "COMMAND"]


def test_ps_lists_nobody_who_has_ended(apps, who):
    # Whom nobody waits for has a name still, and no command line any more.
    apps.ready("sh", "-c", "sleep 0.1 & echo ready; exec sleep 1000", user=who)
    parent = next(one for one in apps.ps(who)["a"]["processes"] if "1000" in one["command"])["pid"]
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        (child,) = file.read().split()
    wait_for(lambda: not alive(child), what="the child's end")
    assert os.path.exists(f"/proc/{child}")
    assert [one["command"] for one in apps.ps(who)["a"]["processes"]] == ["sleep 1000"]


def test_a_running_app_is_renamed(apps, layerrun, either):
    guest = apps.first(user=either)
    layerrun("rename", "a", "b", user=either, check=0)
    assert list(apps.ps(either)) == ["b"]
    assert apps.run("cat /proc/1/comm", user=either, app="b").out == "layerrun\n"
    layerrun("reset", "-y", "b", user=either, check=5)
    layerrun("stop", "b", user=either, check=0)
    assert guest.wait(60) == 143


def test_a_throwaway_ends_with_its_command(layerrun, either):
    script = "setsid sleep 1000 >/dev/null 2>&1 & (trap '' TERM HUP; sleep 1000 >/dev/null 2>&1 &); echo done"
    done = layerrun("try", "-n", "--", "sh", "-c", script, user=either, check=0)
    assert done.out.startswith("done\n")  # and no_leaks looks for the rest
