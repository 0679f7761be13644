"""The man pages are made from the commands, and the ones in docs/man are current."""

import os
import subprocess
import sys

import pytest
from support import probes

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("man"))
    subprocess.run([sys.executable, "tools/man.py", folder], cwd=ROOT, check=True)
    return folder


def test_man_pages_are_current(made):
    for name in sorted(set(os.listdir(made)) | set(os.listdir(f"{ROOT}/docs/man"))):
        with open(f"{made}/{name}") as new, open(f"{ROOT}/docs/man/{name}") as old:
            assert new.read() == old.read(), f"docs/man/{name} is not current: run make man"


def test_man_pages_have_no_roff_error(made):
    probes.need("groff")
    for name in sorted(os.listdir(made)):
        argv = ["groff", "-man", "-Tutf8", "-ww", "-z", f"{made}/{name}"]
        done = subprocess.run(argv, capture_output=True, text=True)
        assert not done.stderr, done.stderr
