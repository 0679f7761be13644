"""Bases whose mount points are links or files: the start is refused, or stays within the new root."""

from __future__ import annotations

import os
import shutil

import pytest

PLACES = ("proc", "dev", "tmp", "run", "sys", "etc/resolv.conf", "root")


def put(tree, place, what):
    path = f"{tree}/{place}"
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if what == "file":
        with open(path, "w"):
            pass
    else:
        os.symlink(what, path)


def imported(layerrun, path, who):
    layerrun("base", "import", "odd", path, user=who, check=0)
    layerrun("create", "a", "--base", "odd", user=who, check=0)


def odd_places():
    """All at two places, and at each place those that lead to the host or bear no mount; the rest is long."""
    for what in ("absolute", "relative", "dotdot", "loop", "dangling", "file"):
        for place in PLACES:
            short = what in ("absolute", "dotdot", "file") or place in ("proc", "etc/resolv.conf")
            yield pytest.param(what, place, marks=[] if short else pytest.mark.long)


@pytest.mark.parametrize(("what", "place"), list(odd_places()))
def test_an_odd_mount_point(layerrun, tree, folder, place, what):
    """Links lead to a folder of the host that is there under the same name in no base."""
    outside = f"{folder}/outside"
    os.mkdir(outside)
    with open(f"{outside}/file", "w") as file:
        file.write("host\n")
    path = tree()
    depth = place.count("/")
    target = {
        "absolute": outside,
        "relative": "../" * depth + "var",
        "dotdot": "../" * 20 + outside.strip("/"),
        "loop": os.path.basename(place),
        "dangling": "/no/such/place",
        "file": "file",
    }[what]
    put(path, place, target)
    imported(layerrun, path, None)
    before = sorted(os.listdir("/proc/self/fd"))
    done = layerrun(
        "app", "a", "--", "sh", "-c", f"echo ran; cat {outside}/file /{place}/file; touch {outside}/x"
    )
    assert "host" not in done.out
    assert sorted(os.listdir(outside)) == ["file"]
    assert done.rc in {0, 1, 2, 125}, done
    if done.rc not in {0, 1}:
        assert "ran" not in done.out
        assert "layerrun: " in done.err
        assert "Traceback" not in done.err
    assert sorted(os.listdir("/proc/self/fd")) == before
    layerrun("base", "verify", "odd", check=0)


@pytest.mark.parametrize("what", ["../../../../../../etc", "/etc", "file"])
def test_an_odd_mount_point_of_a_plain_users_base(layerrun, tree, any_user, what):
    path = tree(any_user)
    for place in ("tmp", "run"):
        put(path, place, what)
    os.chown(f"{path}/tmp", any_user.uid, any_user.gid, follow_symlinks=False)
    os.chown(f"{path}/run", any_user.uid, any_user.gid, follow_symlinks=False)
    imported(layerrun, path, any_user)
    done = layerrun("app", "a", "--", "sh", "-c", "ls /tmp /run", user=any_user)
    assert "passwd" not in done.out
    assert done.rc in {0, 2, 125}


@pytest.mark.parametrize("where", ["a/link", "link"])
def test_a_share_behind_a_link_of_the_base(layerrun, tree, folder, where):
    """A share's place is looked for within the root, however the base's links lead."""
    os.makedirs(f"{folder}/outside/deep")
    os.mkdir(f"{folder}/shared")
    path = tree()
    os.makedirs(f"{path}/a", exist_ok=True)
    os.symlink(f"{'../' * 30}{folder.strip('/')}/outside", f"{path}/{where}")
    layerrun("base", "import", "odd", path, check=0)
    layerrun("create", "a", "--base", "odd", "--share", f"{folder}/shared:/{where}/deep", check=0)
    layerrun("app", "a", "--", "sh", "-c", f"touch /{where}/deep/x", check=0)
    assert os.listdir(f"{folder}/shared") == ["x"]
    assert os.listdir(f"{folder}/outside/deep") == []


def test_an_app_that_turns_its_own_mount_points_into_links(layerrun, inside, folder, who):
    """What the app left in its upper does not lead the next start astray."""
    inside("rmdir /mnt/x 2>/dev/null; mv /srv /srv.old 2>/dev/null; ln -s /etc /srv 2>/dev/null; true", who)
    home = who.home if who else "/root"
    inside(f"rm -rf {home}/.cache; ln -s ../../../../../etc {home}/.cache", who)
    inside("true", who)
    layerrun("clear-cache", "-y", "a", user=who)
    assert os.path.exists("/etc/passwd")
    inside("test -e /etc/passwd", who)
