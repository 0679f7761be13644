"""Every command says what it does, with an example; verbs are found lazily; mistyped ones suggest the nearest."""

from __future__ import annotations

import os
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from layerrun.cli.common import Verb
from layerrun.cli.main import VERBS, cli

VERB_NAMES = [verb for verbs in VERBS.values() for verb in verbs]


def commands(group=cli, path=()):
    ctx = click.Context(cli)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        yield (*path, name), command


ALL = list(commands())


@pytest.mark.parametrize("path", [path for path, _ in ALL], ids=" ".join)
def test_help_has_a_sentence_and_an_example(path):
    done = CliRunner().invoke(cli, [*path, "--help"], prog_name="layerrun")
    assert done.exit_code == 0
    command = dict(ALL)[path]
    assert command.help
    if isinstance(command, Verb):
        assert "Examples:" in done.output
        assert command.examples
        for line, meaning in command.examples:
            assert line in done.output
            assert "layerrun " in line or "mmdebstrap" in line
            assert meaning


@pytest.mark.parametrize(("path", "command"), ALL, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_every_parameter_is_explained(path, command):
    for param in command.params:
        if isinstance(param, click.Option):
            assert param.help, f"{path}: {param.name}"


def test_the_list_of_commands_names_each():
    text = CliRunner().invoke(cli, ["--help"], prog_name="layerrun").output
    for name in VERB_NAMES:
        assert f"\n  {name} " in text


@pytest.mark.parametrize("words", [["--help"], ["version"]])
def test_little_is_imported(words):
    code = (
        "import sys; from layerrun.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print('\\n'.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert not loaded & {"rich", "sqlite3", "cffi", "pyroute2", "layerrun.store.store", "layerrun.cli.base"}


@pytest.mark.parametrize("words", [[], ["base"], ["channel"]], ids=" ".join)
def test_without_a_verb_it_is_a_usage_error(layerrun, words):
    done = layerrun(*words, check=2)
    assert done.err.startswith(" ".join(["Usage: layerrun", *words, "[OPTIONS]"]))
    assert "\\n" not in done.err
    assert done.out == ""


@pytest.mark.parametrize("words", [[], ["base"], ["channel"]], ids=" ".join)
def test_the_list_of_verbs_has_whole_sentences(layerrun, words):
    assert "..." not in layerrun(*words, "--help", check=0).out.replace("[ARGS]...", "")


def test_a_usage_error_is_one_line(layerrun):
    done = layerrun("completion", check=2)
    assert done.err.startswith("layerrun: completion: missing argument 'bash|zsh|fish'. Choose from: bash, ")


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["lst"], "layerrun list"),
        (["resett"], "layerrun reset"),
        (["clear"], "layerrun clear-cache"),
        (["base", "veryfy"], "layerrun base verify"),
        (["zzzzzz"], "layerrun --help"),
    ],
)
def test_a_mistyped_verb_names_the_nearest(layerrun, words, near):
    done = layerrun(*words, check=2)
    assert done.err.startswith(f"layerrun: no such command {words[-1]!r}\n")
    assert f"  try: {near}\n" in done.err


def test_version(layerrun):
    from layerrun import __version__

    for words in (["version"], ["--version"]):
        assert layerrun(*words, check=0).out == f"layerrun {__version__}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(layerrun, shell):
    assert "_LAYERRUN_COMPLETE" in layerrun("completion", shell, check=0).out


def test_the_bash_script_is_valid(layerrun):
    script = layerrun("completion", "bash", check=0).out
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def complete(layerrun, *words):
    env = {
        "_LAYERRUN_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(["layerrun", *words]),
        "COMP_CWORD": str(len(words)),
    }
    out = layerrun(env=env, check=0).out
    return [line.partition(",")[2] for line in out.splitlines() if line]


def test_completion_of_verbs_and_options(layerrun):
    assert complete(layerrun, "cle") == ["clear-cache"]
    assert "--exit-code" in complete(layerrun, "diff", "--")


def test_completion_of_apps_without_a_store_is_silent(layerrun, store_path):
    assert complete(layerrun, "reset", "") == []
    assert not os.path.exists(store_path)
