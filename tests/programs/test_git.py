"""A repository of the host, given as a share: read-only it is cloned, writable it is pushed to."""

from __future__ import annotations

import os
import subprocess

import pytest

WHO = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org"]


@pytest.fixture
def repository(place):
    """A repository with one commit and a bare one beside it, both the caller's, in a folder of their own."""
    folder = subprocess.check_output(["mktemp", "-d", f"{place.folder}/git.XXXXXX"], text=True).strip()

    def git(*words):
        argv = ["git", *WHO, "-C", folder, *words]
        if place.user:
            argv = place.user.prefix() + argv
        return subprocess.run(argv, check=True, env=place.env(), capture_output=True, text=True).stdout

    if place.user:
        os.chown(folder, place.user.uid, place.user.gid)
    git("init", "-q", "-b", "main", "work")
    with open(f"{folder}/work/file", "w") as file:
        file.write("one\n")
    git("-C", "work", "add", "file")
    git("-C", "work", "commit", "-q", "-m", "first")
    git("clone", "-q", "--bare", "work", "bare.git")
    git.folder = folder
    yield git
    subprocess.run(["rm", "-rf", folder], check=True)


def shares(repository):
    return [
        *("--share", f"{repository.folder}/work:/srv/work:ro"),
        *("--share", f"{repository.folder}/bare.git:/srv/bare.git"),
    ]


@pytest.mark.parametrize("place", ["root-host", "plain-host", "single-host"], indirect=True)
def test_clone_and_push(place, repository):
    app = place.create(*shares(repository))
    story(place, app, repository)


@pytest.mark.network
@pytest.mark.parametrize(
    "place",
    [
        "root-debian",
        *(pytest.param(one, marks=pytest.mark.long) for one in ("plain-debian", "single-debian")),
    ],
    indirect=True,
)
def test_clone_and_push_with_git_of_the_base(place, repository):
    app = place.create(*shares(repository))
    place.install(app, "git")
    story(place, app, repository)


def story(place, app, repository):
    git = "git " + " ".join(WHO)
    place.sh(app, f"{git} clone -q /srv/work cloned && test -f cloned/file")
    assert "Read-only file system" in place("app", app, "--", "touch", "/srv/work/new", check=1).stderr
    place.sh(
        app,
        f"{git} clone -q /srv/bare.git two && cd two && echo two > more && git add more "
        f"&& {git} commit -qm second && {git} push -q origin main 2>&1",
    )
    assert repository("-C", "bare.git", "log", "--format=%s").split() == ["second", "first"]
    # What came in through the share belongs to the caller, not to an id that only the sandbox knows.
    uid = place.user.uid if place.user else 0
    for top, _, files in os.walk(f"{repository.folder}/bare.git"):
        assert {os.lstat(os.path.join(top, name)).st_uid for name in files} <= {uid}
    repository("-C", "bare.git", "fsck", "--strict")
    # A reset takes the clones and spares the share.
    place("reset", "-y", app)
    place("app", app, "--", "sh", "-c", "test ! -e ~/cloned && test ! -e ~/two")
    assert repository("-C", "bare.git", "log", "--format=%s").split() == ["second", "first"]
    place("remove", "-y", app)
