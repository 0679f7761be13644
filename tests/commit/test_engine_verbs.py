"""Undo, redo and gc where things have changed, and a commit where it cannot be done."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys

import pytest
from support import probes
from support.stages import picture
from support.whose import whose

from layerrun.commit import engine
from layerrun.commit.plan import plan
from layerrun.errors import ConflictError
from layerrun.store.store import Store


@pytest.fixture(params=["root", "layerrun-test"])
def place(request, layerrun, folder, user_folder):
    """Somebody, a folder of theirs, and short words to try and to run things there."""
    user = whose(request.param)

    class Place:
        top = user_folder(user) if user else folder
        tree = os.path.join(top, "tree")
        store = layerrun.store(user)

        def sh(self, script):
            words = ["sh", "-ec", script]
            subprocess.run([*user.prefix(), *words] if user else words, check=True, cwd=self.tree)

        def attempt(self, script, check=0):
            return layerrun("try", "-y", "--", "sh", "-ec", script, user=user, cwd=self.tree, check=check)

        def run(self, *words, check=0):
            return layerrun(*words, user=user, check=check)

    place = Place()
    os.mkdir(place.tree)
    if user:
        os.chown(place.tree, user.uid, user.gid)
    place.sh("echo 1 > f; echo 1 > g; mkdir d; echo 1 > d/x")
    return place


def test_what_was_changed_since_is_not_taken_back(place):
    place.attempt("echo 2 > f; rm g; mkdir new; echo a > new/a")
    place.sh("echo 3 > f; echo mine > g; echo b > new/b")
    before = picture(place.tree)
    said = place.run("undo", check=3).err
    for name in ("tree/f", "tree/g", "tree/new/b"):
        assert name in said
    assert picture(place.tree) == before


def test_forced_it_keeps_aside_what_was_changed(place):
    before = picture(place.tree)
    place.attempt("echo 2 > f; rm g; mkdir new; echo a > new/a; echo y > d/y")
    place.sh("echo 3 > f; echo mine > g; echo b > new/b; rm d/y")
    changed = picture(place.tree)
    place.run("undo", "--force")
    after = picture(place.tree)
    assert set(after) == set(before)
    for name in (b"f", b"g", b"d/x"):  # the time of d is that of who removed something there
        assert after[name] == before[name]
    place.run("redo")
    again = picture(place.tree)
    assert set(again) == set(changed)
    assert [again[name] for name in (b"f", b"g", b"new/b")] == [
        changed[name] for name in (b"f", b"g", b"new/b")
    ]


def test_forced_it_keeps_what_was_written_into_a_file_that_stays(place):
    place.sh("ln f f2")
    place.attempt("echo 2 > f; chmod 600 g")
    place.sh("echo 3 >> f; chmod 640 g")
    place.run("undo", check=3)
    place.run("undo", "--force")
    with open(f"{place.tree}/f2") as file:
        assert file.read() == "1\n"
    place.run("redo")
    with open(f"{place.tree}/f2") as file:
        assert file.read() == "2\n3\n"
    assert os.stat(f"{place.tree}/g").st_mode & 0o777 == 0o640


def test_a_folder_that_is_gone_stops_undo_before_it_begins(place):
    place.attempt("rm d/x; echo 2 > f")
    place.sh("rmdir d")
    before = picture(place.tree)
    for words in (["undo"], ["undo", "--force"]):
        place.run(*words, check=3)
        assert picture(place.tree) == before
    place.attempt("echo 1 > other")
    place.sh("mkdir d")
    place.run("undo", "1", "--force")
    assert os.path.exists(f"{place.tree}/d/x")


def test_a_folder_that_is_removed_has_not_changed_since_it_was_looked_at(layerrun, folder):
    tree = os.path.join(folder, "tree")
    os.makedirs(f"{tree}/d/e")
    layerrun("try", "-n", "--name", "t", "--", "rm", "-r", f"{tree}/d")
    with Store.open(layerrun.store(None)) as store:
        planned = plan(store, store.app("t"))
        assert not planned.conflicts
        with open(f"{tree}/d/e/new", "w"):
            pass
        with pytest.raises(ConflictError):
            engine.commit(store, store.app("t"), planned)
        assert os.path.exists(f"{tree}/d/e/new")


def test_what_came_in_a_place_after_a_crash_costs_nothing_of_what_was_there(layerrun, folder):
    tree = os.path.join(folder, "tree")
    os.mkdir(tree)
    for name in ("removed", "replaced"):
        with open(f"{tree}/{name}", "w") as file:
            file.write("was\n")
    script = f"rm {tree}/removed; echo new > {tree}/replaced"
    layerrun("try", "-n", "--name", "t", "--", "sh", "-ec", script)
    program = """if True:
        import os, sys
        from layerrun.commit import engine, finishing, plan
        from layerrun.store.store import Store
        finishing.note_after = lambda *_: os.kill(os.getpid(), 9)
        with Store.open(sys.argv[1]) as store:
            engine.commit(store, store.app("t"), plan.plan(store, store.app("t")))
    """
    subprocess.run([sys.executable, "-c", program, layerrun.store(None)], check=False)
    assert os.listdir(tree) == ["replaced"]
    script = "echo later > removed; echo later > n; mv n replaced"
    subprocess.run(["sh", "-ec", script], check=True, cwd=tree)
    said = layerrun("list").err
    for name in ("removed", "replaced"):
        assert f"{tree}/{name}.layerrun-saved" in said
        with open(f"{tree}/{name}") as now, open(f"{tree}/{name}.layerrun-saved") as saved:
            assert (now.read(), saved.read()) == ("later\n", "was\n")


def test_parts_of_a_folder_that_was_made_anew(place):
    before = picture(place.tree)
    script = f"cd {place.tree}; rm -r d; mkdir d; echo 1 > d/a; mkdir d/n; echo 2 > d/n/b"
    place.run("try", "-n", "--name", "t", "--", "sh", "-ec", script)
    place.run("commit", "-y", "t", f"{place.tree}/d/a")
    assert sorted(os.listdir(f"{place.tree}/d")) == ["a", "x"]
    place.run("commit", "-y", "t")
    assert sorted(os.listdir(f"{place.tree}/d")) == ["a", "n"]
    place.run("undo")
    place.run("undo")
    assert picture(place.tree) == before


def test_commits_of_the_same_files_are_taken_back_one_after_the_other(place):
    states = [picture(place.tree)]
    for number in (2, 3, 4):
        place.attempt(
            f"echo {number} > f; mkdir -p made; echo {number} > made/{number}; chmod 64{number} d/x; rm -f g"
        )
        states.append(picture(place.tree))
    place.run("undo", "1", check=3)  # later commits stand upon it
    for wanted in reversed(states[:-1]):
        place.run("undo")
        assert picture(place.tree) == wanted
    for number, wanted in enumerate(states[1:], 1):
        place.run("redo", str(number))
        assert picture(place.tree) == wanted


def test_redo_does_not_overwrite_what_came_since(place):
    place.attempt("echo 2 > f; echo new > n")
    place.run("undo")
    place.sh("echo other > n")
    before = picture(place.tree)
    assert "tree/n" in place.run("redo", check=3).err
    assert picture(place.tree) == before
    place.sh("rm n")
    place.run("redo")


def test_nothing_is_undone_or_done_twice(place):
    place.attempt("echo 2 > f")
    place.run("undo")
    place.run("undo", "1", check=2)
    place.run("redo")
    place.run("redo", "1", check=2)
    place.run("undo", "7", check=6)
    place.run("redo", check=6)


def test_gc_forgets_what_is_old(place):
    place.attempt("echo 2 > f; rm d/x")
    assert json.loads(place.run("gc", "-y", "--json").out)["garbage"] == []
    (found,) = json.loads(place.run("gc", "--dry-run", "--all", "--json").out)["garbage"]
    assert found["bytes"] > 0
    place.run("gc", "--older-than", "1", "-y")
    place.run("undo")
    place.run("redo")
    before = picture(place.tree)
    place.run("gc", "-y", "--all")
    assert picture(place.tree) == before
    assert set(os.listdir(f"{place.store}/commits")) <= {"lock", "last", "taken-back"}
    place.run("undo", check=6)
    place.attempt("echo 5 > f")
    assert json.loads(place.run("log", "--json").out)["commits"][0]["number"] == 2, (
        "a number is never given again"
    )


def test_the_front_door_leaves_an_unfinished_commit_to_python(place):
    place.run("create", "web")
    for _ in range(2):
        place.run("app", "web", "--", "true")
    marker = f"{place.store}/unfinished"
    place.sh(f'echo \'{{"commit":"{"0" * 16}","doing":"commit"}}\' > {marker}')
    place.run("app", "web", "--", "true")
    assert not os.path.exists(marker)


@pytest.mark.check(40)
def test_no_link_of_the_hosts_is_followed(place):
    """A folder on the way has become a link since: what it leads to is not written to."""
    place.run(
        "try", "-n", "--name", "t", "--", "sh", "-c", f"echo 2 > {place.tree}/d/x; echo n > {place.tree}/d/n"
    )
    place.sh("mkdir elsewhere; echo 1 > elsewhere/x; mv d was; ln -s elsewhere d")
    before = picture(place.tree)
    place.run("commit", "t", "-y", check=3)
    assert picture(place.tree) == before
    assert "t" in place.run("list").out


@pytest.mark.root
@pytest.mark.check(52)
@pytest.mark.parametrize("what", ["space", "inodes"])
def test_no_room_on_another_file_system(layerrun, folder, what):
    """Half a commit's content does not fit: nothing of it is done, and the layer stays."""
    probes.need("root")
    tree = os.path.join(folder, "tree")
    os.makedirs(f"{tree}/mnt")
    limit = "size=1m" if what == "space" else "nr_inodes=20"
    fill = (
        "head -c 2000000 /dev/zero > mnt/d/big"
        if what == "space"
        else "for i in $(seq 40); do echo > mnt/d/$i; done"
    )
    script = f"""
        mount -t tmpfs -o {limit} x "$1/mnt"; cd "$1"; echo 1 > f; echo 1 > mnt/g; shift
        "$@" try -n --name t -- sh -c 'echo 2 > f; echo 2 > mnt/g; mkdir mnt/d; {fill}'
        find . -printf '%p %T@ %m %s\n' > ../before
        ! "$@" commit t -y 2> ../said
        find . -printf '%p %T@ %m %s\n' > ../after
        "$@" list > ../list; "$@" log > ../log
    """
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script, "sh", tree, *layerrun.argv()],
        env=layerrun.env(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr

    def read(name):
        with open(os.path.join(folder, name)) as file:
            return file.read()

    assert "No space left" in read("said")
    assert read("before") == read("after")
    assert "\nt " in read("list")
    assert not read("log").splitlines()[1:]
    assert not glob.glob(f"{tree}/**/.layerrun-*", recursive=True)
