"""A base with a shell in it, further versions of it, and somebody who has it in a store."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess

import pytest
from support import users
from support.sandbox import small_tree
from support.whose import whose

EVERYBODY = ["root", *(pytest.param(user, marks=pytest.mark.long) for user in (users.PLAIN, users.SINGLE))]


class Place:
    """Somebody with a base ``small``, made of the folder ``one``, and a place for more folders."""

    def __init__(self, layerrun, top, who):
        self.layerrun, self.top, self.who = layerrun, top, who
        small_tree(f"{top}/one")
        self.write("one", {"etc/shared": "1\n", "etc/old": "old\n", "var/dir/a": "a\n"})
        self("base", "import", "small", f"{top}/one", check=0)

    def write(self, name, files):
        for path, text in files.items():
            target = pathlib.Path(self.top, name, path)
            if text is None:
                target.unlink()
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
        if self.who:
            subprocess.run(["chown", "-hR", f"{self.who.uid}:{self.who.gid}", self.top], check=True)

    def version(self, name, files):
        """Make the folder of another version: ``one`` with other files."""
        shutil.copytree(f"{self.top}/one", f"{self.top}/{name}", symlinks=True)
        self.write(name, files)
        return f"{self.top}/{name}"

    def __call__(self, *words, **options):
        return self.layerrun(*words, user=self.who, **options)

    def json(self, *words, **options):
        return json.loads(self(*words, "--json", check=0, **options).out)

    def update(self, source, *words, check=0):
        return self("base", "update", "small", "--from", source, "-y", *words, check=check)

    def sh(self, line, app="web", check=0):
        return self("app", app, "--", "sh", "-c", line, check=check).out

    def versions(self):
        """Return {version: whether it is the current one}."""
        return {one["version"]: one["current"] for one in self.json("base", "versions")["versions"]}

    def store(self, *parts):
        return os.path.join(self.layerrun.store(self.who), *parts)


@pytest.fixture(params=EVERYBODY)
def place(request, layerrun, folder, user_folder):
    who = whose(request.param)
    return Place(layerrun, user_folder(who) if who else folder, who)


@pytest.fixture
def root(layerrun, folder):
    return Place(layerrun, folder, None)
