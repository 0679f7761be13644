"""No check is passed over: each has, in each of its modes, a test, a reference to tests, or a reason."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest
from support.checks import CHECKS, COVERED, MODES, NOT_SHOWN, document

ROOT = pathlib.Path(__file__).parents[2]


def collect(tmp_path, *files):
    """Return what pytest collects: node id, checks, modes."""
    path = tmp_path / "collected"
    argv = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files]
    env = {**os.environ, "ESCAPE_COLLECTED": str(path)}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    """Every test of this suite, and of the files that are referred to."""
    files = sorted({test.partition("::")[0] for tests in COVERED.values() for test in tests})
    return collect(tmp_path_factory.mktemp("checks"), "tests/escape", *files)


def test_every_check_has_an_entry_in_every_mode(collected):
    shown = {(number, mode) for _, numbers, modes in collected for number in numbers for mode in modes}
    assert sorted(CHECKS) == list(range(1, 64))
    missing = [
        (number, mode)
        for number, check in CHECKS.items()
        for mode in check.modes
        if (number, mode) not in shown | set(COVERED) | set(NOT_SHOWN)
    ]
    assert missing == []


def test_what_is_referred_to_is_there(collected):
    names = [name for name, _, _ in collected]
    gone = {
        test for tests in COVERED.values() for test in tests if not any(n.startswith(test) for n in names)
    }
    assert gone == set()


def test_what_is_not_shown_is_not_shown(collected):
    """A reason goes with the day on which the thing can be shown."""
    shown = {(number, mode) for _, numbers, modes in collected for number in numbers for mode in modes}
    assert not set(NOT_SHOWN) & (shown | set(COVERED))
    assert {mode for _, mode in {*NOT_SHOWN, *COVERED}} <= set(MODES)


def test_the_document_is_current():
    assert (ROOT / "docs/checks.md").read_text() == document(), "run tools/checks.py"
