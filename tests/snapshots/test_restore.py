"""Paths put back as they were at a snapshot, and as the factory state has them; all else stays."""

import os

import pytest
from support import users
from support.whose import whose


@pytest.fixture(params=["root", pytest.param(users.PLAIN, marks=pytest.mark.long)])
def who(request):
    return whose(request.param)


@pytest.fixture
def verb(layerrun, who):
    def run(*words, check=0):
        return layerrun(*words, user=who, check=check)

    return run


@pytest.fixture
def sh(verb):
    def run(line, check=0):
        return verb("app", "web", "--", "sh", "-c", line, check=check).out

    return run


@pytest.mark.parametrize("who", ["root", users.PLAIN], indirect=True)
@pytest.mark.parametrize("home", [pytest.param("overlay", marks=pytest.mark.long), "fresh"])
def test_paths_of_a_snapshot(verb, sh, home, who):
    verb("create", "web", "--home", home)
    top = sh("cd ~; pwd").strip()
    sh(
        "cd ~; mkdir -p t/d/deep t/keep; echo 1 >t/d/a; ln t/d/a t/d/b; echo 1 >t/d/deep/x; ln -s a t/l;"
        " echo 1 >t/keep/k"
    )
    verb("snapshot", "web", "first")
    sh(
        "cd ~; rm -r t/d/deep t/l; echo 2 >t/d/a; echo 2 >t/d/new; mkdir t/l; echo 2 >t/l/in;"
        " echo 2 >t/keep/k; mkfifo t/f"
    )
    verb("snapshot", "web", "second")
    sh("cd ~; rm -r t/d; echo 3 >t/d; echo 3 >t/l/in")
    verb("restore", "web", "first", f"{top}/t/d", f"{top}/t/l", f"{top}/t/f")
    look = "cd ~; cat t/d/a t/d/b t/d/deep/x t/keep/k; readlink t/l; ls t t/d; stat -c %h t/d/a"
    assert sh(look).split() == [
        "1",
        "1",
        "1",
        "2",
        "a",
        "t:",
        "d",
        "keep",
        "l",
        "t/d:",
        "a",
        "b",
        "deep",
        "2",
    ]
    verb("restore", "web:second", f"{top}/t/l")
    assert sh("cat ~/t/l/in ~/t/keep/k").split() == ["2", "2"]
    # What it had before was kept.
    verb("rollback", "web", "3")
    assert sh("cat ~/t/d ~/t/l/in").split() == ["3", "3"]


def test_a_path_that_is_nowhere_changes_nothing(verb, sh):
    sh("echo 1 >~/a")
    verb("snapshot", "web")
    sh("echo 2 >~/a")
    top = sh("cd ~; pwd").strip()
    assert "nothing at" in verb("restore", "web", "1", f"{top}/a", "/nowhere/x", check=6).err
    assert sh("cat ~/a").split() == ["2"]
    assert "absolute" in verb("restore", "web", "1", "a", check=2).err
    assert verb("history", "web").out.count("\n") == 2


def test_without_paths_it_is_a_rollback(verb, sh):
    sh("echo 1 >~/a")
    verb("snapshot", "web")
    sh("echo 2 >~/a; echo 2 >~/b")
    verb("restore", "web", "1")
    assert sh("cat ~/a; test -e ~/b || echo gone").split() == ["1", "gone"]


def test_the_base_comes_back_where_layers_changed_it(layerrun, folder):
    """The host's own file, changed in a frozen layer and deleted in another."""
    whose("root")
    path = os.path.join(folder, "file")
    with open(path, "w") as file:
        file.write("host\n")

    def sh(line):
        return layerrun("app", "web", "--", "sh", "-c", line, check=0).out

    sh("true")
    layerrun("snapshot", "web", check=0)
    sh(f"echo one >{path}; touch {folder}/other")
    layerrun("snapshot", "web", check=0)
    sh(f"rm {path}")
    layerrun("snapshot", "web", check=0)
    layerrun("restore", "web", "2", path, check=0)
    assert sh(f"cat {path}") == "one\n"
    layerrun("restore", "web", "1", path, check=0)
    assert sh(f"cat {path}; ls {folder}").split() == ["host", "file", "other", "store"]
    with open(path) as file:
        assert file.read() == "host\n"
