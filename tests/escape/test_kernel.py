"""Checks 1 to 19: what somebody inside tries at the kernel. All of it in one start in each mode."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess

import pytest
from support import probes
from support.answers import Answers
from support.checks import APPS

check = pytest.mark.check
ABSENT = {"ENOENT"}
REFUSED = {"EPERM", "EACCES", "EROFS"}
UNKNOWN = {"ENOSYS"}
CAPS = 0x800404FB


def let_through(found, allowed):
    return {what: got for what, got in found.items() if got not in allowed}


@pytest.mark.root
def test_the_probe_can_tell(place):
    """Without any sandbox it says that much is let through: its silence inside means something."""
    groups = "p1 p2 p3 p4 p5 p6 p10 p13 p18 p19".split()
    argv = [f"{place.path}/probe", *groups, *place.decoys.words(lambda name: f"{place.path}/{name}")]
    found = Answers(subprocess.run(argv, capture_output=True, text=True, check=True))
    assert found.of(1)["open w /proc/sys/kernel/core_pattern"] == "OK"
    assert found.of(2)["read /proc/keys"] == "a key of outside"
    assert found.of(2)["read /proc/kallsyms"] == "addresses"
    assert found.of(3)["a mount of type sysfs"] == "there"
    assert found.of(4)["/proc/self/uid_map"].split() == ["0", "0", "4294967295"]
    assert int(found.of(5)["CapEff"], 16) != CAPS
    assert found.of(6)["NoNewPrivs"] == "0"
    assert found.of(10)["request_key of a key of outside"] == "OK"
    assert found.of(13)["userfaultfd"] == "OK"
    reached = {what for what, got in found.of(18).items() if got == "OK"}
    assert {what for what in found.of(18) if "of outside" in what or "loopback" in what} <= reached
    assert found.of(19)["shmget"] == found.of(19)["shm_open"] == found.of(19)["mq_open"] == "OK"


@check(1)
def test_kernel_settings(answers, seen):
    found = answers.of(1)
    seen(found)
    assert not let_through(found, REFUSED | ABSENT)
    assert found["open w /proc/sys/kernel/core_pattern"] in REFUSED, "it is there, and refused"


@check(2)
def test_kernel_insides(answers, seen):
    found = answers.of(2)
    seen(found)
    assert found.pop("read /proc/keys") in {"nothing", "ENOENT", "EACCES"}
    assert found.pop("read /proc/kallsyms") in {"no address", "ENOENT", "EACCES"}
    assert not let_through(found, REFUSED | ABSENT | {"masked"})


@check(3)
def test_sysfs_and_control_groups(answers, seen):
    found = answers.of(3)
    seen(found)
    assert found.pop("entries of /sys") == "0"
    assert found.pop("/proc/self/cgroup") == "/"
    mounts = {what: got for what, got in found.items() if what.startswith("a mount of")}
    assert set(mounts.values()) == {"none"}
    assert not let_through({k: v for k, v in found.items() if k not in mounts}, REFUSED | ABSENT)


@check(4)
def test_the_machines_root(answers, seen, mode):
    found = answers.of(4)
    for name in ("uid_map", "gid_map"):
        lines = [tuple(map(int, line.split())) for line in found[f"/proc/self/{name}"].split(",")]
        seen(f"{name} " + ", ".join(" ".join(map(str, line)) for line in lines))
        if mode == "undo":
            continue
        assert all(outside > 0 for _, outside, _ in lines)
        assert sum(count for _, _, count in lines) == {"one-id": 1}.get(
            mode, 65537 if mode == "subids" else 65536
        )
    assert ("an undo, not a jail" in answers.stderr) is (mode == "undo")


@check(5)
def test_capabilities(answers, seen, mode):
    found = {name: int(value, 16) for name, value in answers.of(5).items()}
    expected = 0 if mode == "one-id" else CAPS
    seen(f"bounding set {found['CapBnd']:x}")
    assert {found[name] for name in found if "Inh" in name or "Amb" in name} == {0}
    assert {found[name] for name in found if "Inh" not in name and "Amb" not in name} == {expected}


@check(6)
def test_no_new_privileges(answers, seen):
    found = answers.of(6)
    seen(f"setuid program: {found['ids of a setuid program']}")
    assert found["NoNewPrivs"] == found["NoNewPrivs of pid 1"] == "1"
    before = found["ids of ourselves"]
    assert found["ids of a setuid program"] == before
    # The kernel executes none at all that wants what the bounding set lacks.
    assert found.get("ids of a program with file capabilities", before) == before
    assert found.get("execute a program with file capabilities", "EPERM") == "EPERM"


@check(7)
def test_the_filter_is_everywhere(answers, seen):
    found = answers.of(7)
    seen(found)
    assert set(found) == {"in the command", "in pid 1", "after fork", "in a thread", "after exec"}
    assert set(found.values()) == {"2"}


@check(8)
def test_other_call_tables(answers, seen):
    probes.need("x86-64")  # the others have one table only
    found = answers.of(8)
    seen(found)
    program = found.pop("an i386 program")
    # Every call refused, exit too: it ends where it halts.
    assert program in {"killed by SEGV", "killed by SYS", "ENOEXEC", "EACCES", "EPERM"}
    assert not let_through(found, UNKNOWN)


@check(9)
def test_typing_for_the_caller(place, seen, mode):
    """With a terminal the command has one of its own: what it types there must not come out at the caller's."""
    words = place.start(mode, place.inside(mode, "probe"), "p9")
    master, slave = pty.openpty()
    argv = ["setsid", "--ctty", "--wait", *place.argv(mode, *words)]
    process = subprocess.Popen(argv, env=place.env(mode), stdin=slave, stdout=slave, stderr=slave, cwd="/")
    text = b""
    while b'"the end"' not in text and select.select([master], [], [], 60)[0]:
        text += os.read(master, 4096)
        assert b"layerrun: cannot" not in text, text
    assert process.wait(60) == 0
    # Whatever was typed for the caller waits in its terminal's input.
    os.set_blocking(slave, False)
    try:
        waiting = os.read(slave, 100)
    except BlockingIOError:
        waiting = b""
    os.close(slave)
    os.close(master)
    found = dict(re.findall(r'"check": 9, "what": "([^"]+)", "got": "([^"]+)"', text.decode()))
    assert found.pop("open /dev/tty") == "OK"
    seen(found)
    assert len(found) == 10
    assert set(found.values()) == {"EPERM"}
    assert waiting == b""


