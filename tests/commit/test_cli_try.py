"""``try`` that commits: -y, --on-exit, and what its report says."""

from __future__ import annotations

import json
import os

import pytest
from support import users
from support.place import NUMBER, place_of


@pytest.fixture(params=["root", users.PLAIN])
def place(request, layerrun, user_folder, folder):
    return place_of(request, layerrun, user_folder, folder)


@pytest.mark.parametrize(
    "words", [["-y"], pytest.param(["-y", "--name", "t"], marks=pytest.mark.long)], ids=" ".join
)
def test_what_succeeds_is_committed(place, words):
    for number in (1, 2):
        done = place("try", *words, *place.sh(f"echo {number} >file{number}"))
        assert done.out == f"A         2 B  {place.path(f'file{number}')}\n"
        assert NUMBER.search(done.err)[1] == str(number)
        assert place.read(f"file{number}") == f"{number}\n"
    assert place.names() == []
    place("undo")
    assert sorted(os.listdir(place.top)) == ["file1"]


def test_what_fails_is_kept(place):
    done = place("try", "-y", "--name", "t", *place.sh("echo x >file; exit 4"), check=4)
    assert "t is not committed: the command ended with 4" in done.err
    assert "kept as t" in done.err
    assert place.names() == ["t"]
    assert os.listdir(place.top) == []
    place("commit", "-y", "t")
    assert place.read("file") == "x\n"


def test_what_is_to_be_discarded_is(place):
    done = place("try", "--on-exit", "discard", *place.sh("echo x >file; exit 4"), check=4)
    assert (done.out, done.err) == (f"A         2 B  {place.path('file')}\n", "")
    assert place.names() == []
    assert os.listdir(place.top) == []


def test_a_conflict_is_an_exit_status_and_keeps_it(place):
    place.write("file", "before\n")
    script = f"echo mine >{place.top}/file"
    place("try", "-n", "--name", "t", *place.sh("echo x >file"))
    place.write("file", "meanwhile\n")
    done = place("try", "-y", "--name", "t", "--", "true", check=3)
    assert place.path("file") in done.err
    assert "nothing was committed" in done.err
    assert done.err.rstrip().endswith("layerrun commit t, layerrun discard t")
    assert place.read("file") == "meanwhile\n"
    place("try", "-y", "--", "sh", "-c", script)
    assert place.read("file") == "mine\n"


def test_the_report_says_what_was_committed(place, tmp_path):
    data = json.loads(place("try", "--json", "-y", *place.sh("echo x >file")).out)
    assert (data["committed"], data["kept"], data["exit_status"]) == (True, False, 0)
    commit = data["commit"]
    assert (commit["number"], commit["state"], commit["counts"]) == (1, "done", {"A": 1})
    assert commit["command"][:2] == ["sh", "-c"]
    assert data["conflicts"] == data["privileged"] == []
    data = json.loads(place("try", "--json", "-n", *place.sh("echo y >file")).out)
    assert (data["committed"], data["kept"], data["commit"]) == (False, True, None)
    report = place.path("report")
    place("try", "--report", report, "-y", *place.sh("echo z >file"))
    with open(report) as file:
        assert json.load(file)["commit"]["number"] == 2


def test_privileged_entries_are_named(place):
    script = "cp /bin/true tool; chmod 4755 tool"
    done = place("try", "-y", *place.sh(script))
    assert "setuid" in done.err
    assert place.path("tool") in done.err
    assert os.stat(place.path("tool")).st_mode & 0o7777 == 0o4755
    place("undo")
    name = place.try_(script)
    done = place("commit", "-y", "--drop-privileged", name)
    assert "rights dropped" in done.err
    assert os.stat(place.path("tool")).st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("words", [["-y"], ["--on-exit", "commit"], ["-y", "--name", "t"]], ids=" ".join)
def test_what_can_never_be_committed_does_not_run(place, words):
    done = place("try", *words, "--base", "tree", "--", "touch", f"{place.top}/ran", check=2)
    assert "'tree' cannot be committed to this machine" in done.err
    assert "layerrun try -n" in done.err
    assert place.names() == os.listdir(place.top) == []
