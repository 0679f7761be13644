"""Checks 29 to 33: what a caller hands to the launcher: environment, names, words, groups, limits, a terminal."""

from __future__ import annotations

import os
import pathlib
import pty
import select
import signal
import subprocess
import sys

import pytest
from support.checks import APPS
from support.launchers import ends
from support.sandbox import inside_of, wait_for

check = pytest.mark.check

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
