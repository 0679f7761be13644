"""Where a commit goes is looked at again: links, mounts, changed files there are conflicts, and never followed."""

from __future__ import annotations

import os
import shutil

import pytest
from support import users
from support.place import place_of
from support.sandbox import Mounts


@pytest.fixture(params=["root", users.PLAIN])
def place(request, layerrun, user_folder, folder):
    place = place_of(request, layerrun, user_folder, folder)
    for name in ("way", "elsewhere"):
        os.mkdir(place.path(name))
    place.write("way/file", "old\n")
    place.write("elsewhere/file", "precious\n")
    if place.user is not None:
        for name in ("way", "elsewhere"):
            os.chown(place.path(name), place.user.uid, place.user.gid)
    return place


def link_on_the_way(place):
    shutil.rmtree(place.path("way"))
    os.symlink("elsewhere", place.path("way"))


def link_at_the_target(place):
    os.unlink(place.path("way/file"))
    os.symlink("../elsewhere/file", place.path("way/file"))


def another_folder(place):
    os.rename(place.path("way"), place.path("was"))
    os.rename(place.path("elsewhere"), place.path("way"))


def folder_gone(place):
    shutil.rmtree(place.path("way"))


def folder_at_the_target(place):
    os.unlink(place.path("way/file"))
    os.mkdir(place.path("way/file"))


EITHER = [link_on_the_way, link_at_the_target, folder_gone, folder_at_the_target]
# overlayfs tells a plain user that a file was copied up, and not from where.
ROOT = [another_folder]


@pytest.mark.parametrize(
    ("place", "meanwhile"),
    [(who, each) for who in ("root", users.PLAIN) for each in (EITHER + ROOT if who == "root" else EITHER)],
    indirect=["place"],
)
def test_what_lies_at_a_target_is_never_followed(place, meanwhile):
    name = place.try_("echo new >way/file; echo more >way/more; echo apart >apart")
    meanwhile(place)
    before = place.listing()
    done = place("commit", "-y", name, check=3)
    assert place.path("way") in done.err
    assert place.listing() == before
    assert place.names() == [name]


def test_forced_it_replaces_the_link_and_not_what_it_names(place):
    name = place.try_("echo new >way/file")
    link_at_the_target(place)
    place("commit", "-y", "--force", name)
    assert not os.path.islink(place.path("way/file"))
    assert (place.read("way/file"), place.read("elsewhere/file")) == ("new\n", "precious\n")
    place("undo")
    assert os.readlink(place.path("way/file")) == "../elsewhere/file"


def test_what_is_mounted_over_is_not_replaced(layerrun, folder):
    """Whoever has mounted something there since does not lose it, nor what it hides."""
    top = os.path.join(folder, "place")
    os.makedirs(f"{top}/way")
    with open(f"{top}/way/file", "w") as file:
        file.write("old\n")
    mounts = Mounts()
    try:
        script = f"rm -r {top}/way; mkdir {top}/way; echo new >{top}/way/file"
        done = mounts.layerrun(layerrun, "try", "-n", "--name", "t", "--", "sh", "-c", script, check=0)
        assert "kept as t" in done.stderr
        mounts.sh('mount -t tmpfs tmpfs "$1"; echo mounted >"$1/file"', f"{top}/way")
        done = mounts.layerrun(layerrun, "commit", "-y", "t", check=3)
        assert f"{top}/way" in done.stderr
        assert mounts.sh('cat "$1/file"', f"{top}/way").stdout == b"mounted\n"
    finally:
        mounts.end()
    with open(f"{top}/way/file") as file:
        assert file.read() == "old\n"
