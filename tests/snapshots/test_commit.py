"""What has snapshots is committed: a throwaway with all its layers to the host, an app to its factory state."""

import os

import pytest
from support import users
from support.whose import whose


@pytest.mark.parametrize("name", ["root", users.PLAIN])
def test_a_throwaway_with_all_its_layers(layerrun, folder, user_folder, name):
    who = whose(name)
    top = user_folder(who) if who else folder
    for path in ("changed", "gone", "replaced"):
        with open(f"{top}/{path}", "w") as file:
            file.write("host\n")
        if who:
            os.chown(f"{top}/{path}", who.uid, who.gid)

    def step(line):
        layerrun("try", "-n", "--name", "t", "--", "sh", "-ec", f"cd {top}; {line}", user=who, check=0)

    step("echo 1 >changed; rm gone; mkdir d; echo 1 >d/a; ln d/a d/b; ln -s a d/l")
    layerrun("snapshot", "t", user=who, check=0)
    step("echo 2 >>changed; rm replaced; mkdir replaced; echo 2 >d/c; rm d/l")
    layerrun("snapshot", "t", user=who, check=0)
    step("echo 3 >>changed; echo 3 >replaced/in; touch -d @1000 d/c")
    layerrun("branch", "t:1", "other", user=who, check=0)
    layerrun("commit", "-y", "t", user=who, check=0)
    with open(f"{top}/changed") as file:
        assert file.read() == "1\n2\n3\n"
    assert sorted(os.listdir(f"{top}/d")) == ["a", "b", "c"]
    assert os.path.samefile(f"{top}/d/a", f"{top}/d/b")
    assert os.stat(f"{top}/d/c").st_mtime == 1000
    assert not os.path.exists(f"{top}/gone")
    with open(f"{top}/replaced/in") as file:
        assert file.read() == "3\n"
    for path in (top, f"{top}/d", f"{top}/changed"):
        assert [key for key in os.listxattr(path) if "overlay" in key] == []
    # What stands on one of its layers has not noticed, whatever is written to the host.
    with open(f"{top}/d/a", "w") as file:
        file.write("later\n")
    seen = layerrun(
        "try", "-n", "--name", "other", "--", "cat", f"{top}/d/a", f"{top}/changed", user=who, check=0
    )
    assert seen.out.split()[:2] == ["1", "1"]
    layerrun("undo", user=who)
    layerrun("undo", "--force", user=who)
    with open(f"{top}/changed") as file:
        assert file.read() == "host\n"


def test_what_the_host_did_meanwhile(layerrun, folder):
    whose("root")
    for name in ("one", "two"):
        os.mkdir(f"{folder}/{name}")
        with open(f"{folder}/{name}/a", "wb") as file:
            file.write(name.encode() + b"\0")
    for name in ("t", "u"):
        layerrun("try", "-n", "--name", name, "--", "sh", "-c", f"echo more >>{folder}/one/a", check=0)
        layerrun("snapshot", name, check=0)
    with open(f"{folder}/one/beside", "w"):
        pass
    layerrun("commit", "-y", "t", check=0)
    layerrun("undo", check=0)
    os.rename(f"{folder}/one", f"{folder}/three")
    os.rename(f"{folder}/two", f"{folder}/one")
    said = layerrun("commit", "-y", "u", check=3).err
    assert f"{folder}/one: replaced on the host since" in said


def test_an_app_to_its_factory_state(layerrun):
    whose("root")

    def sh(line, *options):
        return layerrun("app", "web", *options, "--", "sh", "-c", line, check=0).out

    sh("echo one >~/a")
    layerrun("snapshot", "web", "first", check=0)
    sh("echo two >~/a; echo two >~/b")
    sh("cat ~/a || echo none", "--profile", "p")
    layerrun("commit", "-y", "web", check=0)
    sh("echo three >~/a; rm ~/b")
    layerrun("reset", "-y", "web", check=0)
    assert sh("cat ~/a ~/b").split() == ["two", "two"]
    assert sh("cat ~/a", "--profile", "p").split() == ["two"]
    layerrun("squash", "web", check=0)
    assert sh("cat ~/a ~/b").split() == ["two", "two"]
    layerrun("rollback", "web", "first", check=0)
    assert sh("cat ~/a; test -e ~/b || echo gone").split() == ["one", "gone"]
    layerrun("reset", "-y", "web", check=0)
    assert sh("test -e ~/a || echo gone").split() == ["gone"]
