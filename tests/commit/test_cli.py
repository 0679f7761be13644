"""``commit``, ``undo``, ``redo`` and ``log`` by the command line."""

from __future__ import annotations

import glob
import os
import re
import shutil

import pytest
from support import users
from support.place import NUMBER, place_of


@pytest.fixture(params=["root", users.PLAIN])
def place(request, layerrun, user_folder, folder):
    return place_of(request, layerrun, user_folder, folder)


@pytest.fixture
def mine(request, layerrun, user_folder, folder):
    """Root's alone: what does not depend on who it is."""
    request.param = "root"
    return place_of(request, layerrun, user_folder, folder)


def number_of(done):
    found = NUMBER.search(done.err)
    assert found, (done.out, done.err)
    return int(found[1])


def test_a_throwaway_is_committed_undone_and_done_again(place):
    place.write("there", "before\n")
    place.write("gone", "x")
    before = place.listing()
    name = place.try_("echo after >there; rm gone; mkdir new; echo a >new/a; ln -s a new/link")
    assert place.listing() == before
    done = place("commit", "-y", name)
    assert done.out == ""
    number = number_of(done)
    assert number == 1
    assert (place.read("there"), place.read("new/a")) == ("after\n", "a\n")
    assert not os.path.exists(place.path("gone"))
    after = place.listing()
    assert place.names() == []
    (one,) = place.json("log", "--files")["commits"]
    assert (one["number"], one["name"], one["state"]) == (1, name, "done")
    assert {(f["change"], f["path"]) for f in one["files"]} >= {
        ("M", place.path("there")),
        ("D", place.path("gone")),
        ("A", place.path("new")),
        ("A", place.path("new/a")),
    }
    done = place("undo")
    assert done.err == f"layerrun: took back number 1, 5 changes of {name}: layerrun redo 1\n"
    assert place.listing() == before
    place("undo", check=6)
    place("redo", "1")
    assert place.listing() == after
    assert place.json("log")["commits"][0]["state"] == "done"
    place("undo", "1")
    assert place.listing() == before


def test_dry_run_changes_nothing(mine):
    mine.write("there", "before\n")
    name = mine.try_("echo after >there; echo x >new")
    before = mine.listing()
    done = mine("commit", "--dry-run", name)
    assert re.findall(r"^(\w) +\d+ B +(\S+)$", done.out, re.MULTILINE) == [
        ("A", mine.path("new")),
        ("M", mine.path("there")),
    ]
    assert mine.listing() == before
    assert mine.names() == [name]
    data = mine.json("commit", "--dry-run", name)
    assert (data["dry_run"], data["commit"], data["kept"]) == (True, None, True)
    assert [c["path"] for c in data["changes"]] == [mine.path("new"), mine.path("there")]
    assert mine.json("log")["commits"] == []


def seldom(*values):
    return pytest.param(*values, marks=pytest.mark.long)


SELECTED = [
    seldom(["one"], ["one"]),
    seldom(["sub"], ["sub/a", "sub/b.bak"]),
    (["sub/a", "two"], ["sub/a", "two"]),
    seldom(["-E", "*.bak"], ["one", "sub/a", "two"]),
    seldom(["-I", "*.bak"], ["sub/b.bak"]),
    (["sub", "-E", "*.bak"], ["sub/a"]),
]


@pytest.mark.parametrize(("words", "wanted"), SELECTED, ids=" ".join)
def test_a_part_of_it_and_then_the_rest(mine, words, wanted):
    name = mine.try_("echo 1 >one; echo 2 >two; mkdir sub; echo a >sub/a; echo b >sub/b.bak")
    every = ["one", "sub/a", "sub/b.bak", "two"]
    done = mine("commit", "-y", name, *words)
    assert sorted(path for path in every if os.path.exists(mine.path(path))) == wanted
    assert f"left in {name}" in done.err
    assert mine.names() == [name]
    mine("commit", "-y", name)
    assert all(os.path.exists(mine.path(path)) for path in every)
    assert mine.names() == []
    assert [c["number"] for c in mine.json("log")["commits"]] == [2, 1]
    mine("undo")
    mine("undo")
    assert mine.listing() == {}


