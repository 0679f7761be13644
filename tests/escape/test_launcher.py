"""Checks 20 to 24 and 28 to 33: what reaches the launcher by its caller, and what an app has made for it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import pty
import select
import signal
import subprocess
import sys

import pytest
from support.checks import APPS
from support.sandbox import inside_of, wait_for

check = pytest.mark.check
REFUSED = {"EPERM", "EACCES", "EROFS", "ENOENT"}


def running(place, mode, script, **options):
    """Start a shell script in a mode, wait for its first line, ``ready``."""
    words = place.start(mode, *sh(place, mode, script))
    process = subprocess.Popen(
        place.argv(mode, *words),
        env=place.env(mode),
        **{
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "cwd": "/",
            **options,
        },
    )
    line = process.stdout.readline()
    assert line == "ready\n", (line, process.stderr.read())
    return process


def sh(place, mode, script):
    """Return the words of a shell script: over the base there is a shell of its own."""
    return ["/bin/sh", "-c", script]


@contextlib.contextmanager
def ends(process):
    """End a process and its sandbox when the test is done with it."""
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


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


HOSTILE = "import os, pathlib\npathlib.Path({mark!r}).touch()\n"


@check(29)
@pytest.mark.parametrize("door", ["1", "0"])
def test_hostile_environment(place, mode, door, seen):
    """Neither the loader nor Python takes anything from the environment or the working folder."""
    folder = f"{place.path}/hostile-{mode}-{door}"
    mark = f"{folder}/mark"
    os.makedirs(f"{folder}/layerrun")
    os.chmod(folder, 0o777)
    for name in (
        "layerrun/__init__",
        "layerrun/__main__",
        "click",
        "attrs",
        "attr",
        "sitecustomize",
        "usercustomize",
        "json",
    ):
        pathlib.Path(f"{folder}/{name}.py").write_text(HOSTILE.format(mark=mark))
    pathlib.Path(f"{folder}/startup").write_text(f": >{mark}\n")
    for name in ("newuidmap", "newgidmap", "python3", "python", "git", "sh"):
        pathlib.Path(f"{folder}/{name}").write_text(f"#!/bin/sh\n: >{mark}\nexit 1\n")
        os.chmod(f"{folder}/{name}", 0o755)
    source = f"{folder}/lib.c"
    pathlib.Path(source).write_text(
        "#include <fcntl.h>\n#include <unistd.h>\n__attribute__((constructor)) static void run(void)\n"
        f'{{ close(open("{mark}", O_CREAT | O_WRONLY, 0666)); }}\n'
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", f"{folder}/lib.so", source], check=True)
    env = {
        "PYTHONPATH": folder,
        "PYTHONSTARTUP": f"{folder}/click.py",
        "PYTHONHOME": folder,
        "PYTHONINSPECT": "1",
        "PYTHONPYCACHEPREFIX": folder,
        "PYTHONUSERBASE": folder,
        "PYTHONBREAKPOINT": "click.main",
        "GCONV_PATH": folder,
        "BASH_ENV": f"{folder}/startup",
        "ENV": f"{folder}/startup",
        "LOCPATH": folder,
        "PATH": f"{folder}:/usr/bin:/bin" if not place.prefix(mode) else os.environ["PATH"],
        "LAYERRUN_FRONT_DOOR": door,
        "LAYERRUN_SWEEP": "foreground",
    }
    words = place.start(mode, "/bin/sh", "-c", "echo ran; env")
    for _ in range(2 if door == "1" else 1):
        done = place.layerrun(mode, *words, env=env, cwd=folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("ran\n")
        if mode in APPS:
            assert not [
                line
                for line in done.stdout.splitlines()
                if line.startswith(("PYTHON", "GCONV", "BASH_ENV", "LD_", "ENV="))
            ]
    place.layerrun(mode, "list", env=env, cwd=folder)
    seen("nothing of it was loaded")
    assert not os.path.exists(mark)


@check(29)
def test_a_library_that_is_preloaded_gains_nothing(place, mode, seen):
    """The caller's own LD_PRELOAD is the caller's affair; of an app's command it is not, and no helper gets it."""
    words = place.start(mode, "/bin/sh", "-c", "echo ${LD_PRELOAD-none}")
    done = place.layerrun(mode, *words, env={"LD_PRELOAD": "/no/such/lib.so", "LD_LIBRARY_PATH": "/no/such"})
    assert done.returncode == 0
    seen(f"LD_PRELOAD inside: {done.stdout.strip()}")
    if mode in APPS:
        assert done.stdout == "none\n"


