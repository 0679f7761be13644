"""Choosing on a terminal: the question of ``try``, ``--pick`` path by path, ``-p`` hunk by hunk."""

from __future__ import annotations

import os
import re

import pytest
from programs.terminal import Terminal
from support import users
from support.place import place_of


def seldom(*values):
    return pytest.param(*values, marks=pytest.mark.long)


BEFORE = "".join(f"{n}\n" for n in range(1, 31))
AFTER = BEFORE.replace("2\n", "two\n", 1).replace("\n15\n", "\nfifteen\n").replace("\n30\n", "\nthirty\n")


@pytest.fixture(params=["root", users.PLAIN])
def place(request, layerrun, user_folder, folder):
    return place_of(request, layerrun, user_folder, folder)


@pytest.fixture
def mine(request, layerrun, user_folder, folder):
    request.param = "root"
    return place_of(request, layerrun, user_folder, folder)


def terminal(place, *words):
    return Terminal(
        place.layerrun.argv(*words, user=place.user), place.layerrun.env(place.user), cwd=place.top
    )


def typed(place, *words, answers, status=0, end=""):
    """Run layerrun on a terminal and answer each question in turn; return all that it wrote."""
    with terminal(place, *words) as shown:
        text = ""
        for answer in answers:
            text += shown.expect(r"(?s).*?(\[k\]|\[y,n[a-z,?]*\]\?|\[y/N\]) ")[0]
            shown.send(answer) if answer in ("\x03", "\x04") else shown.line(answer)
        assert shown.status() == status, shown.text
        return text + shown.text


@pytest.mark.parametrize(
    ("answer", "there", "kept"),
    [
        ("c", True, False),
        seldom("commit", True, False),
        seldom("k", False, True),
        ("", False, True),
        ("\x03", False, True),
        ("d", False, False),
    ],
    ids=ascii,
)
def test_try_asks(mine, answer, there, kept):
    said = typed(mine, "try", *mine.sh("echo x >file"), answers=[answer])
    assert "1 change in try-" in said or there or kept or answer == "d"
    assert os.path.exists(mine.path("file")) is there
    assert bool(mine.names()) is kept


def test_try_says_what_its_words_mean(mine):
    said = typed(mine, "try", *mine.sh("echo x >file"), answers=["?", "d"])
    assert "d - drop them" in said
    assert mine.names() == []


def test_try_names_what_is_privileged_before_it_asks(mine):
    with terminal(mine, "try", *mine.sh("cp /bin/true tool; chmod 4755 tool")) as shown:
        shown.expect("setuid")
        shown.expect(r"1 change in \S+: \[c\]ommit \[p\]ick \[k\]eep \[d\]iscard\? \[k\] ")
        shown.line("c")
        assert shown.status() == 0
    assert os.stat(mine.path("tool")).st_mode & 0o4000


def test_try_picks(mine):
    typed(mine, "try", *mine.sh("echo 1 >a; echo 2 >b; echo 3 >c"), answers=["p", "y", "n", "y"])
    assert sorted(os.listdir(mine.top)) == ["a", "c"]
    (name,) = mine.names()
    assert mine("diff", name, "-0").out == f"A {mine.path('b')}\0"


@pytest.mark.parametrize(
    ("answers", "wanted"),
    [
        seldom("yyyy", ["a", "b", "dir", "dir/in", "dir/more", "z"]),
        seldom("nnyn", ["dir", "dir/in", "dir/more"]),
        ("nnsnyn", ["dir", "dir/more"]),
        seldom("ya", ["a", "b", "dir", "dir/in", "dir/more", "z"]),
        seldom("yd", ["a"]),
        seldom("yq", ["a"]),
        ("?y?q", ["a"]),
        ("nnsay", ["dir", "dir/in", "dir/more", "z"]),
        seldom("nnsyqn", ["dir", "dir/in"]),
    ],
)
def test_path_by_path(mine, answers, wanted):
    name = mine.try_("echo 1 >a; echo 2 >b; mkdir dir; echo 3 >dir/in; echo 4 >dir/more; echo 5 >z")
    answers = answers[: answers.index("q") + 1] if "q" in answers else answers
    typed(mine, "commit", "--pick", name, answers=answers)
    assert sorted(mine.listing()) == wanted


