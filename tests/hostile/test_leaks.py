"""What of the caller's reaches a command that was not given it. Signals and limits: tests/launch/test_signals.py."""

from __future__ import annotations

import json
import os
import shlex
import subprocess

import pytest

# In the words of the command inside: what it finds of its caller's.
LOOK = r"""
import json, os
def tried(work):
    try: return work()
    except OSError as error: return error.strerror
print(json.dumps({
    "fds": [fd for fd in map(int, os.listdir("/proc/self/fd")) if os.path.lexists(f"/proc/self/fd/{fd}")],
    "cwd": tried(os.getcwd), "env": dict(os.environ),
}))
"""

# Around a start: descriptors 3 to 200, one of a folder, one of / by path alone, and a deleted working folder.
AROUND = r"""
import os, signal, sys
for number in range(3, 200):
    if number != 77: os.dup2(os.open(sys.argv[1], os.O_RDWR), number, inheritable=True)
os.dup2(os.open("/", os.O_RDONLY | os.O_DIRECTORY), 150, inheritable=True)
os.dup2(os.open("/", os.O_PATH), 151, inheritable=True)
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def look(layerrun, decoy):
    """Run `LOOK` inside by any way in: ``look("app", "a", who=..., around=[...])``."""

    def run(*words, who=None, around=(), check=True, env=None, **options):
        argv = layerrun.argv(*words, "--", "/usr/bin/python3", "-c", LOOK, user=who)
        prefix = len(who.prefix()) if who else 0
        done = subprocess.run(
            [*argv[:prefix], *around, *argv[prefix:]],
            env=layerrun.env(who, **(env or {})),
            stdin=options.pop("stdin", subprocess.DEVNULL),
            capture_output=True,
            text=True,
            timeout=60,
            cwd=options.pop("cwd", "/"),
            **options,
        )
        if not check:
            return done
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


WAYS = {
    "new": ("app", "new"),
    "start": ("app", "a"),
    "ephemeral": ("app", "a", "--ephemeral"),
    "profile": ("app", "a", "--profile", "p"),
    "throwaway": ("try", "-n"),
}


def test_descriptors(look, layerrun, decoy, either):
    """Whatever is open before: inside there are 0, 1 and 2 (and the one that looks), by every way in."""
    target = f"{decoy(either).path}/file"
    around = ["/usr/bin/python3", "-c", AROUND, target]
    layerrun("create", "a", user=either, check=0)
    for words in WAYS.values():
        for _ in range(2):
            seen = look(*words, who=either, around=around)
            assert seen["fds"] == [0, 1, 2], (words, seen["fds"])
    holder = subprocess.Popen(
        layerrun.argv("app", "a", "--", "sh", "-c", "echo ready; exec sleep 1000", user=either),
        env=layerrun.env(either),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd="/",
    )
    try:
        assert holder.stdout.readline() == b"ready\n"
        for words in (("app", "a"), ("enter", "a")):
            assert look(*words, who=either, around=around)["fds"] == [0, 1, 2], words
    finally:
        layerrun("kill", "a", user=either)
        holder.wait(30)
        holder.stdout.close()


@pytest.mark.parametrize("cwd", ["/proc/self/fd/150", "/proc/self/fd/151", "/proc/self/cwd"])
def test_working_folders_of_the_host(look, layerrun, decoy, either, cwd):
    """CVE-2024-21626: what --cwd names is inside, or it is refused."""
    layerrun("create", "a", user=either, check=0)
    around = ["/usr/bin/python3", "-c", AROUND, f"{decoy(either).path}/file"]
    for _ in range(2):
        done = look("app", "a", "--cwd", cwd, who=either, around=around, check=False)
        if done.returncode == 0:
            assert cwd == "/proc/self/cwd", done.stdout
            assert json.loads(done.stdout)["cwd"].startswith("/")
        else:
            assert done.returncode == 125, done
            assert "working folder" in done.stderr, done.stderr


def test_no_terminal_of_the_callers(look, layerrun, either):
    """Without a terminal of its own the command has none, not even by /dev/tty."""
    layerrun("create", "a", user=either, check=0)
    around = ["script", "-qec"]
    words = layerrun.argv(
        "app", "a", "--", "sh", "-c", "(exec </dev/tty) 2>/dev/null && echo has || echo none", user=either
    )
    prefix = len(either.prefix()) if either else 0
    line = f"{shlex.join(words[prefix:])} </dev/null 2>/dev/null | cat"
    done = subprocess.run(
        [*words[:prefix], *around, line, "/dev/null"],
        env=layerrun.env(either),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd="/",
        timeout=60,
    )
    assert "none" in done.stdout, done


def test_variables(look, layerrun, either):
    """A short list is kept; what is named is passed on as it is at each start, and never stored."""
    layerrun("create", "a", "-e", "PASSED", "-e", "FIXED=1", "-e", "HOME", user=either, check=0)
    secret = {
        "SECRET": "s3cret",
        "LD_PRELOAD_X": "x",
        "PYTHONSTARTUP": "/x",
        "BASH_ENV": "/x",
        "PASSED": "one",
    }
    for value in ("one", "two", "three"):
        seen = look(
            "app", "a", "-e", "ALSO", "-e", "GONE", who=either, env={**secret, "PASSED": value, "ALSO": value}
        )
        env = seen["env"]
        assert (env["PASSED"], env["ALSO"], env["FIXED"]) == (value, value, "1")
        assert not {"SECRET", "LD_PRELOAD_X", "PYTHONSTARTUP", "BASH_ENV", "GONE"} & set(env)
    assert "PASSED" not in look("app", "a", who=either)["env"]
    store = layerrun.store(either)
    for name in os.listdir(f"{store}/plans"):
        with open(f"{store}/plans/{name}", "rb") as file:
            assert b"PASSED=" not in file.read()
    for bad in ("=x", "", "A*"):
        assert layerrun("create", "b", "-e", bad, user=either).rc == 2
        assert layerrun("app", "a", "-e", bad, "--", "true", user=either).rc in (2, 125)


GROUP = 4242


def start_in_group(user, layerrun, *words, group=GROUP):
    return subprocess.run(
        [
            "setpriv",
            f"--reuid={user.uid}",
            f"--regid={user.gid}",
            f"--groups={user.gid},{group}",
            "--inh-caps=-all",
            *layerrun.argv(*words, user=user)[len(user.prefix()) :],
        ],
        env=layerrun.env(user),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        cwd="/",
        timeout=60,
    )


@pytest.fixture
def of_the_group(folder):
    """A file that only root and a group may read."""
    path = f"{folder}/secret"
    with open(path, "w") as file:
        file.write("SECRET")
    os.chown(path, 0, GROUP)
    os.chmod(path, 0o640)
    return path


def test_groups_are_dropped_where_they_can_be(layerrun, plain_user, of_the_group):
    """Check 31, with subordinate ids: over the host, twice (the second from the stored plan), and over a join."""
    for _ in range(2):
        done = start_in_group(
            plain_user, layerrun, "app", "a", "--", "sh", "-c", f"id -G; cat {of_the_group}"
        )
        assert "SECRET" not in done.stdout
        assert done.stdout.split() == [str(plain_user.gid)]
        assert "Permission denied" in done.stderr
    done = start_in_group(plain_user, layerrun, "create", "k", "--allow", "groups")
    done = start_in_group(plain_user, layerrun, "app", "k", "--", "cat", of_the_group)
    assert done.stdout == "SECRET"
    done = start_in_group(plain_user, layerrun, "show", "k")
    assert "supplementary groups" in done.stdout, done
    # A throwaway over the host sees what a direct run would.
    assert start_in_group(plain_user, layerrun, "try", "-n", "--", "cat", of_the_group).stdout == "SECRET"


def test_groups_that_cannot_be_dropped(layerrun, single_user, of_the_group):
    """Check 31, without subordinate ids: refused where it is asked for, else kept."""
    start_in_group(single_user, layerrun, "create", "n", "--deny", "groups")
    done = start_in_group(single_user, layerrun, "app", "n", "--", "cat", of_the_group)
    assert done.returncode == 125
    assert "SECRET" not in done.stdout
    assert "supplementary groups (4242)" in done.stderr
    layerrun("app", "n", "--", "true", user=single_user, check=0)
    done = start_in_group(single_user, layerrun, "app", "a", "--", "cat", of_the_group)
    assert done.stdout == "SECRET"


def test_a_group_as_good_as_root(layerrun, single_user):
    """Debian's group 42 is shadow: what cannot be dropped and would give it away is refused, unless it is meant."""
    done = start_in_group(single_user, layerrun, "app", "a", "--", "true", group=42)
    assert done.returncode == 125
    assert "'shadow', which is as good as root" in done.stderr
    start_in_group(single_user, layerrun, "create", "b", "--allow", "groups", group=42)
    assert start_in_group(single_user, layerrun, "app", "b", "--", "true", group=42).returncode == 0


def test_root_has_no_groups_inside(layerrun, of_the_group):
    layerrun("create", "a", check=0)
    argv = layerrun.argv("app", "a", "--", "sh", "-c", f"id -G; cat {of_the_group}")
    done = subprocess.run(
        ["setpriv", f"--groups=0,{GROUP}", *argv],
        env=layerrun.env(),
        capture_output=True,
        text=True,
        cwd="/",
        stdin=subprocess.DEVNULL,
    )
    assert done.stdout.split()[:1] == ["0"]
    assert "4242" not in done.stdout.split("\n")[0]
