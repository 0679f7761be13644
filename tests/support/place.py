"""A folder of this machine for commits to go to: nothing else of it is changed by a test."""

from __future__ import annotations

import json
import os
import re

from support.whose import whose

NUMBER = re.compile(r"committed as number (\d+), [\d,]+ changes? of (\S+): layerrun undo (\d+)")


class Place:
    """A folder on disk that the user of the test owns, and layerrun as that user.

    ``place("try", "-y", "--", ...)`` runs layerrun; ``place.sh(SCRIPT)`` is what a `try` runs, in the folder.
    """

    def __init__(self, layerrun, user, top):
        self.layerrun = layerrun
        self.user = user
        self.top = top

    def __call__(self, *words, check=0, **options):
        return self.layerrun(*words, user=self.user, check=check, cwd=self.top, **options)

    def sh(self, script):
        return ["--", "sh", "-c", f"cd {self.top} && {script}"]

    def try_(self, script, *options, check=0):
        """Keep a throwaway in which the script ran; return its name."""
        done = self("try", "-n", *options, *self.sh(script), check=check)
        found = re.search(r"kept as (\S+):", done.err)
        assert found, (done.out, done.err)
        return found[1]

    def json(self, *words, check=0):
        data = json.loads(self(*words, "--json", check=check).out)
        assert data.pop("schema") == 1
        return data

    def names(self):
        """Return the names of the throwaways that are there."""
        return [app["name"] for app in self.json("list")["apps"]]

    def path(self, name):
        return os.path.join(self.top, name)

    def write(self, name, data, mode="w"):
        with open(self.path(name), mode) as file:
            file.write(data)
        if self.user is not None:
            os.chown(self.path(name), self.user.uid, self.user.gid)

    def read(self, name):
        with open(self.path(name)) as file:
            return file.read()

    def listing(self):
        """Return all that is in the folder: paths, modes, owners, times, contents."""
        found = {}
        for top, folders, files in os.walk(self.top):
            for name in sorted([*folders, *files]):
                path = os.path.join(top, name)
                info = os.lstat(path)
                content = None
                if os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        content = file.read()
                found[os.path.relpath(path, self.top)] = (
                    info.st_mode, info.st_uid, info.st_gid, info.st_mtime_ns, info.st_nlink, content,
                )  # fmt: skip
        return found


def place_of(request, layerrun, user_folder, folder):
    """Return the place of the user that the test's parameter names."""
    user = whose(request.param)
    if user is None:
        top = os.path.join(folder, "place")
        os.mkdir(top)
    else:
        top = user_folder(user)
    return Place(layerrun, user, top)