@check(10)
def test_keyrings(answers, seen):
    found = answers.of(10)
    seen(found)
    assert not let_through(found, REFUSED | UNKNOWN)


@check(11)
def test_the_new_mount_calls(answers, seen):
    found = answers.of(11)
    seen(found)
    assert not let_through(found, REFUSED | UNKNOWN)


@check(12)
def test_namespaces_within(answers, seen):
    found = answers.of(12)
    seen(found)
    assert found.pop("clone3 NEWUSER") == "ENOSYS"
    assert not let_through(found, {"EPERM"})


@check(13)
def test_calls_of_no_use_inside(answers, seen):
    found = answers.of(13)
    seen(found)
    assert not let_through(found, REFUSED | UNKNOWN)
    assert found["a call of the future"] == "ENOSYS", "on which C libraries fall back"


@check(14)
def test_device_nodes(answers, seen):
    found = answers.of(14)
    seen(found)
    planted = {what: found.pop(what) for what in ("open a planted c 1:3", "open a planted b 7:0")}
    assert set(planted.values()) == {"EACCES"}
    assert not let_through(found, {"EPERM"} | ({"ENOENT", "EACCES", "EROFS"}))


@check(15)
def test_mounts(answers, seen):
    found = answers.of(15)
    seen(found)
    assert sum(what.startswith("umount") for what in found) > 20
    assert not let_through(found, {"EPERM"})


@check(16)
def test_a_fresh_proc(answers, seen):
    found = answers.of(16)
    seen(found)
    assert not let_through(found, {"EPERM"})


@check(17)
def test_processes_outside(answers, seen, place):
    found = answers.of(17)
    seen(found)
    assert found["processes beside pid 1 and us"] == "0"
    assert found["our parent"] == "1"
    assert found["a namespace of its own"] == "yes"
    for what in ("kill a process of outside", "ptrace it", "pidfd_open it"):
        assert found[what] == "ESRCH"
    assert found["open its /proc"] == "ENOENT"
    assert {found[f"/proc/1/{name}"] for name in ("exe", "root", "cwd")} <= REFUSED
    assert found["kill(-1, SIGKILL) leaves"] == "ESRCH"
    assert place.decoys.sleeper.poll() is None, "somebody outside was killed"


@check(18)
def test_sockets_of_outside(answers, seen):
    """With the machine's network: neither abstract sockets nor, but for shares, those with a path."""
    found = {
        what: got for what, got in answers.of(18).items() if "socket of outside" in what or "/tmp" in what
    }
    seen(found)
    assert len(found) == 4
    assert not let_through(found, REFUSED | ABSENT | {"ECONNREFUSED"})


@check(18, only=APPS)
def test_network_off(place, mode, seen):
    place.make(mode)
    base = ["--base", "small"] if mode == "subids" else []
    place.layerrun(mode, "create", "off", "--network", "none", *base, check=0)
    words = place.decoys.words(lambda name: place.inside(mode, name))
    done = place.layerrun(mode, "app", "off", "--", place.inside(mode, "probe"), "p18", *words)
    found = Answers(done).of(18)
    seen(found)
    assert found.pop("network devices") == "lo"
    assert not let_through(found, REFUSED | ABSENT | {"ECONNREFUSED", "EAFNOSUPPORT"})


@check(19)
def test_shared_memory(answers, seen):
    found = answers.of(19)
    seen(found)
    assert not let_through(found, ABSENT)