BAD = [
    "-",
    "",
    "a/b",
    "../x",
    "a" * 256,
    "a\nb",
    "\x1b[2J",
    "%s%n",
    "\u2024\u2024",
    ".",
    "..",
    ".a",
    "A",
    "a b",
    "--bind",
    "a@",
    "@b",
]


@check(30)
def test_odd_names(place, mode, seen):
    """The names are looked at by the same code for everybody: a few in each mode, all of them as root."""
    place.make(mode)
    verbs = [["app", "NAME", "--", "/bin/true"], ["reset", "-y", "--", "NAME"], ["create", "--", "NAME"]]
    verbs += [
        ["rename", "--", "a", "NAME"],
        ["show", "--", "NAME"],
        ["app", "a", "--profile", "NAME", "--", "/bin/true"],
    ]
    wanted = [(verbs[0], name) for name in BAD] if mode == "root" else []
    wanted += [(verb, name) for verb in (verbs if mode == "root" else verbs[:1]) for name in BAD[:4]]
    statuses = set()
    for verb, name in wanted:
        done = place.layerrun(mode, *[name if word == "NAME" else word for word in verb])
        statuses.add(done.returncode)
        assert done.returncode in {2, 6}, (verb, name, done.returncode, done.stderr)
        assert "\x1b" not in done.stderr
        assert "Traceback" not in done.stderr
    seen(f"{len(wanted)} tried: status {statuses}")


@check(30)
def test_odd_words(place, mode, seen):
    """What follows -- is the command's, byte for byte; a word that looks like an option is none."""
    odd = [
        "--bind",
        "-",
        "",
        "a/b",
        "../x",
        "x" * 300,
        "a\nb",
        "\x1b[2J",
        "%s%n",
        "\u2024",
        ".",
        "--",
        "-y",
        "--no-userns",
        "$(id)",
        "`id`",
    ]
    script = 'for w; do printf "%s\\0" "$w"; done'
    words = place.start(mode, "/bin/sh", "-c", script, "sh", *odd)
    done = place.layerrun(mode, *words, check=0)
    seen(f"{len(odd)} words as they were")
    assert done.stdout.split("\0") == [*odd, ""]
    done = place.layerrun(mode, *place.start(mode, "--bind"))
    assert done.returncode in {126, 127}  # 126: a folder of the PATH is closed


@check(31)
def test_groups(place, answers, mode, seen):
    """The start had a group that a file is readable for."""
    found = answers.of(31)
    (got,) = [got for what, got in found.items() if what.startswith("open r")]
    said = f"groups {found['Groups'] or 'none'}; the file: {got}"
    if mode in ("root", "try"):
        # The file is its own by the map, as every file of the machine's root: of the group nothing is left.
        assert found["Groups"] in {"", "0"}
    elif mode == "one-id" and got == "OK":
        # Without subordinate ids the kernel lets nobody drop groups. It must be said, and be refused on demand.
        place.layerrun(mode, "create", "ungrouped", "--deny", "groups", check=0)
        prefix = [
            "setpriv",
            "--reuid",
            place.prefix(mode)[2],
            "--regid",
            place.prefix(mode)[4],
            "--groups",
            "42424",
        ]
        done = place.layerrun(
            mode, "app", "ungrouped", "--", "/bin/true", prefix=[*prefix, "--inh-caps=-all"], check=125
        )
        assert "supplementary groups" in done.stderr
        shown = place.layerrun(mode, "show", "a", prefix=[*prefix, "--inh-caps=-all"], check=0).stdout
        assert "supplementary groups" in shown
        seen.open(
            f"{said}: they stay without subordinate ids; `show` says so, --deny groups refuses the start"
        )
        return
    else:
        assert got in {"EACCES", "EPERM", "ENOENT"}
    seen(said)


