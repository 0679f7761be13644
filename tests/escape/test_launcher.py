"""Checks 20 to 24 and 28: what reaches the launcher by what it holds, and what an app has made for it."""

from __future__ import annotations

import hashlib
import os
import pathlib
import subprocess

import pytest
from support.checks import APPS
from support.launchers import ends, running, sh
from support.sandbox import inside_of, wait_for

check = pytest.mark.check
REFUSED = {"EPERM", "EACCES", "EROFS", "ENOENT"}


@check(20)
def test_descriptors(answers, seen):
    """The start had 3 to 200 open: a folder, / by O_PATH, a file, in turn."""
    found = answers.of(20)
    seen(f"{found['our descriptors']} inside")
    assert found.pop("our descriptors") == "0 1 2"
    assert set(found.values()) <= {"EACCES", "EPERM"}


def held_by(pids, unwanted):
    """Return the descriptors of processes and where they lead; nothing while one is unwanted, or is being closed."""
    try:
        held = {
            (pid, fd): os.readlink(f"/proc/{pid}/fd/{fd}")
            for pid in pids
            for fd in os.listdir(f"/proc/{pid}/fd")
        }
    except FileNotFoundError:
        return None
    return held if not set(held.values()) & set(unwanted) else None


@check(20)
def test_descriptors_of_pid_1(place, mode, seen):
    """As the machine's root sees them: what pid 1 holds is layerrun's own."""
    numbers = [os.open(place.path, os.O_RDONLY), os.open("/", os.O_PATH)]
    try:
        with ends(running(place, mode, "echo ready; read line", stdin=-1, pass_fds=numbers)) as process:
            pids = inside_of(process.pid)
            assert len(pids) >= 2
            # The command runs a moment before pid 1 has closed what it gave it.
            held = wait_for(
                lambda: held_by(pids, unwanted=(place.path, "/")), what="pid 1 holds what was the caller's"
            )
            seen(", ".join(sorted({what.split(":")[0] for what in held.values()})))
            # Of files there is the lock alone, and that only pid 1 has.
            files = {
                (pid, what) for (pid, _), what in held.items() if what.startswith("/") and what != "/dev/null"
            }
            assert {what.rpartition("/")[2] for _, what in files} <= {"lock", "lock (deleted)"}, files
            assert {pid for pid, _ in files} <= {pids[0]}
    finally:
        for number in numbers:
            os.close(number)


@check(21)
def test_the_working_folder(place, mode, seen):
    """CVE-2024-21626: by descriptor, missing inside, through links to descriptors of pid 1 and of the caller."""
    os.makedirs(f"{place.path}/gone", exist_ok=True)
    link = f"{place.path}/to-pid-1"
    if not os.path.islink(link):
        os.symlink("/proc/1/fd/7", link)
    inside = place.decoys.path in place.inside(mode, "x")
    number = os.open(place.path, os.O_RDONLY)
    wanted = [
        f"/proc/self/fd/{number}",
        *(f"/proc/self/fd/{n}" for n in (3, 7)),
        "/proc/1/fd/3",
        "/proc/1/cwd",
    ]
    wanted += ["/proc/1/root", "/proc/self/root/../..", "/no/such/folder", link if inside else "/proc/1/fd/7"]
    script = "pwd -P; readlink /proc/self/cwd"
    try:
        for cwd in wanted:
            words = place.start(mode, *sh(place, mode, script), options=("--cwd", cwd))
            done = place.layerrun(mode, *words, pass_fds=[number])
            seen(f"{cwd}: {done.returncode}")
            if done.returncode:
                assert done.returncode in {2, 125, 126, 127}
                assert done.stdout == ""
                continue
            assert cwd == "/proc/self/root/../.."
            assert done.stdout.splitlines() == ["/", "/"]
        done = place.layerrun(
            mode,
            *place.start(mode, *sh(place, mode, script)),
            cwd=f"/proc/self/fd/{number}",
            pass_fds=[number],
        )
        assert done.returncode == 0
        assert all(line.startswith("/") and "unreachable" not in line for line in done.stdout.splitlines())
    finally:
        os.close(number)


