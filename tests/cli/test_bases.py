"""The verbs of bases."""

from __future__ import annotations

import os
import subprocess
import time

import pytest
from support.asking import document

pytestmark = [pytest.mark.root, pytest.mark.idmap]


@pytest.fixture
def small(folder):
    """A root file system that is small, and odd where it may be."""
    root = os.path.join(folder, "root")
    os.makedirs(os.path.join(root, "usr/bin"))
    os.symlink("usr/bin", os.path.join(root, "bin"))
    with open(os.path.join(os.fsencode(root), b"odd\xff\n"), "wb") as file:
        file.write(b"x" * 10000)
    return root


def test_bases(layerrun, small):
    data = document(layerrun, "base", "import", "small", small)
    keys = {"name", "kind", "id", "digest", "ids", "source", "created", "entries", "size"}
    assert set(data) - {"schema"} == keys
    assert data["digest"].startswith("sha256:")
    bases = document(layerrun, "base", "list")["bases"]
    assert [base["name"] for base in bases] == ["host", "small"]
    assert all(set(base) == keys for base in bases)
    assert [line.split()[0] for line in layerrun("base", "list", check=0).out.splitlines()] == [
        "NAME",
        "host",
        "small",
    ]
    assert document(layerrun, "base", "verify", "small")["intact"] is True
    layerrun("create", "web", "--base", "small", check=0)
    assert document(layerrun, "base", "show", "small")["used_by"] == ["web"]
    refused = layerrun("base", "remove", "-y", "small", check=3)
    assert "web" in refused.err
    layerrun("remove", "-y", "web", check=0)
    layerrun("base", "remove", "-y", "small", check=0)
    layerrun("base", "show", "small", check=6)


def test_verify_finds_what_changed(layerrun, small, store_path):
    id_ = document(layerrun, "base", "import", "small", small)["id"]
    with open(
        os.path.join(os.fsencode(store_path), b"bases", id_.encode(), b"tree", b"odd\xff\n"), "r+b"
    ) as file:
        file.write(b"y")
    data = document(layerrun, "base", "verify", "small", check=1)
    assert data["intact"] is False
    assert data["problems"][0]["kind"] == "changed"
    assert "odd\\xff\\n" in layerrun("base", "verify", "small", check=1).out
    assert b"odd\xff\n\0" in layerrun("base", "verify", "small", "-0", text=False, check=1).out


def test_import_of_nonsense(layerrun, folder):
    layerrun("base", "import", "x", folder)
    assert layerrun("base", "import", "x", folder).rc != 0
    assert layerrun("base", "import", "x", os.path.join(folder, "nowhere")).rc != 0
    assert layerrun("base", "import", "host", "/").rc != 0
    assert [base["name"] for base in document(layerrun, "base", "list")["bases"]] == ["host"]


def test_the_question_of_an_update_is_not_drawn_over(layerrun, terminal, small, folder):
    layerrun("base", "import", "small", small, check=0)
    with open(os.path.join(small, "large"), "wb") as file:
        file.write(os.urandom(1 << 22))
    pipe = os.path.join(folder, "pipe")
    os.mkfifo(pipe)
    slow = "tar -C $0 -c . | { head -c 2M; sleep 1; cat; } >$1"
    with subprocess.Popen(["sh", "-c", slow, small, pipe]):
        asked = terminal("base", "update", "small", "--from", pipe)
        before = asked.await_(r"Switch to small@2\? \[y/N\] ")
    assert "importing small" in before
    time.sleep(0.5)  # a bar is drawn eight times a second
    asked.type("n\n")
    asked.end()
    assert "importing small" not in asked.text.partition("differs from")[2]
