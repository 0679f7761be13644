"""Whose store it is, and decoys: files outside that nothing hostile may reach."""

from __future__ import annotations

import os
import pathlib

import pytest
from support import probes, users


@pytest.fixture(params=["root", users.PLAIN, users.SINGLE])
def who(request):
    """Whose store it is: root's (``None``), a plain user's with subordinate ids, one's without."""
    return _whose(request.param)


@pytest.fixture(params=["root", users.PLAIN])
def either(request):
    """Root (``None``) and a plain user."""
    return _whose(request.param)


def _whose(name):
    if name == "root":
        probes.need("root")
        probes.need("idmap")
        return None
    probes.need("rootless")
    probes.need("reachable")
    return users.ensure(name)


class Decoy:
    """A folder outside every layer, with a file and a folder in it; `check` finds out whether it was touched."""

    def __init__(self, top, owner=None):
        self.path = os.path.join(top, "decoy")
        os.makedirs(f"{self.path}/folder")
        for name in ("file", "folder/inner"):
            with open(f"{self.path}/{name}", "w") as file:
                file.write("DECOY")
            os.chmod(f"{self.path}/{name}", 0o644)
        if owner:
            for path in (self.path, *(f"{self.path}/{n}" for n in ("file", "folder", "folder/inner"))):
                os.chown(path, owner.uid, owner.gid)
        self._before = self._look()

    def _look(self):
        found = {}
        for folder, folders, names in os.walk(self.path):
            for name in (".", *folders, *names):
                path = os.path.join(folder, name)
                info = os.lstat(path)
                text = pathlib.Path(path).read_text() if os.path.isfile(path) else ""
                found[path] = (
                    info.st_ino,
                    info.st_mode,
                    info.st_uid,
                    info.st_nlink,
                    info.st_ctime_ns,
                    text,
                    os.listxattr(path),
                )
        return found

    def check(self):
        """Assert that nothing was changed, added, linked or removed."""
        assert self._look() == self._before


@pytest.fixture
def decoy(user_folder, folder):
    """A function from who to a `Decoy` of theirs, which is looked at again at the end."""
    made = []

    def make(who=None):
        made.append(Decoy(user_folder(who) if who else folder, who))
        return made[-1]

    yield make
    for one in made:
        one.check()