@pytest.mark.parametrize("answers", [["n", "n"], seldom(["q"]), seldom(["\x04"]), ["y", "\x04"]], ids=ascii)
def test_nothing_chosen_is_nothing_done(mine, answers):
    name = mine.try_("echo 1 >a; echo 2 >b")
    typed(mine, "commit", "--pick", name, answers=answers, status=1)
    said = typed(mine, "commit", "--pick", name, answers=["y", "\x03"], status=130)
    assert re.search(r"\^C\r?\nlayerrun: interrupted", said)
    assert os.listdir(mine.top) == []
    assert mine.names() == [name]


HUNKS = [
    (["y", "n", "n"], AFTER.replace("fifteen", "15").replace("thirty", "30")),
    seldom(["n", "y", "n"], BEFORE.replace("\n15\n", "\nfifteen\n")),
    seldom(["n", "a"], AFTER.replace("two", "2")),
    seldom(["y", "d"], AFTER.replace("fifteen", "15").replace("thirty", "30")),
]


@pytest.mark.parametrize(
    ("answers", "wanted"), HUNKS, ids=lambda v: "".join(v) if isinstance(v, list) else ""
)
def test_hunk_by_hunk_and_then_the_rest(place, answers, wanted):
    place.write("text", BEFORE)
    before = place.listing()
    place.write("new", AFTER)
    name = place.try_("cat new >text; rm new; chmod 600 text")
    os.unlink(place.path("new"))
    os.utime(place.top)
    said = typed(place, "commit", "-p", name, place.path("text"), answers=answers)
    assert "@@ -1,5 +1,5 @@" in said
    assert "\x1b[32m+two" in said
    assert place.read("text") == wanted
    assert os.stat(place.path("text")).st_mode & 0o777 == 0o600
    place("undo")
    assert place.listing() == before


@pytest.mark.long
def test_all_hunks_are_the_file(mine):
    mine.write("text", BEFORE)
    mine.write("new", AFTER)
    name = mine.try_("cat new >text")
    typed(mine, "commit", "-p", name, answers=["y", "y", "y"])
    assert mine.read("text") == AFTER
    assert mine.names() == []


def test_a_hunk_is_split(mine):
    mine.write("text", "1\n2\n3\n4\n")
    name = mine.try_("printf 'one\\n2\\nthree\\n4\\n' >text")
    typed(mine, "commit", "-p", name, answers=["s", "n", "y"])
    assert mine.read("text") == "1\n2\nthree\n4\n"
    # What was left is still to be had.
    typed(mine, "commit", "-p", name, answers=["y"])
    assert mine.read("text") == "one\n2\nthree\n4\n"


@pytest.mark.long
def test_path_by_path_a_file_can_be_split(mine):
    mine.write("text", BEFORE)
    mine.write("new", AFTER)
    name = mine.try_("cat new >text; rm new")
    typed(mine, "commit", "--pick", name, answers=["n", "s", "y", "n", "n"])
    assert mine.read("text").startswith("1\ntwo\n3\n")
    assert "fifteen" not in mine.read("text")


def test_what_a_file_holds_does_not_drive_the_terminal(mine):
    mine.write("text", "1\n")
    name = mine.try_(r"printf '1\n\033]0;title\a\r2\n' >text")
    said = typed(mine, "commit", "-p", name, answers=["n"], status=1)
    assert r"\e]0;title\x07\r2" in said
    assert "\x1b]0;" not in said


def test_commit_asks(mine):
    name = mine.try_("echo 1 >a")
    said = typed(mine, "commit", name, answers=["n"], status=1)
    assert mine.path("a") in said
    assert os.listdir(mine.top) == []
    typed(mine, "commit", name, answers=["y"])
    assert mine.read("a") == "1\n"
