"""What the front door makes of a command line, and what click makes of it: the same, or the front door is not sure."""

from __future__ import annotations

import os
import random
import subprocess
import types

import click
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))

pytestmark = pytest.mark.compiler


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    """A function from command lines to what the front door makes of each: a tuple, or ``None`` if it is not sure."""
    program = str(tmp_path_factory.mktemp("options") / "options")
    flags = "-std=gnu11 -D_GNU_SOURCE -Wall -Wextra -Werror -fsanitize=address,undefined".split()
    argv = ["cc", *flags, f"-I{ROOT}/csrc", "-o", program, f"{HERE}/options.c", f"{ROOT}/csrc/options.c"]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def run(lines):
        given = "".join("".join(f"{word}\x1f" for word in words) + "\n" for words in lines)
        done = subprocess.run([program], input=given, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return [understood(line) for line in done.stdout.split("\n")[:-1]]

    return run


CALLERS = {"A": "callers"}


def understood(line):
    if line == "unsure":
        return None
    name, cwd, rest = "", None, line
    name, _, rest = rest.partition("\x1f")
    if rest.startswith("\x1e"):
        rest = rest[1:]
    else:
        cwd, _, rest = rest.partition("\x1f")
    status_fd, detach, rest = rest.split("\x1f", 2)
    env, _, argv = rest.partition("\x1e")
    values = {}
    for word in env.split("\x1f")[:-1]:  # the last word for a name counts, and NAME is the caller's
        name_of, equals, value = word.partition("=")
        values.pop(name_of, None)
        if equals or name_of in CALLERS:
            values[name_of] = value if equals else CALLERS[name_of]
    env = values
    return name, cwd, int(status_fd), detach == "1", env, None if argv == "own" else argv.split("\x1f")[:-1]


def by_click(words, monkeypatch):
    """Return the same of what click makes of it; the error if it makes none."""
    from layerrun.cli import run
    from layerrun.cli.common import Settings

    settings = Settings()
    # Any descriptor will do.
    quiet = types.SimpleNamespace(
        environ=CALLERS, fstat=lambda fd: None, set_inheritable=lambda fd, value: None
    )
    monkeypatch.setattr(run, "os", quiet)
    try:
        with run.app.make_context("app", list(words), obj=settings) as ctx:
            given = dict(ctx.params)
        name, profile = run._named(given["name"], given["profile"], ephemeral=given["ephemeral"])
        env = run.variables(given["env"])
    except Exception as error:  # noqa: BLE001  (whatever it is, the front door must leave it to Python)
        return error
    if given["ephemeral"] or given["no_userns"]:
        return RuntimeError("only Python knows it")
    argv = given["argv"]
    full = name if profile is None else f"{name}@{profile}"
    return (
        full,
        given["cwd"],
        settings.status_fd or 0,
        given["detach"],
        env,
        None if argv is None else list(argv),
    )


SURE = [
    ["web"],
    ["web", "--", "true"],
    ["web", "true"],
    ["web", "true", "--", "-x", "--help"],
    ["web", "--", "--", "x"],
    ["-e", "A=b", "web", "--", "env"],
    ["web", "-e", "A=b", "--", "env"],
    ["web", "-eA=b", "--env=C=d=e", "--env", "E=", "x"],
    ["web", "-e", "A=1", "-e", "A=2", "x"],
    ["web", "-e", "A", "-eB", "--env=C", "x"],
    ["web", "-e", "A=1", "-e", "A", "-e", "B=1", "-e", "B", "x"],
    ["--cwd", "/x", "web", "x"],
    ["--cwd=/x y", "web", "x"],
    ["--profile", "work", "web", "x"],
    ["web@work", "--cwd=/", "x"],
    ["web", "--status-fd", "3", "x", "", " "],
    ["--status-fd=12", "web"],
    ["-d", "web", "x"],
    ["web", "--detach", "x"],
    ["--detach", "-d", "web", "x"],
    ["a" * 63 + "@" + "b" * 63],
]


@pytest.mark.parametrize("words", SURE, ids=" ".join)
def test_what_it_is_sure_of(door, monkeypatch, words):
    (found,) = door([words])
    assert found is not None
    assert found == by_click(words, monkeypatch)


UNSURE = [
    [],
    ["--"],
    ["web", "--"],
    ["web", "--", ""],
    ["web", "", "x"],
    ["", "x"],
    ["-", "x"],
    ["Web"],
    ["web@", "x"],
    ["@web", "x"],
    ["web@a@b", "x"],
    ["web@a", "--profile", "a", "x"],
    ["web", "--profile", "", "x"],
    ["web", "--profile", "a b", "x"],
    ["web", "-e", "=A", "x"],
    ["web", "-e=A=b", "x"],
    ["web", "-e"],
    ["web", "-e", "--", "x"],
    ["web", "-e", "-d", "x"],
    ["web", "--cwd", "x", "x"],
    ["web", "--cwd", "", "x"],
    ["web", "--cwd", "/x", "--cwd", "/y", "x"],
    ["web", "--cw", "/x", "x"],
    ["web", "--detach=1", "x"],
    ["web", "-de", "A=b", "x"],
    ["web", "-dx", "x"],
    ["web", "--status-fd", "0", "x"],
    ["web", "--status-fd", "-1", "x"],
    ["web", "--status-fd", "03", "x"],
    ["web", "--status-fd", "3x", "x"],
    ["web", "--ephemeral", "x"],
    ["web", "--help"],
    ["web", "-h"],
    ["a" * 64],
    ["a@" + "b" * 64],
]


@pytest.mark.parametrize("words", UNSURE, ids=" ".join)
def test_what_it_leaves_to_python(door, words):
    assert door([words]) == [None]


PIECES = (
    "web web@work @ a@b@c Web - -- -e --env --env= -eA=b -eA -e=A=b --env=A=b --env=A A=b A= =b -d --detach "
    "--detach=1 -de -dd --cwd --cwd=/x --cwd= /x x --profile --profile=p --profile= p --status-fd --status-fd=3 "
    "--status-fd= 3 03 0 -1 +3 --ephemeral --no-userns --help -h --version true"
).split()


def test_lines_made_of_anything(door, monkeypatch):
    chance = random.Random(1)
    pieces = [*PIECES, "", " ", "ü", "a b", "3 "]
    lines = [[chance.choice(pieces) for _ in range(chance.randrange(1, 8))] for _ in range(20_000)]
    found = door(lines)
    sure = [(words, result) for words, result in zip(lines, found, strict=True) if result is not None]
    assert len(sure) > 300
    for words, result in sure:
        wanted = by_click(words, monkeypatch)
        if wanted != result and isinstance(wanted, click.ClickException):
            raise AssertionError((words, result)) from wanted
        assert result == wanted, words
