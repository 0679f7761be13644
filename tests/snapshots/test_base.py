"""Snapshots over an imported base: as root, with subordinate ids, and with one id alone."""

import os
import subprocess

import pytest
from support import users
from support.sandbox import small_tree
from support.whose import whose


@pytest.mark.parametrize("name", ["root", users.PLAIN, pytest.param(users.SINGLE, marks=pytest.mark.long)])
def test_owners_modes_and_closed_folders(layerrun, folder, user_folder, name):
    who = whose(name)
    top = user_folder(who) if who else folder
    tree = small_tree(os.path.join(top, "tree"))
    if who:
        subprocess.run(["chown", "-R", f"{who.uid}:{who.gid}", tree], check=True)
    layerrun("base", "import", "small", tree, user=who, check=0)
    layerrun("create", "web", "--base", "small", "--home", "fresh", user=who, check=0)

    def sh(line):
        return layerrun("app", "web", "--", "sh", "-c", line, user=who, check=0).out

    owner = "chown 33:34" if name != users.SINGLE else "true"
    sh(
        f"cd /srv || mkdir /srv; cd /srv; mkdir d; echo 1 >d/a; {owner} d/a; chmod 4751 d/a; mkdir ~/h; echo 1 >~/h/x"
    )
    sh(
        f"cd /srv; mkdir closed; echo 1 >closed/a; chmod 0 closed; {owner} d; chmod 700 /; {owner} ~/h; chmod 0 ~/h"
    )
    look = "ls -ldn / /srv/d /srv/d/a /srv/closed ~/h | cut -c1-40; chmod 700 /srv/closed ~/h; cat /srv/closed/a ~/h/x"
    layerrun("snapshot", "web", "first", user=who, check=0)
    before = sh(look)
    assert before.split()[-2:] == ["1", "1"]
    sh("rm -r /srv/d; chmod 755 /; rm -r /srv/closed; echo 2 >~/h/x")
    layerrun("snapshot", "web", "second", user=who, check=0)
    sh("mkdir /srv/closed; echo 3 >/srv/closed/b; chmod 0 /srv/closed")
    layerrun("snapshot", "web", user=who, check=0)
    layerrun("squash", "web", user=who, check=0)
    assert sh("stat -c %a / /srv/closed; cat ~/h/x").split() == ["755", "0", "2"]
    layerrun("restore", "web", "first", "/srv/closed", "/srv/d", user=who, check=0)
    assert sh("ls /srv; cat /srv/d/a; stat -c %a /srv/d/a").split() == ["closed", "d", "1", "4751"]
    layerrun("rollback", "web", "first", user=who, check=0)
    assert sh(look) == before
    layerrun("branch", "web:first", "other", user=who, check=0)
    assert layerrun("app", "other", "--", "sh", "-c", look, user=who, check=0).out == before
    layerrun("remove", "-y", "web", "other", user=who, check=0)
    assert os.listdir(os.path.join(layerrun.store(who), "layers")) == []
