"""A start without Python: that it is one, and that nobody can tell but by the clock."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess

import pytest

TRUE = ("app", "a", "--", "true")


def test_the_second_start_needs_no_python(layerrun, door, who):
    assert door(*TRUE, user=who, check=0).python
    door.warm(*TRUE, user=who, check=0)
    door.hide_python()
    assert door("app", "a", "--", "echo", "hot", user=who, check=0).out == "hot\n"


@pytest.mark.root
def test_the_second_start_executes_nothing_but_the_command(layerrun, folder):
    trace = os.path.join(folder, "trace")
    layerrun(*TRUE, check=0)
    for _ in range(6):
        argv = ["strace", "-f", "-qq", "-e", "trace=execve", "-o", trace, *layerrun.argv(*TRUE)]
        subprocess.run(argv, env=layerrun.env(), cwd="/", check=True, stdin=subprocess.DEVNULL)
        with open(trace) as file:
            lines = file.read().splitlines()
        executed = [re.search(r'execve\("([^"]*)"', line)[1] for line in lines if line.endswith(" = 0")]
        if len(executed) == 2:
            break
    assert [os.path.basename(path) for path in executed] == ["layerrun", "true"], executed


def test_over_a_base_of_ones_own(door, small, who):
    small(who, "--command", "sh -c 'cat /etc/base; pwd'")
    assert door.warm("app", "small", user=who, check=0).out == "base\n/root\n"


def test_data_stays_from_one_way_to_the_other(door):
    door.warm("app", "a", "--", "sh", "-c", "echo hot >/etc/layerrun-test", check=0)
    script = "cat /etc/layerrun-test; echo cold >/etc/layerrun-test"
    assert door("app", "a", "--", "sh", "-c", script, env={"LAYERRUN_FRONT_DOOR": "0"}).out == "hot\n"
    assert door.warm("app", "a", "--", "cat", "/etc/layerrun-test").out == "cold\n"


STATUSES = [
    *[f"exit {status}" for status in (0, 1, 2, 77, 125, 126, 127, 128, 255)],
    *[f"kill -{number} $$" for number in (1, 2, 9, 13, 15)],
]


def test_statuses_are_the_same_both_ways(door, who):
    door.warm(*TRUE, user=who)
    for script in STATUSES:
        hot, cold = door.both("app", "a", "--", "sh", "-c", script, user=who)
        assert hot == cold, script


@pytest.mark.parametrize("command", ["no-such-command", "/nowhere/at/all", "/etc", "/etc/passwd"])
def test_a_command_that_cannot_run_is_told_by_python(door, command):
    door.warm(*TRUE, check=0)
    asked = door("app", "a", "--", command)
    cold = door("app", "a", "--", command, env={"LAYERRUN_FRONT_DOOR": "0"})
    assert asked.python
    assert (asked.rc, asked.out, asked.err) == (cold.rc, cold.out, cold.err)
    assert asked.rc in (126, 127)
    # It was no fault of the plan.
    door.warm(*TRUE, check=0)


def test_no_command_of_its_own(door):
    door.warm(*TRUE, check=0)
    done = door("app", "a", check=2)
    assert "has no command of its own" in done.err


LOOK = r"""
env | sort
pwd
id
umask
ulimit -a
hostname
cat /proc/self/cgroup /proc/self/oom_score_adj /proc/self/loginuid /proc/self/uid_map /proc/self/gid_map
grep -E '^(Sig|Shd|Cap|NoNew|Seccomp|PPid|Groups|Umask|Uid|Gid)' /proc/self/status
for fd in /proc/self/fd/*; do echo "${fd##*/}"; done
cut -d' ' -f5-7 /proc/self/mountinfo
sed 's/.* - //' /proc/self/mountinfo
ls -ln / /dev /run /tmp | awk '{print $1, $3, $4, $NF}'
"""

SURROUNDINGS = {
    "no locale": {"LC_ALL": None, "LANG": None, "LC_CTYPE": None},
    "C": {"LC_ALL": None, "LANG": "C", "LC_CTYPE": None},
    "named": {"LC_ALL": None, "LANG": "C", "LC_CTYPE": "POSIX"},
    "odd": {"TERM": "", "PATH": "/usr/bin:/bin", "PYTHONPATH": "/nowhere", "http_proxy": "x y\n"},
}


def steady(text):
    """Leave out what differs from one start to the next by nature: the paths of layers named by descriptor."""
    return re.sub(r"/proc/self/fd/\d+", "", text)


def test_the_command_sees_the_same_both_ways(door, who, mounts):
    # In a mount namespace of its own, where nobody else's mounts come and go.
    hot, cold = door.both("app", "a", "--", "sh", "-c", LOOK, user=who, prefix=mounts.prefix())
    assert steady(hot.out).splitlines() == steady(cold.out).splitlines()
    assert hot.rc == cold.rc == 0
    assert hot.err == cold.err


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_the_environment_is_the_same_both_ways(door, surroundings):
    hot, cold = door.both("app", "a", "--", "env", env=SURROUNDINGS[surroundings])
    assert sorted(hot.out.splitlines()) == sorted(cold.out.splitlines())


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP])
def test_ignored_signals_are_the_same_both_ways(door, number):
    script = f"trap '' {number.value}; exec \"$@\""
    for before in (["sh", "-c", script, "sh"], ["env", f"--block-signal={number.value}"]):
        if number == signal.SIGCHLD and before[0] == "sh":
            continue  # a shell does not leave it ignored
        look = ["app", "a", "--", "grep", "^Sig", "/proc/self/status"]
        hot, cold = door.both(*look, words_before=before)
        assert hot == cold


@pytest.mark.parametrize("place", ["/etc", "/usr/share", "/tmp", "/proc/1", "/dev/shm"])
def test_the_working_folder_is_the_same_both_ways(door, place):
    hot, cold = door.both("app", "a", "--", "pwd", cwd=place)
    assert hot == cold


def test_a_working_folder_within_a_share_is_kept_and_no_other(door, small, folder):
    shared = os.path.join(folder, "shared")
    os.makedirs(f"{shared}/deep")
    small(None, "--share", f"{shared}:{shared}")
    for place in (shared, f"{shared}/deep", folder, "/", "/etc"):
        hot, cold = door.both("app", "small", "--", "sh", "-c", "pwd", cwd=place)
        assert hot == cold, place
    assert door.warm("app", "small", "--", "sh", "-c", "pwd", cwd=shared).out == f"{shared}\n"


def test_a_working_folder_that_is_gone(door, folder):
    gone = os.path.join(folder, "gone")
    os.mkdir(gone)
    door.warm(*TRUE, check=0)
    before = ["sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh"]
    done = door("app", "a", "--", "pwd", words_before=before, check=0)
    assert done.out == "/root\n"


ODD = [
    [""],
    ["", "", "x", ""],
    ["-x", "--", "--help", "-"],
    ["--store", "/nowhere"],
    ["\udcff\udcfe", "a\nb", "ü", " "],
    ["x" * 100_000],
    ["*", "$HOME", "\\", '"', "'"],
]


@pytest.mark.parametrize("words", ODD, ids=range(len(ODD)))
def test_words_reach_the_command_untouched(door, words):
    argv = ["sh", "-c", 'printf "%s\\0" "$@"', "sh", *words]
    hot, cold = door.both("app", "a", "--", *argv)
    assert hot == cold
    assert hot.out.split("\0")[:-1] == words


def test_what_only_looks_like_an_app_is_pythons(door):
    door.warm(*TRUE, check=0)
    forms = [
        ["app", "a", "--"],
        ["app", "a", "--", ""],
        ["app", "--", "a"],
        ["app"],
        ["app", "a", "--help"],
        ["ap"],
        [],
        ["app", "a", "--ephemeral", "true", "--", "--help"],
    ]
    for words in forms:
        done = door(*words)
        assert done.python, words
        assert done.rc == (0 if words[-1:] in (["true"], ["--help"]) else 2), words


BAD = ["", "-", "-a", "--help", ".a", "_a", "a/b", "../a", "/", "A", "a b", "a\n", "ü", "\udcff", "a" * 64]


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_bad_names(door, name):
    done = door("app", name, "--", "true")
    cold = door("app", name, "--", "true", env={"LAYERRUN_FRONT_DOOR": "0"})
    assert done.python
    assert (done.rc, done.out, done.err) == (cold.rc, cold.out, cold.err)
    assert done.rc == 0 if name == "--help" else done.rc == 2


def test_the_longest_name(door):
    door.warm("app", "a" * 63, "--", "true", check=0)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors(door, closed, store_path):
    door.warm(*TRUE, check=0)
    # What the command writes goes nowhere, and into no file that happens to be open.
    script = "exec 9>/etc/layerrun-test; for fd in 0 1 2; do readlink /proc/$$/fd/$fd >&9; done; echo x; echo y >&2"
    before = ["bash", "-c", f'exec "$@" {closed}', "bash"]
    hot, cold = door.both("app", "a", "--", "bash", "-c", script, words_before=before)
    assert (hot.rc, hot.out, hot.err) == (cold.rc, cold.out, cold.err)
    seen = door("app", "a", "--", "cat", "/etc/layerrun-test").out.splitlines()
    for number in {"<": [0], ">": [1], "2": [2]}.get(closed[0], []) if " " not in closed else range(3):
        assert seen[number] == "/dev/null"


def test_it_can_be_turned_off(door):
    door.warm(*TRUE, check=0)
    assert door(*TRUE, env={"LAYERRUN_FRONT_DOOR": "0"}, check=0).python
    assert not door.warm(*TRUE, env={"LAYERRUN_FRONT_DOOR": "1"}, check=0).python
    assert not door.warm(*TRUE, env={"LAYERRUN_FRONT_DOOR": ""}, check=0).python


def test_without_python_beside_it(door):
    door.hide_python()
    done = door(*TRUE, check=125)
    assert done.err == (
        f"layerrun: cannot run {door.folder}/python3: No such file or directory\n  try: install layerrun again\n"
    )
    assert door("list", check=125).err == done.err


def test_called_through_a_link(door, folder):
    link = os.path.join(folder, "run-it")
    os.symlink(door.elf, link)
    words = ["app", "a", "--", "echo", "x"]
    assert door(*words, check=0).python
    done = subprocess.run([link, *words], env=door.layerrun.env(), cwd="/", capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "x\n")
    done = subprocess.run([link, "list"], env=door.layerrun.env(), cwd="/", capture_output=True, text=True)
    assert done.returncode == 0


def test_the_store_is_found_as_python_finds_it(door, single_user):
    """$LAYERRUN_STORE, relative too; $XDG_DATA_HOME; $HOME; and without any of them the home of passwd(5)."""
    home = f"{single_user.home}/.local/share/layerrun"
    nothing = {"LAYERRUN_STORE": None, "XDG_DATA_HOME": None}
    look = ("app", "a", "--", "sh", "-c", "echo $LAYERRUN_APP")
    try:
        for env, place in [
            (nothing, home),
            ({**nothing, "XDG_DATA_HOME": f"{single_user.home}/data"}, f"{single_user.home}/data/layerrun"),
            ({**nothing, "XDG_DATA_HOME": "relative"}, home),
            ({**nothing, "LAYERRUN_STORE": ""}, home),
            ({**nothing, "LAYERRUN_STORE": "own"}, f"{single_user.home}/own"),
        ]:
            assert door.warm(*look, user=single_user, env=env, cwd=single_user.home, check=0).out == "a\n"
            assert os.path.exists(f"{place}/plans/a")
        for env in ({"HOME": None}, {"HOME": ""}, {"HOME": "relative"}):
            done = door(*look, user=single_user, env={**nothing, **env}, check=0)
            assert (done.python, done.out, done.err) == (True, "a\n", "")
    finally:
        for place in (home, f"{single_user.home}/data", f"{single_user.home}/own"):
            shutil.rmtree(place, ignore_errors=True)