def sum_of(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


@check(22)
def test_the_program_itself(place, answers, mode, seen):
    """CVE-2019-5736: pid 1 and a joiner's helper run from a file of the machine's."""
    program = place.argv(mode)[-1]
    before = sum_of(program)
    found = answers.of(22)
    seen(found)
    assert not {what: got for what, got in found.items() if got not in REFUSED}
    assert sum_of(program) == before


@check(22, only=APPS)
def test_the_program_of_who_joins(place, mode, seen):
    """While others join and leave, each helper's program is opened for writing as often as it goes."""
    program = place.argv(mode)[-1]
    before = sum_of(program)
    script = (
        "echo ready; while :; do for p in /proc/[0-9]*; do"
        ' if read -r n <"$p/comm" 2>/dev/null && [ "$n" = layerrun ]; then'
        ' if (: >>"$p/exe") 2>/dev/null; then echo OPENED; fi; readlink "$p/exe" 2>/dev/null; fi; done; done'
    )
    with ends(running(place, mode, script)) as process:
        for _ in range(20):
            done = place.layerrun(mode, *place.start(mode, *sh(place, mode, "exit 3")))
            assert done.returncode == 3, done.stderr
        process.kill()
        said = process.stdout.read()
    seen("20 joins: nothing opened")
    # A process may have become the command between the look at its name and the link's.
    assert "OPENED" not in said
    assert not [line for line in said.splitlines() if "layerrun" in line]
    assert sum_of(program) == before


@check(7, only=APPS)
def test_who_joins_is_as_confined(place, mode, seen):
    """Every restriction of the first command holds for who joins: filter, capabilities, groups, ids, mounts."""
    names = "Seccomp|Seccomp_filters|NoNewPrivs|Cap...|Uid|Gid|Groups"
    script = f"grep -E '^({names}):' /proc/self/status; cat /proc/self/uid_map /proc/self/gid_map; ls /proc/self/fd"
    links = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done"
    command = sh(place, mode, f"{script}; {links}")
    with ends(running(place, mode, f"echo ready; {script}; {links}; echo done; exec sleep 1000")) as process:
        first = []
        while (line := process.stdout.readline()) != "done\n":
            first.append(line)
        done = place.layerrun(mode, *place.start(mode, *command), check=0)
    seen("as the first")
    assert done.stdout.splitlines(keepends=True) == first
    assert "Seccomp:\t2\n" in first


@check(24, only=APPS)
def test_a_forged_app(place, mode, seen):
    """firejail CVE-2022-31214: what an app writes is never taken for the store's own word."""
    app = place.app_dir(mode)
    script = (
        f"mkdir -p {app} {app}/data {place.store(mode)}/plans 2>/dev/null;"
        f"for f in {app}/lock {app}/socket {app}/log {app}/notify {place.store(mode)}/plans/a"
        f" {place.store(mode)}/catalog.db; do echo '1 1 forged run' >$f; done 2>/dev/null;"
        "mkdir -p /run/layerrun; echo '1 1 forged run' >/run/layerrun/a; echo ready; exec sleep 1000"
    )
    lock = pathlib.Path(f"{app}/lock")
    with ends(running(place, mode, script)) as process:
        (init, *_) = inside_of(process.pid)
        assert lock.read_text().split()[0] == str(init), "the store's lock names the true pid 1"
        listed = place.layerrun(mode, "ps", "--json", check=0).stdout
        assert "forged" not in listed
        assert str(init) in listed
        for path in ("lock", "log", "notify"):
            if os.path.isfile(f"{app}/{path}"):
                assert "forged" not in pathlib.Path(f"{app}/{path}").read_text()
        inside = place.layerrun(
            mode, "enter", "a", "--", "/bin/sh", "-c", f"cat {app}/lock {place.store(mode)}/plans/a"
        )
        assert str(init) not in inside.stdout, "the store's files are not to be read inside"
        seen("the store is not to be reached; ps, enter, stop go by the lock")
        place.layerrun(mode, "stop", "a", "--timeout", "5", check=0)
        assert process.wait(30) in {143, 137}


def false_proc(folder):
    """Make files as /proc has them; return the folder."""
    for name in ("self", "1", "sys/kernel/random", "self/fd", "self/ns"):
        os.makedirs(f"{folder}/{name}", exist_ok=True)
    for name in (
        "self/uid_map",
        "self/gid_map",
        "self/setgroups",
        "self/stat",
        "sys/kernel/random/boot_id",
        "self/mountinfo",
    ):
        pathlib.Path(f"{folder}/{name}").write_text("")
        os.chmod(f"{folder}/{name}", 0o666)
    subprocess.run(["chmod", "-R", "a+rwX", folder], check=True)
    return folder


@check(28)
def test_a_false_proc(place, mode, seen):
    """CVE-2025-52881: /proc is somebody's folder. Nothing is written to it, nothing run on its word."""
    place.make(mode)
    folder = false_proc(f"{place.path}/proc-{mode}")
    words = place.argv(mode, "app", "a", "--", "/bin/sh", "-c", "echo ran")
    script = f'mount --bind {folder} /proc && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh", *words],
        env=place.env(mode),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        timeout=60,
    )
    seen(f"status {done.returncode}")
    assert done.returncode == 125
    assert "ran" not in done.stdout
    assert done.stderr.startswith("layerrun: ") or "proc" in done.stderr
    for root, _, files in os.walk(folder):
        for name in files:
            assert pathlib.Path(root, name).read_text() == "", (root, name)