IGNORING = """
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {15, 1, 17})
os.umask(0o777)
os.execvp(sys.argv[1], sys.argv[1:])
"""
ODD = {
    "nofile": ["prlimit", "--nofile=16:16"],
    "fsize": ["prlimit", "--fsize=0:0"],
    "stack": ["prlimit", "--stack=65536:65536"],
    "core": ["prlimit", "--core=unlimited:unlimited"],
    "nproc": ["prlimit", "--nproc=1:1"],
    "nice": ["nice", "-n", "19"],
    "ignored": [sys.executable, "-c", IGNORING],
    "umask": ["sh", "-c", 'umask 0; exec "$@"', "sh"],
}  # fmt: skip


@check(32)
@pytest.mark.parametrize("odd", ODD)
def test_odd_limits(place, mode, odd, seen):
    """It runs, or says what is short; nothing is half done: the next start is as any."""
    words = place.start(mode, "/bin/sh", "-c", "echo ran; exit 7")
    head = [word.replace(sys.executable, "/usr/bin/python3") for word in ODD[odd]]
    done = place.layerrun(mode, *words, prefix=[*place.prefix(mode), *head])
    seen(f"{odd}: status {done.returncode}")
    assert "Traceback" not in done.stderr
    if done.returncode == 7:
        assert done.stdout == "ran\n"
    else:
        assert done.returncode in {1, 125}
        assert done.stderr.startswith(("layerrun: ", "Fatal Python error: ")), done.stderr
    place.layerrun(mode, *words, check=7)


@check(33)
def test_the_terminal_goes(place, mode, seen):
    """The terminal is closed: what runs gets SIGHUP and goes, and the start comes to its end."""
    words = place.start(mode, "/bin/sh", "-c", "echo ready; exec sleep 1000")
    master, slave = pty.openpty()
    argv = ["setsid", "--ctty", "--wait", *place.argv(mode, *words)]
    process = subprocess.Popen(argv, env=place.env(mode), stdin=slave, stdout=slave, stderr=slave, cwd="/")
    os.close(slave)
    text = b""
    while b"ready" not in text and select.select([master], [], [], 60)[0]:
        text += os.read(master, 4096)
    os.close(master)
    status = process.wait(60)
    seen(f"status {status}")
    assert status in {128 + signal.SIGHUP, -signal.SIGHUP, 137}


@check(33)
def test_closed_and_full(place, mode, seen):
    """0 to 2 are closed; a reader leaves; a full pipe that nobody reads."""
    for closed in ((0,), (1,), (2,), (0, 1, 2)):
        shell = "".join(f" {fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
        words = place.argv(
            mode, *place.start(mode, "/bin/sh", "-c", "readlink /proc/self/fd/0 /proc/self/fd/1; exit 7")
        )
        done = subprocess.run(
            ["sh", "-c", f'exec "$@"{shell}', "sh", *words],
            env=place.env(mode),
            cwd="/",
            timeout=60,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode in {7, 1 if 1 in closed else 7}, (closed, done)
        if done.stdout and 1 not in closed:
            assert done.stdout.splitlines()[0] == "/dev/null"
    words = place.argv(
        mode,
        *place.start(mode, "/bin/sh", "-c", "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done"),
    )
    process = subprocess.Popen(
        words,
        env=place.env(mode),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    with ends(process):
        assert process.stdout.read(100)
        wait_for(lambda: "pipe" in pathlib.Path(f"/proc/{inside_of(process.pid)[-1]}/wchan").read_text())
        process.stdout.close()
        status = process.wait(60)
    process.stdout = None
    seen(f"closed: as it should be; a reader who leaves: status {status}")
    assert status == 128 + signal.SIGPIPE
