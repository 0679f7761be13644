"""What the tests of the store and of bases share: processes that die on purpose, and a look at what is left."""

from __future__ import annotations

import os
import pathlib
import signal
import sqlite3
import sys

import pytest

from layerrun.store.store import Store

ROOT = str(pathlib.Path(sys.modules["layerrun"].__file__).parent)
# Lines that only compute are left out: dying on them is like dying on the next line that acts.
QUIET = ("uids.py", "names.py", "manifest.py", "paths.py", "subids.py", "model.py", "changes.py", "errors.py")


def strides(usual, fine):
    """Return the parameters of a test that dies at every so many lines of an action: the finer steps take long."""
    return [usual, pytest.param(fine, marks=pytest.mark.long)]


def die_at_line(number, action):
    """Run ``action`` in a child that kills itself at its ``number``-th line; say whether it got that far."""
    pid = os.fork()
    if pid == 0:
        left = number

        def trace(frame, event, _arg):
            nonlocal left
            path = frame.f_code.co_filename
            if not path.startswith(ROOT) or path.endswith(QUIET):
                return None
            if event == "line":
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            return trace

        status = 1
        try:
            sys.settrace(trace)
            action()
            status = 0
        finally:
            sys.settrace(None)
            os._exit(status)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the action failed by itself"
    return False


def check_whole(path):
    """Open a store as the next command would, and assert that nothing in it is half done."""
    with Store.open(path) as store:
        apps, bases = store.catalog.apps(), store.catalog.versions()
        for app in apps:
            data = set(os.listdir(f"{store.app_dir(app)}/data"))
            assert {"upper", "work", "roots"} <= data, (app, data)
        assert sorted(os.listdir(f"{path}/apps")) == sorted(app.id for app in apps)
        assert sorted(os.listdir(f"{path}/bases")) == sorted(base.id for base in bases)
        for base in bases:
            assert set(os.listdir(f"{path}/bases/{base.id}")) <= {"tree", "image", "manifest", "links"}
    assert os.listdir(f"{path}/staging") == []
    assert os.listdir(f"{path}/trash") == []
    database = sqlite3.connect(f"{path}/catalog.db")
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        database.close()