def test_a_path_without_changes_is_nothing_to_commit(mine):
    name = mine.try_("echo 1 >one")
    done = mine("commit", "-y", name, "two")
    assert done.err == f"layerrun: there is nothing to commit in {name} at or below {mine.path('two')}\n"
    assert mine.names() == [name]


def test_redo_begins_with_what_was_taken_back_last(mine):
    for text in ("one", "two", "three"):
        mine("try", "-y", *mine.sh(f"echo {text} >>file"))
    for _ in range(3):
        mine("undo")
    for number, text in enumerate(("one\n", "one\ntwo\n", "one\ntwo\nthree\n"), start=1):
        done = mine("redo")
        assert f"did number {number} again" in done.err
        assert mine.read("file") == text


def test_a_path_from_here_may_lead_up(mine):
    name = mine.try_("mkdir a; echo 1 >a/one; echo 2 >two")
    place = os.path.basename(mine.top)
    mine("commit", "-y", name, f"../{place}/two")
    assert mine.read("two") == "2\n"
    assert not os.path.exists(mine.path("a"))
    mine("commit", "-y", name, "a/../a", check=2)
    mine("commit", "-y", name, "..")
    assert mine.read("a/one") == "1\n"


def test_what_is_in_a_new_folder_is_counted(mine):
    name = mine.try_("mkdir -p new/sub; echo 1 >new/one; echo 2 >new/sub/two; echo x >file")
    done = mine("commit", name, "--dry-run")
    assert f"{mine.path('new')}/  (with 3 changes in it)\n" in done.out
    assert f"{mine.path('file')}\n" in done.out
    done = mine("commit", name, "--dry-run", "-E", "two")
    assert f"{mine.path('new')}/\n" in done.out
    assert f"{mine.path('new/one')}\n" in done.out


def test_kept_beside_its_commit(mine):
    name = mine.try_("echo 1 >one")
    data = mine.json("commit", "-y", "--keep", name)
    assert data["kept"] is True
    assert data["commit"]["number"] == 1
    assert mine.names() == [name]
    assert mine.read("one") == "1\n"
    done = mine("commit", "-y", name)
    assert "there is nothing to commit" in done.err


def test_a_conflict_is_listed_and_nothing_is_written(place):
    place.write("there", "before\n")
    place.write("also", "before\n")
    name = place.try_("echo after >there; rm also; echo x >new")
    place.write("there", "meanwhile\n")
    before = place.listing()
    done = place("commit", "-y", name, check=3)
    assert place.path("there") in done.err
    assert "1 conflict, and nothing was committed" in done.err
    assert f"layerrun commit {name} --force" in done.err
    assert place.listing() == before
    assert place.names() == [name]
    data = place.json("commit", "-y", name, check=3)
    assert [c["path"] for c in data["conflicts"]] == [place.path("there")]
    assert (data["commit"], data["kept"]) == (None, True)
    assert place("commit", "--dry-run", name, check=3).out.count("\n") >= 1
    place("commit", "-y", "--force", name)
    assert place.read("there") == "after\n"
    place("undo")
    assert place.listing() == before


def test_force_overwrites_no_more_than_what_is_in_conflict(mine):
    lines = "".join(f"{n}\n" for n in range(9))
    mine.write("apart", lines)
    mine.write("there", "before\n")
    name = mine.try_("sed s/^1$/one/ apart >t; cat t >apart; rm t; echo after >there")
    mine.write("apart", lines.replace("7", "seven"))
    mine.write("there", "meanwhile\n")
    done = mine("commit", "-y", name, check=3)
    assert mine.path("apart") not in done.err
    done = mine("commit", "-y", "--force", name)
    assert mine.read("there") == "after\n"
    assert mine.read("apart") == lines.replace("1", "one").replace("7", "seven")
    assert mine.path("apart") in done.err


