"""--user: names of the base, numbers, groups, what is not mapped; capabilities; joiners; links in the upper."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest
from support.sandbox import small_tree

WHO = (
    'echo "$(id -u) $(id -g) $(id -G)" "$HOME $USER $SHELL $XDG_RUNTIME_DIR"; '
    "test -w /run/user/$(id -u) && cat /proc/self/status"
)
PASSWD = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001:Ann:/home/ann:/bin/ash\nbad:x:99999:0::/:\n"
GROUP = "root:x:0:\nann:x:1001:\naudio:x:29:ann\nhuge:x:99999:ann\ngames:x:60:root\n"


@pytest.fixture
def base(layerrun, folder):
    """A function that imports a base with people of its own."""

    def make(user=None):
        tree = small_tree(f"{folder}/tree-{user or 'root'}")
        pathlib.Path(f"{tree}/etc/passwd").write_text(PASSWD)
        pathlib.Path(f"{tree}/etc/group").write_text(GROUP)
        os.makedirs(f"{tree}/home/ann")
        if user:
            subprocess.run(["chown", "-Rh", f"{user.uid}:{user.gid}", tree], check=True)
        layerrun("base", "import", "people", tree, user=user, check=0)

    return make


def status(text):
    rows = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: value.split() for name, value in rows}


@pytest.mark.parametrize("rootless", [False, True])
def test_a_user_of_the_base(layerrun, base, plain_user, rootless):
    user = plain_user if rootless else None
    base(user)
    layerrun("create", "a", "--base", "people", "--user", "ann", user=user, check=0)
    for _ in range(2):  # as Python works it out, and by the stored plan
        first, _, rest = layerrun("app", "a", "--", "sh", "-c", WHO, user=user, check=0).out.partition("\n")
        assert first == "1000 1001 1001 29 /home/ann ann /bin/ash /run/user/1000"
        found = status(rest)
        assert {found[name][0] for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert found["NoNewPrivs"] == ["1"]
    running = subprocess.Popen(
        layerrun.argv("app", "a", "--", "sh", "-c", "echo up; exec cat", user=user),
        env=layerrun.env(user),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert running.stdout.readline() == b"up\n"
        done = layerrun("enter", "a", "--", "id", "-u", user=user, check=0)
        assert done.out == "1000\n"
    finally:
        running.stdin.close()
        assert running.wait(30) == 0


def test_numbers_groups_and_capabilities(layerrun, base):
    base()
    for given, wanted in (
        ("1000", "1000 1001 1001 29 /home/ann ann"),
        ("7:games", "7 60 60 / 7"),
        ("ann:5", "1000 5 5"),
    ):
        name = f"a{given.replace(':', '-')}"
        layerrun("create", name, "--base", "people", "--user", given, "--allow", "cap:chown", check=0)
        first, _, rest = layerrun("app", name, "--", "sh", "-c", WHO, check=0).out.partition("\n")
        assert first.startswith(wanted + " "), first
        assert {status(rest)[n][0] for n in ("CapEff", "CapBnd", "CapAmb")} == {f"{1:016x}"}


def test_a_user_that_the_app_made_counts(layerrun, base):
    base()
    layerrun("create", "a", "--base", "people", check=0)
    layerrun("app", "a", "--", "sh", "-c", "echo eve:x:1234:5::/:/bin/sh >>/etc/passwd", check=0)
    layerrun("edit", "a", "--user", "eve", check=0)
    assert layerrun("app", "a", "--", "id", "-u", check=0).out == "1234\n"
    layerrun("edit", "a", "--user", "0", check=0)
    layerrun("app", "a", "--", "sh", "-c", "rm /etc/passwd; ln -s /etc/base /etc/passwd", check=0)
    layerrun("edit", "a", "--user", "eve", check=0)
    done = layerrun("app", "a", "--", "id", "-u")
    assert "there is no user 'eve'" in done.err


def test_what_is_not_there_is_said(layerrun, base, single_user):
    base()
    for given, text in (
        ("nobody-there", "no user 'nobody-there'"),
        ("bad", "no user 99999"),
        ("ann:nil", "no group 'nil'"),
    ):
        name = f"a{given.replace(':', '-')}"
        layerrun("create", name, "--base", "people", "--user", given, check=0)
        done = layerrun("app", name, "--", "true")
        assert done.rc not in {0, 1}
        assert text in done.err, done.err
    base(single_user)
    layerrun("create", "b", "--base", "people", "--user", "ann", user=single_user, check=0)
    assert "its ids are 0" in layerrun("app", "b", "--", "true", user=single_user).err


def test_a_plain_user_over_the_host(layerrun, single_user):
    layerrun("create", "a", "--user", single_user.name, user=single_user, check=0)
    done = layerrun("app", "a", "--", "id", "-u", user=single_user, check=0)
    assert done.out == f"{single_user.uid}\n"
    layerrun("create", "b", "--user", "root", user=single_user, check=0)
    assert f"its ids are {single_user.uid}" in layerrun("app", "b", "--", "true", user=single_user).err
