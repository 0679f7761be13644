"""One place decides how a command ends; nothing that is closed or full makes it shout."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import click
import pytest

from layerrun import errors
from layerrun.cli import exits


@pytest.mark.parametrize(
    ("error", "status", "running"),
    [
        (errors.LayerrunError("x"), 1, 125),
        (errors.UsageError("x"), 2, 2),
        (errors.ConflictError("x"), 3, 3),
        (errors.BaseInUseError("x"), 3, 3),
        (errors.BusyError("x"), 5, 5),
        (errors.NotFoundError("x"), 6, 6),
        (errors.StoreError("x"), 1, 125),
        (errors.SystemError("x", errno=28), 1, 125),
        (errors.LaunchError("x"), 125, 125),
        (errors.CommandNotExecutableError("x"), 126, 126),
        (errors.CommandNotFoundError("x"), 127, 127),
        (click.UsageError("x"), 2, 2),
        (KeyboardInterrupt(), 130, 130),
        (BrokenPipeError(), 141, 141),
        (ZeroDivisionError("x"), 1, 125),
        (click.exceptions.Exit(0), 0, 0),
    ],
)
def test_statuses(error, status, running):
    assert exits.status_of(error) == status
    assert exits.status_of(error, run_like=True) == running


def test_a_message_has_what_why_and_what_to_do(capsys):
    exits.report(errors.NotFoundError("there is no app 'wbe'", hint="layerrun app web"))
    assert capsys.readouterr().err == "layerrun: there is no app 'wbe'\n  try: layerrun app web\n"


def test_a_message_cannot_drive_the_terminal(capsys):
    exits.report(errors.LayerrunError("bad \x1b]0;x\x07 \udcff"))
    assert capsys.readouterr().err == "layerrun: bad \\e]0;x\\x07 \\xff\n"


def test_a_bug_is_one_line_unless_asked_for(capsys, monkeypatch):
    exits.report(ZeroDivisionError("division by zero"))
    err = capsys.readouterr().err
    assert err.startswith("layerrun: internal error: ZeroDivisionError: division by zero\n  try: ")
    assert "Traceback" not in err
    monkeypatch.setenv("LAYERRUN_DEBUG", "1")
    exits.report(ZeroDivisionError("division by zero"))
    assert "ZeroDivisionError" in capsys.readouterr().err


def shell(layerrun, script):
    return subprocess.run(
        ["bash", "-c", script, "bash", *layerrun.argv()], env=layerrun.env(), capture_output=True, text=True
    )


def test_a_reader_that_went_away_is_no_error(layerrun):
    done = shell(
        layerrun, '"$@" list --help 2>&1 >/dev/full; "$@" completion bash | true; echo ${PIPESTATUS[0]}'
    )
    assert "Traceback" not in done.stdout + done.stderr
    done = shell(layerrun, '(sleep 0.5; "$@" completion bash; echo $? >&2) | true')
    assert done.stderr == "141\n"


def test_a_full_disk_is_an_error(layerrun):
    done = shell(layerrun, '"$@" completion bash >/dev/full')
    assert done.returncode == 1
    assert done.stderr == "layerrun: No space left on device\n"


@pytest.mark.parametrize("limit", [7, 9, 12, 24])
def test_no_descriptors_for_a_process_that_is_started_early(layerrun, limit):
    """What was suppressed there is said where a descriptor is missing next."""
    done = shell(layerrun, f'ulimit -n {limit}; "$@" base import b /etc/hostname')
    assert done.returncode == 1
    message, *hint = done.stderr.splitlines()
    assert re.fullmatch("layerrun: (.+: )?Too many open files", message)
    assert hint in ([], ["  too few descriptors are allowed: raise `ulimit -n`"])


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors(layerrun, closed, store_path):
    done = shell(layerrun, f'"$@" list {closed}')
    assert done.returncode == 0
    assert done.stdout == done.stderr == ""
    done = shell(layerrun, f'"$@" show nothing {closed}')
    assert done.returncode == 6
    # The message must not have gone into whatever was opened as descriptor 2.
    for folder, _, files in os.walk(store_path):
        for file in files:
            with open(os.path.join(folder, file), "rb") as opened:
                assert b"layerrun: there is no" not in opened.read()


def test_a_small_locale_gets_escapes(layerrun):
    # The front door starts Python isolated from such variables; `python -m layerrun` takes them.
    words = [sys.executable, "-m", "layerrun", "app", "ü", "--", "id"]
    env = layerrun.env(LC_ALL="C", PYTHONIOENCODING="ascii")
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "\\xfc" in done.stderr
