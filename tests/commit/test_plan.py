"""Plans of commits: all cases of a grid as a direct run; conflicts, parts, merges. See support/planned.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support import reach
from support.whose import whose

SUPPORT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAM = os.path.join(SUPPORT, "support", "planned.py")
WHO = pytest.mark.parametrize("name", ["root", "layerrun-test"])


@pytest.fixture
def planned(folder, user_folder):
    """Run one of the functions of support/planned.py as somebody, in a folder of theirs."""

    def run(name, what):
        user = whose(name)
        argv = [sys.executable, PROGRAM, user_folder(user) if user else folder, what]
        env = user.environ() if user else dict(os.environ)
        env["PYTHONPATH"] = SUPPORT
        argv = [*user.prefix(), *reach.translate(argv)] if user else argv
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=200, env=env, cwd="/", check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@WHO
@pytest.mark.timeout(240)
def test_the_grid(planned, name):
    assert planned(name, "grid") == {"commit": {}, "times": [], "undo": {}, "redo": {}}


# What was done on the host meanwhile speaks against these; a plain user is told no inode numbers of origins.
CONFLICTS = {
    "added-both/x/a": "made on the host since",
    "added/x": "made on the host since",
    "apart/y": "is one file with",
    "chmod/x": "changed on the host since",
    "folder-came/x/a": "made on the host since",
    "folder-chmod/x": "changed on the host since",
    "folder-gone/x": "gone from the host since",
    "folder-moved/x": "gone from the host since",
    "folders-swapped/x": "replaced on the host since",
    "folders-swapped/y": "replaced on the host since",
    "inside-removed/x": "changed on the host since: 'y/z/a' in it",
    "modified/x": "changed on the host since",
    "moved-both/y": "gone from the host since",
    "new-in-removed/x": "changed on the host since: 'y' in it",
    "removed-changed/x": "changed on the host since",
    "removed/x": "gone from the host since",
    "replaced/x": "on the host since",
    "to-link/x": "on the host since",
}


@WHO
@pytest.mark.check(40)
def test_conflicts(planned, name):
    found = planned(name, "conflicts")
    told = dict(found["conflicts"])
    wanted = dict(CONFLICTS)
    if name != "root":
        # To a plain user it may look as if only the layer had moved it, and a folder as if it were the same.
        for case in ("moved-both/y", "folders-swapped/x", "folders-swapped/y"):
            told.pop(case, None)
            wanted.pop(case)
    assert sorted(told) == sorted(wanted)
    for path, what in wanted.items():
        assert what in told[path], path
    assert found["untouched"]
    assert found["selected"] == [2, True, []]
    assert found["forced"] == []
    assert found["undo"] == {}
    for case, held in {
        "modified": "a\naa\n",
        "added": "a\n",
        "removed": "a\naa\n",
        "added-dir": ["a", "b"],
    }.items():
        assert found["x"][case] == held


@WHO
def test_one_part_after_the_other(planned, name):
    found = planned(name, "selection")
    assert [left for left, _ in found["steps"]] == [7, 4, 3, 2, 0]
    assert found["steps"][0][1] == ["d", "d/a", "d/b", "k", "k/c", "n", "n/m", "n/m/2"]
    assert found["steps"][-1][1] == ["d", "d/a", "k", "k/c", "n", "n/1", "n/m", "n/m/2", "q"]
    assert found["same"]
    assert found["modes"] == ["0o700", "0o700"]
    assert found["texts"] == ["aa\n", "c2\n"]
    assert found["apps"] == []


@WHO
def test_texts_are_merged(planned, name):
    found = planned(name, "merges")
    assert [path for path, _ in found["conflicts"]] == ["binary", "touching"]
    assert found["kept"] == 2
    assert found["merged"] == ["apart"]
    assert found["right"]
    assert found["back"]


@pytest.mark.check(39)
def test_what_gives_rights(planned):
    found = planned("root", "rights")
    assert found["named"] == [
        ["caps", "file capabilities"],
        ["device", "character device 1:7"],
        ["in/suid", "setuid, owned by 0"],
        ["sgid", "setgid, group 0"],
    ]
    assert found["dropped"] == {
        "caps": "",
        "device": None,
        "in/suid": "0o755",
        "sgid": "0o755",
        "in/beside": "0o644",
    }
    assert found["left"] == 0
    assert found["kept"] == {
        "caps": "security.capability",
        "device": "0o644",
        "in/suid": "0o4755",
        "sgid": "0o2755",
    }
