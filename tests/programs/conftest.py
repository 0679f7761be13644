"""The places, as fixtures, and the watch over the host. A base is imported once for all tests here."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest
from programs.places import Place, make_folder, unpack
from support import debian, probes, users

# Programs that others may change while the tests run (users come and go) are no part of the host's fingerprint.
UNSTEADY = {"passwd", "group", "shadow", "gshadow", "subuid", "subgid", "mtab", ".pwd.lock", ".bash_history"}
WATCHED = ["/", "/etc", "/usr/bin", "/usr/sbin", "/usr/local", "/srv", "/opt", "/root", "/var/lib/dpkg/info"]


def _place(user=None):
    folder = make_folder(user)
    return folder, Place(folder, user)


@pytest.fixture(scope="session")
def _root_place():
    probes.need("root")
    folder, place = _place()
    yield place
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture(scope="session")
def _plain_place():
    probes.need("subids")
    probes.need("reachable")
    folder, place = _place(users.ensure(users.PLAIN))
    yield place
    subprocess.run(["rm", "-rf", folder], check=True)


@pytest.fixture(scope="session")
def _single_place():
    probes.need("rootless")
    probes.need("reachable")
    folder, place = _place(users.ensure(users.SINGLE))
    yield place
    subprocess.run(["rm", "-rf", folder], check=True)


def _get(request, words):
    who, base = words.split("-")
    place = request.getfixturevalue(f"_{who}_place")
    if base == "host":
        return place
    probes.need("debian")
    if "debian" not in place.made:
        tree = debian.make()
        if place.user:
            tree = f"{place.folder}/tree"
            unpack(place.user, tree)
        place("base", "import", "debian", tree)
        place.made["debian"] = True
    return place.over("debian")


@pytest.fixture
def place(request):
    """The place that the test's parameter names, like ``plain-debian``."""
    return _get(request, request.param)


def _listing(path):
    with os.scandir(path) as entries:
        for entry in entries:
            info = entry.stat(follow_symlinks=False)
            if entry.name.rstrip("-") in UNSTEADY or entry.name.startswith(("passwd.", "group.", "subuid.")):
                continue
            # A folder's times tell of the names in it, which others may change; those are listed by themselves.
            times = None if entry.is_dir(follow_symlinks=False) else info.st_mtime_ns
            yield entry.path, info.st_mode, info.st_uid, info.st_gid, info.st_size if times else None, times


@pytest.fixture(autouse=True)
def host_unchanged():
    """Fail a test that changes the machine it runs on."""

    def look():
        return {line[0]: line for path in WATCHED for line in _listing(path)}

    before = look()
    yield
    after = look()
    changed = sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))
    assert not changed, f"the host was changed: {changed}"


@pytest.fixture
def free_port():
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def pytest_generate_tests(metafunc):
    """``@pytest.mark.parametrize("place", …, indirect=True)`` for all places unless the test names its own."""
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "place" in metafunc.fixturenames and "place" not in named:
        metafunc.parametrize(
            "place",
            [
                *("root-host", "root-debian", "plain-host"),
                # What is special of these, the tests that name their places show.
                *(
                    pytest.param(p, marks=pytest.mark.long)
                    for p in ("plain-debian", "single-host", "single-debian")
                ),
            ],
            indirect=True,
        )
