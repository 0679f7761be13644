"""Real overlay mounts for the tests of layers: as root, and as plain users in a user namespace.

What happens in a mount is told as operations (see `overlay_worker.Operations`); what a diff should say follows from
the merged tree before and after, `expected`.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile

from support import leaks, reach, users

KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
}
# Who mounts: root with trusted.overlay.*, a plain user with one id, a plain user with subordinate ids.
WHO = ["root", "single", "subids"]


class Overlays:
    """A process that mounts overlays and answers what came of them."""

    def __init__(self, who: str) -> None:
        self.who = who
        self.folder = tempfile.mkdtemp(prefix=leaks.PREFIX, dir="/var/tmp")
        with open(os.path.join(os.path.dirname(__file__), "overlay_worker.py")) as file:
            argv = reach.translate([sys.executable, "-I", "-c", file.read()])
        env = dict(os.environ)
        if who == "root":
            argv = ["unshare", "-m", *argv]
        else:
            user = users.ensure(users.SINGLE if who == "single" else users.PLAIN)
            maps = ["-r"] if who == "single" else ["--map-auto", "--map-root-user"]
            argv = [*user.prefix(), "unshare", "-Um", *maps, *argv]
            env = user.environ()
            os.chown(self.folder, user.uid, user.gid)
        os.chmod(self.folder, 0o755)
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd="/"
        )

    def ask(self, lower, *generations, kinds=(), strict=True, **more):
        """Make the lower, mount an upper for each generation over all before, compare the last one."""
        request = {
            "folder": self.folder,
            "userxattr": self.who != "root",
            "lower": lower,
            "generations": generations,
            "kinds": list(kinds),
            "strict": strict,
            **more,
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer.get("error")
        assert not answer["left"]
        return answer

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        status = self._process.wait()
        subprocess.run(["rm", "-rf", self.folder], check=True)
        assert status == 0


def order(path):
    return path.split("/") if path else []


def expected(before, after, roots=()):
    """Return what the diff must say, from the merged tree before and after."""
    found = []
    over = None  # what is beneath this has been said
    for path in sorted(set(before) | set(after), key=order):
        old, new = before.get(path), after.get(path)
        if over is not None and path.startswith(over + "/") and old and not new:
            continue
        if over is not None and not path.startswith(over + "/"):
            over = None
        within = over is not None
        change = None
        if old is None or (within and new is not None):
            change, old = "A", None
        elif new is None:
            change, over = "D", path
        elif old[0] != new[0]:
            change, over = "T", path
        elif old[1] != new[1]:
            change = "M"
        elif old[2] != new[2]:
            change = "P"
        if change and "/" + path not in roots:
            shown = [KINDS[side[0]] if side else None for side in (new, old)]
            sizes = [side[3] if side else None for side in (new, old)]
            found.append([change, "/" + path, shown[0], sizes[0], shown[1], sizes[1]])
    return found
