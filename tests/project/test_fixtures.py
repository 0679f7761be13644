"""The tests' own footing."""

import os
import subprocess
import sys

import pytest
from support import leaks


def test_plain_user_has_ids_to_map(plain_user):
    done = plain_user.run(
        ["unshare", "-U", "--map-auto", "--map-root-user", "cat", "/proc/self/uid_map"], check=True
    )
    assert len(done.stdout.splitlines()) == 2


def test_single_user_has_none(single_user):
    with open("/etc/subuid") as file:
        assert not [line for line in file if line.startswith(f"{single_user.name}:")]


def test_any_user_reaches_the_package(any_user):
    done = any_user.run(
        [sys.executable, "-c", "import layerrun, os; print(os.getuid(), os.getgroups())"], check=True
    )
    assert done.stdout.split()[0] == str(any_user.uid)


def test_debian_tree_is_one(debian_tree):
    assert os.path.exists(debian_tree + "/usr/bin/dpkg")
    assert [
        n for n in os.listdir(debian_tree + "/var/lib/apt/lists") if n.endswith(("InRelease", "Packages"))
    ]


@pytest.mark.root
def test_leaks_are_found(folder, monkeypatch):
    monkeypatch.setattr(leaks, "PATIENCE", 0.2)
    watch = leaks.Watch()
    subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    subprocess.run(["sh", "-c", "setsid sleep 77 &"], check=True)
    found = "\n".join(watch.leaks())
    assert "sleep 77" in found
    assert f"/ {folder} tmpfs" in found
    assert watch.leaks() == []
