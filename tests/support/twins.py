"""Two copies of a tree, one changed directly and one by a commit: see `twins_worker`, which runs as somebody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from support import leaks, reach

HERE = os.path.dirname(__file__)


def _text(name):
    with open(os.path.join(HERE, name), encoding="utf-8") as file:
        return file.read()


class Twins:
    """A process of a user's (``None``: root's) that does as it is asked, with a store of its own.

    ``ids`` are those of the throwaways; without it they are what they would be for anybody.
    """

    def __init__(self, user, ids=None) -> None:
        self.ids = ids
        self.folder = tempfile.mkdtemp(prefix=leaks.PREFIX, dir="/var/tmp")
        os.chmod(self.folder, 0o755)
        argv = reach.translate(
            [sys.executable, "-I", "-c", _text("twins_worker.py"), _text("overlay_worker.py")]
        )
        env = dict(os.environ)
        if user is not None:
            argv = [*user.prefix(), *argv]
            env = user.environ()
            os.chown(self.folder, user.uid, user.gid)
        env["LAYERRUN_STORE"] = os.path.join(self.folder, "store")
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env, cwd=self.folder
        )

    def ask(self, lower, *sessions, **more):
        """Make the trees, do the sessions to both; return what was wrong, a line each, and the changes."""
        request = {"lower": lower, "sessions": sessions, "ids": self.ids, **more}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, answer.get("error")
        return answer

    def close(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        status = self._process.wait()
        subprocess.run(["chmod", "-R", "u+rwX", self.folder], check=False, capture_output=True)
        subprocess.run(["rm", "-rf", self.folder], check=True)
        assert status == 0