def test_what_was_merged_counts_as_left_while_the_layer_stays(mine):
    lines = "".join(f"{n}\n" for n in range(9))
    mine.write("apart", lines)
    name = mine.try_("sed s/^1$/one/ apart >t; cat t >apart; rm t; echo x >new")
    mine.write("apart", lines.replace("7", "seven"))
    done = mine("commit", "-y", name, mine.path("apart"))
    assert f"2 changes left in {name}" in done.err
    assert len(mine.json("diff", name)["changes"]) == 2
    mine("commit", "-y", name)
    assert mine.read("apart") == lines.replace("1", "one").replace("7", "seven")
    assert mine.names() == []


def test_undo_names_what_was_changed_since(mine):
    mine.write("there", "before\n")
    name = mine.try_("echo after >there")
    mine("commit", "-y", name)
    mine.write("there", "mine\n")
    done = mine("undo", check=3)
    assert mine.path("there") in done.err
    assert "layerrun undo 1 --force" in done.err
    assert mine.read("there") == "mine\n"
    mine("undo", "--force", "1")
    assert mine.read("there") == "before\n"


def test_log_for_people(mine):
    assert mine("log").out == ""
    mine("try", "-y", *mine.sh("echo 1 >'o ne'; mkdir d; echo 22 >d/t"))
    head, row = mine("log").out.splitlines()
    assert head.split() == ["NUMBER", "CREATED", "STATE", "NAME", "CHANGES", "COMMAND"]
    assert re.search(r"^ +1  \S+Z  done +try-\w+  A 3 +sh -c 'cd ", row)
    head, *rows = mine("log", "1", "--files").out.splitlines()
    assert head.startswith("1  ")
    assert [row.split(None, 3)[-1] for row in rows if row.endswith("o ne")] == [mine.path("o ne")]
    assert len(rows) == 3
    mine("log", "2", check=6)
    mine("log", "0", check=2)


def test_of_an_app_it_is_the_factory_state(mine):
    mine("app", "web", "--", "sh", "-c", "echo x >~/layerrun-file")
    mine("commit", "-y", "web")
    mine("app", "web", "--", "sh", "-c", "rm ~/layerrun-file")
    mine("reset", "-y", "web")
    assert mine("app", "web", "--", "sh", "-c", "cat ~/layerrun-file").out == "x\n"
    assert mine.json("log")["commits"] == []
    for words in (["/etc"], ["--keep"], ["--dry-run"]):
        done = mine("commit", "-y", "web", *words, check=2)
        assert "is an app" in done.err


def test_what_cannot_be_is_said(mine):
    name = mine.try_("echo 1 >one")
    done = mine("commit", name, check=2)
    assert "there is no terminal to ask on" in done.err
    for words in (["--pick"], ["-p"]):
        assert "there is no terminal to pick on" in mine("commit", name, *words, check=2).err
    assert "bad pattern" in mine("commit", "-y", name, "-I", "/a/../b", check=2).err
    assert "must not contain '..'" in mine("commit", "-y", name, "x/../y", check=2).err
    mine("commit", "-y", "no-such", check=6)
    mine("undo", check=6)
    mine("redo", check=6)
    assert mine.names() == [name]
    assert mine.listing() == {}


def test_over_a_base_there_is_nothing_to_commit_to(mine, folder):
    from support.sandbox import small_tree

    mine("base", "import", "small", small_tree(os.path.join(folder, "tree")))
    words = ["--name", "t", "--base", "small", "--", "sh", "-c", "echo x >/etc/new"]
    done = mine("try", "-y", *words, check=2)
    assert "over the base 'small' cannot be committed" in done.err
    assert mine.names() == []
    mine("try", "-n", *words)
    done = mine("commit", "-y", "t", check=2)
    assert "layerrun branch t NEW --app" in done.err


