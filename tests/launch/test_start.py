"""A start: what it keeps, how it ends, and how it says that it could not begin."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest


def test_an_app_sees_what_it_wrote_and_the_host_does_not(inside, who):
    name = "/etc/layerrun-test-data" if who is None else f"{who.home}/layerrun-test-data"
    inside(f"test ! -e {name} && echo one >{name}", who)
    assert inside(f"cat {name} && echo two >>{name}", who).out == "one\n"
    assert inside(f"cat {name}", who).out == "one\ntwo\n"
    assert not os.path.exists(name)


def test_two_apps_do_not_see_each_other(inside, either):
    name = "/var/tmp/layerrun-test-data"
    inside(f"echo one >{name}", either, app="one")
    inside(f"test ! -e {name}", either, app="two")
    assert not os.path.exists(name)


def test_what_is_deleted_stays_deleted(inside, folder):
    kept = pathlib.Path(folder, "kept")
    kept.write_text("kept\n")
    inside(f"rm {kept}")
    inside(f"test ! -e {kept} && echo new >{kept}")
    assert kept.read_text() == "kept\n"


def test_tmp_and_run_are_empty_at_every_start(inside, either):
    script = 'test -z "$(ls -A /tmp)" && echo x >/tmp/x && touch /dev/shm/x'
    inside(script, either)
    inside(script, either)


def test_over_a_base_of_ones_own(layerrun, tree, who):
    layerrun("base", "import", "small", tree(who), user=who, check=0)
    layerrun(
        "create", "a", "--base", "small", "--command", "sh -c 'cat /etc/mine /etc/base'", user=who, check=0
    )
    layerrun("app", "a", "--", "sh", "-c", "echo mine >/etc/mine", user=who, check=0)
    assert layerrun("app", "a", user=who, check=0).out == "mine\nbase\n"
    assert layerrun("base", "verify", "small", user=who, check=0).rc == 0
    seen = layerrun("app", "a", "--", "sh", "-c", "ls /; id -u; pwd", user=who, check=0).out.split()
    assert {"dev", "proc", "run", "sys", "tmp", "usr"} <= set(seen)
    assert seen[-2:] == ["0", "/root"]


@pytest.mark.parametrize("status", [0, 1, 2, 5, 77, 125, 126, 127, 128, 200, 255])
def test_the_status_is_the_commands(inside, status):
    inside(f"exit {status}", check=status)


@pytest.mark.parametrize("number", [1, 2, 3, 6, 9, 11, 13, 14, 15, 17 + 33])
def test_a_signal_is_128_and_its_number(inside, number):
    inside(f"kill -{number} $$", check=128 + number)


def test_the_status_of_a_plain_users_start(inside, any_user):
    inside("exit 3", any_user, check=3)
    inside("kill -9 $$", any_user, check=137)


@pytest.fixture
def programs(folder):
    """Files that cannot be run, each in its way."""
    made = {
        "closed": ("echo no\n", 0o644),
        "no-interpreter": ("#!/no/such/interpreter\n", 0o755),
        "no-program": ("just words\n", 0o755),
        "empty": ("", 0o755),
    }
    for name, (text, mode) in made.items():
        path = pathlib.Path(folder, name)
        path.write_text(text)
        path.chmod(mode)
    foreign = pathlib.Path(folder, "foreign")  # an ELF header of another machine
    foreign.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xf7\x00" + bytes(44))
    foreign.chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("word", "status", "said"),
    [
        ("no-such-command", 127, "not there"),
        ("{}/none", 127, "not there"),
        ("{}/none/deeper", 127, "not there"),
        ("{}/closed", 126, "not executable"),
        ("{}", 126, "not executable"),
        ("/etc/passwd/x", 126, "ot a directory"),
        ("{}/no-interpreter", 127, "interpreter is missing"),
        ("{}/no-program", 126, "not a program"),
        ("{}/empty", 126, "not a program"),
        ("{}/foreign", 126, "not a program"),
        ("x" * 5000, 127, ""),
        ("/" + "x" * 300, 126, "too long"),
    ],
)
def test_what_cannot_be_run(layerrun, programs, word, status, said):
    word = word.format(programs)
    done = layerrun("app", "a", "--", word, check=status)
    assert said in done.err
    assert layerrun("list").out == "", "a typing error leaves an app behind"
    layerrun("app", "a", "--", "true", check=0)
    layerrun("app", "a", "--", word, check=status)


def test_what_cannot_be_run_by_name(layerrun, programs, any_user):
    for name, status in (("closed", 126), ("no-interpreter", 127), ("no-program", 126), ("nothing", 127)):
        layerrun("app", "a", "-e", f"PATH={programs}", "--", name, user=any_user, check=status)


def test_a_closed_program_does_not_hide_one_further_on_the_path(layerrun, programs, folder):
    os.mkdir(f"{folder}/later")
    os.symlink("/bin/true", f"{folder}/later/closed")
    layerrun("app", "a", "-e", f"PATH={programs}:{folder}/later", "--", "closed", check=0)


def test_an_empty_command_is_refused(layerrun):
    layerrun("app", "a", "--", "", check=2)
    layerrun("app", "a", "--", check=2)


def test_arguments_are_untouched(layerrun, either):
    words = [
        "",
        " ",
        "a b",
        "*",
        "$HOME",
        "'",
        '"',
        "\\",
        "-n",
        "--",
        "\n",
        "ä",
        b"\xff\xfe".decode("utf-8", "surrogateescape"),
    ]
    done = layerrun("app", "a", "--", "printf", r"%s\0", *words, user=either, check=0, text=False)
    assert done.out.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


def test_an_interpreter_inside_is_found(inside, layerrun, either):
    script = "/var/tmp/layerrun-test-script"
    inside(f"printf '#!/bin/sh\\necho ran $1\\n' >{script} && chmod 755 {script}", either)
    assert layerrun("app", "a", "--", script, "x", user=either, check=0).out == "ran x\n"


def test_the_folder_of_the_caller(layerrun, inside, either):
    assert inside("pwd", either, cwd="/usr/share").out == "/usr/share\n"
    done = inside("pwd", either, cwd="/proc/self/fdinfo")
    assert done.rc == 0


def test_a_folder_that_is_not_there_inside(layerrun, folder):
    layerrun("create", "a", "--hide", folder, check=0)
    os.mkdir(f"{folder}/here")
    done = layerrun("app", "a", "--", "pwd", cwd=f"{folder}/here", check=0)
    assert done.out == "/root\n"
    assert f"{folder}/here cannot be entered inside" in done.err
    done = layerrun("app", "a", "--cwd", f"{folder}/here", "--", "pwd", check=125)
    assert "working folder" in done.err
    assert "--cwd" in done.err
    assert layerrun("app", "a", "--cwd", "/usr", "--", "pwd", check=0).out == "/usr\n"
    layerrun("app", "a", "--cwd", "usr", "--", "pwd", check=2)
    layerrun("app", "a", "--cwd", "/etc/passwd", "--", "pwd", check=125)


def test_a_folder_that_was_removed(layerrun, folder):
    os.mkdir(f"{folder}/gone")
    script = f'cd {folder}/gone && rmdir {folder}/gone && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *layerrun.argv("app", "a", "--", "pwd")],
        env=layerrun.env(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout) == (0, "/root\n")


@pytest.mark.parametrize("place", ["/proc/self/fd/{}", "/proc/1/fd/{}", "/proc/1/cwd", "/proc/1/root"])
def test_no_way_out_by_the_working_folder(layerrun, place):
    """Descriptors of the host must not be found by name (CVE-2024-21626)."""
    fd = os.open("/", os.O_RDONLY)
    try:
        for number in (fd, 3, 5, 7, 9):
            done = layerrun(
                "app", "a", "--cwd", place.format(number), "--", "sh", "-c", "pwd; ls", pass_fds=[fd]
            )
            assert done.rc == 125 or done.out.startswith("/\n"), done
    finally:
        os.close(fd)


def test_a_share_or_a_hidden_folder_as_working_folder(layerrun, folder):
    layerrun("create", "a", "--share", f"{folder}:/mnt/s", check=0)
    assert layerrun("app", "a", "--cwd", "/mnt/s", "--", "pwd", check=0).out == "/mnt/s\n"
