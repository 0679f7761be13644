"""Programs that use the API: each runs in a Python of its own, as root and as a plain user.

Whoever wants the fixtures imports them into a conftest of their own: `who`, `programs`, `story`.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap

import pytest

from support import reach, users
from support.whose import whose

__all__ = ["Programs", "programs", "story", "who"]


@pytest.fixture(params=["root", users.PLAIN])
def who(request):
    """Whose store it is: root's (``None``), or a plain user's."""
    return whose(request.param)


class Programs:
    """Runs Python code as somebody, with a fresh store of theirs, in a folder of theirs."""

    def __init__(self, layerrun, user_folder, folder):
        self.layerrun = layerrun
        self.user_folder = user_folder
        self.folder = folder

    def run(self, code, user=None, *, env=None, prefix=(), check=True):
        python = [*reach.translate([sys.executable]), "-W", "error", "-c", code]
        argv = [*prefix, *(user.prefix() if user else []), *python]
        done = subprocess.run(
            argv,
            # Not the caller's: with a folder in it that is closed to the user, what is missing might also lie there.
            env=self.layerrun.env(user, **{"PATH": "/usr/local/bin:/usr/bin:/bin", **(env or {})}),
            cwd=self.user_folder(user) if user else self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
        )
        if check:
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
            assert done.stderr == "", done.stderr
        return done

    def story(self, function, user=None, **options):
        """Run a function's source: its argument is a `layerrun.Store`; it sees no globals but layerrun and pytest."""
        source = textwrap.dedent(inspect.getsource(function))
        source = source[source.index("def ") :]
        start = f"import layerrun, pytest\n{source}\n{function.__name__}(layerrun.Store())\n"
        return self.run(start, user, **options)


@pytest.fixture
def programs(layerrun, user_folder, folder):
    return Programs(layerrun, user_folder, folder)


@pytest.fixture
def story(programs, who):
    """Run a function as the one whose turn it is."""
    return lambda function, **options: programs.story(function, who, **options)