def test_cut_short_it_can_be_committed_again(mine, monkeypatch):
    """What the commit has touched itself, and put back, is no conflict; what others have is."""
    from layerrun.commit import engine
    from layerrun.commit.plan import plan
    from layerrun.commit.steps import Work
    from layerrun.store.store import Store

    for name in ("a", "b", "c"):
        mine.write(name, "before\0\n")
    name = mine.try_("for f in a b c; do echo after >$f; done")
    before = mine.listing()
    forward, done = Work.forward, []

    def cut(work, step, **options):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(step)
        forward(work, step, **options)

    monkeypatch.setattr(Work, "forward", cut)
    with Store.open(mine.layerrun.store()) as store:
        app = store.app(name)
        with pytest.raises(KeyboardInterrupt):
            engine.commit(store, app, plan(store, app))
    monkeypatch.undo()
    assert mine.listing() == before
    mine.write("b", "mine\0\n")
    done = mine("commit", "-y", name, check=3)
    assert mine.path("b") in done.err
    assert mine.path("a") not in done.err
    mine("commit", "-y", name, "a", "c")
    assert (mine.read("a"), mine.read("b"), mine.read("c")) == ("after\n", "mine\0\n", "after\n")


def test_two_layers_that_change_one_text_apart(mine, store_path):
    """What the first commit has replaced is the ancestor for the second; and so for the third."""
    lines = [f"line {number}\n" for number in range(12)]
    mine.write("text", "".join(lines))
    names = [mine.try_(f"sed -i 's/line {at}$/LINE {at}/' text") for at in (1, 5, 9)]
    for folder in glob.glob(os.path.join(store_path, "apps", "*", "ancestors")):
        shutil.rmtree(folder)  # as if none had been kept when the commands ended
    for name in names:
        mine("commit", "-y", name)
    wanted = "".join(lines)
    for at in (1, 5, 9):
        wanted = wanted.replace(f"line {at}\n", f"LINE {at}\n")
    assert mine.read("text") == wanted
    for _ in names:
        mine("undo")
    assert mine.read("text") == "".join(lines)


def test_what_force_cannot_settle_does_not_propose_it(request, layerrun, user_folder, folder):
    request.param = users.PLAIN
    theirs = place_of(request, layerrun, user_folder, folder)
    os.mkdir(theirs.path("in"))
    os.chown(theirs.path("in"), theirs.user.uid, theirs.user.gid)
    name = theirs.try_("echo a >in/a")
    os.chown(theirs.path("in"), 0, 0)
    for words in ([], ["--force"]):
        done = theirs("commit", "-y", name, *words, check=3)
        assert theirs.path("in") in done.err
        assert "--pick" in done.err
        assert "--force" not in done.err
    assert os.listdir(theirs.path("in")) == []


def test_cut_short_folders_are_in_no_conflict_either(mine, monkeypatch):
    """One that is removed, one that becomes a file, one whose mode changes."""
    from layerrun.commit import engine
    from layerrun.commit.plan import plan
    from layerrun.store.store import Store

    for name in ("gone/x", "file/x", "closed/x"):
        os.makedirs(os.path.dirname(mine.path(name)))
        mine.write(name, "1\n")
    name = mine.try_("rm -r gone file; echo 2 >file; chmod 711 closed")
    before = mine.listing()

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(engine.finishing, "note_after", cut)
    with Store.open(mine.layerrun.store()) as store:
        app = store.app(name)
        with pytest.raises(KeyboardInterrupt):
            engine.commit(store, app, plan(store, app))
        # note_after lies behind the steps: the next one to come takes them back.
    monkeypatch.undo()
    mine("log")
    assert mine.listing() == before
    mine("commit", "-y", name)
    assert mine.read("file") == "2\n"
