"""What reaches the library: argv untouched, options where they belong, nonsense refused with 2."""

from __future__ import annotations

import os
import types

import pytest
from click.testing import CliRunner

from layerrun.cli.main import cli
from layerrun.model import App, AppConfig, AppKind, IdMode


def make_app(name="web", command=(), kind=AppKind.APP):
    return App(
        id="0" * 16,
        name=name,
        kind=kind,
        config=AppConfig(command=command),
        ids=IdMode.RANGE,
        uid_start=524288,
        created="2026-01-01T00:00:00Z",
        generation=1,
    )


@pytest.fixture
def calls(monkeypatch):
    """Replace the store and the runtime; collect what the command line asks of them."""
    from layerrun.cli import common, data, look, manage, run, throwaway
    from layerrun.errors import NotFoundError
    from layerrun.runtime import apps, launch

    made = []
    known = {"web": make_app(), "own": make_app("own", ("true",))}

    class FakeStore:
        rootless = False
        catalog = types.SimpleNamespace(app=known.get, slot=lambda name: None, trial=lambda id_: None)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

        def app(self, name, kind=None):
            if name not in known:
                raise NotFoundError(f"there is no app {name!r}")
            return known[name]

        def remove_app(self, name, keep_data=False, only=None):
            made.append(types.SimpleNamespace(what="remove", name=name))

        def kept(self, name):
            return []

    def fake_run(store, app, argv, *, cwd=None, env=None, shell=False, **options):
        made.append(
            types.SimpleNamespace(
                what="run", name=app.name, argv=argv, cwd=cwd, env=dict(env or {}), shell=shell
            )
        )
        return 7

    def fake_create(store, name, config, *, ids=None, kind=AppKind.APP):
        made.append(types.SimpleNamespace(what="create", name=name, config=config, ids=ids))
        return make_app(name)

    monkeypatch.setattr(launch, "run", fake_run)
    monkeypatch.setattr(apps, "create", fake_create)
    for module in (common, run, manage, look, throwaway, data):
        monkeypatch.setattr(module, "open_store", FakeStore)
    return made


def invoke(*words):
    done = CliRunner().invoke(cli, list(words), prog_name="layerrun", standalone_mode=False)
    if done.exception:
        raise done.exception
    return done.return_value


HARD = [
    ("--",),
    ("-x", "--yes", "--help"),
    ("", "", " "),
    ("echo", "--", "-n"),
    (os.fsdecode(b"\xff\xfe"), "new\nline"),
    ("--store", "/elsewhere"),
    ("$(id)", "`id`", ";", "*"),
]


@pytest.mark.parametrize("argv", HARD)
def test_what_follows_the_dashes_is_untouched(calls, argv):
    assert invoke("app", "web", "--", *argv) == 7
    assert calls[0].argv == argv


@pytest.mark.parametrize("argv", [("ls", "-l"), ("env", "--", "-x"), ("sh", "-c", "exit 1"), ("true",)])
def test_the_dashes_may_be_left_out(calls, argv):
    invoke("app", "web", *argv)
    assert calls[0].argv == argv


@pytest.mark.parametrize(
    "words",
    [
        ("app", "--cwd", "/srv", "web", "-e", "A=1", "--env=B=2=3", "--", "id"),
        ("app", "web", "--cwd=/srv", "-eA=1", "--env", "B=2=3", "id"),
    ],
)
def test_options_stand_before_or_behind_the_name(calls, words):
    invoke(*words)
    call = calls[0]
    assert (call.name, call.argv, call.cwd, call.env) == ("web", ("id",), "/srv", {"A": "1", "B": "2=3"})


def test_without_a_command_the_app_runs_its_own(calls):
    invoke("app", "own")
    assert calls[0].argv is None


def test_shell(calls):
    invoke("shell", "web", "--cwd", "/srv")
    assert calls[0].shell
    assert calls[0].cwd == "/srv"


def test_an_unknown_app_is_made_and_said(calls):
    done = CliRunner().invoke(cli, ["app", "new", "--", "id"], prog_name="layerrun", standalone_mode=False)
    assert [call.what for call in calls] == ["create", "run"]
    assert calls[0].config == AppConfig()
    assert done.stderr == "layerrun: created app new over host\n"
    assert done.stdout == ""


def test_a_command_that_is_not_there_takes_the_new_app_back(calls, monkeypatch):
    from layerrun.errors import CommandNotFoundError
    from layerrun.runtime import launch

    def fail(*args, **options):
        raise CommandNotFoundError("cannot run 'nope': it is not there")

    monkeypatch.setattr(launch, "run", fail)
    with pytest.raises(CommandNotFoundError):
        invoke("app", "new", "--", "nope")
    assert [call.what for call in calls] == ["create", "remove"]
    calls.clear()
    with pytest.raises(CommandNotFoundError):
        invoke("app", "web", "--", "nope")
    assert calls == []


def test_create(calls):
    invoke(
        *(
            "create",
            "db",
            "--base",
            "debian",
            "--share",
            "/srv:/data:ro",
            "--hide",
            "/etc/ssh",
            "--home",
            "fresh",
        ),
        *("--network", "none", "--cache", "/var/lib/x", "-e", "A=b", "--", "redis-server", "--port", "1"),
    )
    config = calls[0].config
    assert config.base == "debian"
    assert [str(share) for share in config.shares] == ["/srv:/data:ro"]
    assert config.hides == ("/etc/ssh",)
    assert config.home == "fresh"
    assert str(config.policy.network) == "none"
    assert config.caches == ("/var/lib/x",)
    assert config.env == ("A=b",)
    assert config.command == ("redis-server", "--port", "1")


def test_create_with_a_command_line(calls):
    invoke("create", "db", "--command", "sh -c 'echo a  b'")
    assert calls[0].config.command == ("sh", "-c", "echo a  b")


BAD = [
    ["app"],
    ["app", "web", "--"],
    ["app", "-q", "web", "--", "id"],
    ["app", "web", "-e", "=novalue", "--", "id"],
    ["shell", "web", "--", "id"],
    ["create"],
    ["create", "Bad", "--", "id"],
    ["create", "-bad"],
    ["create", "a/b"],
    ["create", ".."],
    ["create", "x" * 64],
    ["create", "x\ny"],
    ["create", "x", "--home", "nowhere"],
    ["create", "x", "--share", "relative"],
    ["create", "x", "--share", "/a:/../b"],
    ["create", "x", "--share", "/a:/"],
    ["create", "x", "--hide", "etc"],
    ["create", "x", "--command", "a", "--", "b"],
    ["create", "x", "--command", "'open"],
    ["create", "x", "--command", " "],
    ["create", "x", "--ids", "many"],
    ["reset"],
    ["reset", "web", "--all", "-y"],
    ["reset", "web"],
    ["remove", "web"],
    ["discard", "web"],
    ["clear-cache", "web"],
    ["base", "remove", "debian"],
    ["rename", "web"],
    ["rename", "web", "B@d"],
    ["which", "web"],
    ["which", "web", "relative"],
    ["which", "web", "/a/../b"],
    ["try"],
    ["try", "-n"],
    ["try", "--"],
    ["try", "--name", "No/Good", "--", "id"],
    ["try", "--hide", "etc", "--", "id"],
    ["try", "--report", "/nowhere/at/all", "--", "id"],
    ["diff", "web", "--json", "-0"],
    ["diff", "web", "--json", "--tree"],
    ["diff"],
    ["plan", "web", "--json", "-0"],
    ["base", "import", "x"],
    ["base", "import", "X!", "/"],
    ["completion", "tcsh"],
    ["list", "extra"],
    ["list", "--jsn"],
    ["--nope"],
    ["--store", "", "list"],
]


@pytest.mark.parametrize("words", BAD, ids=lambda words: " ".join(words)[:40].replace("\n", "?"))
def test_nonsense_is_refused_and_leaves_nothing(layerrun, store_path, words):
    done = layerrun(*words, check=2)
    assert done.out == ""
    first, _, rest = done.err.partition("\n")
    assert first.startswith("layerrun: ")
    assert "Traceback" not in done.err
    assert rest == "" or rest.startswith("  try: ")


def test_an_app_without_a_command_says_what_to_do(calls):
    from layerrun.errors import UsageError

    with pytest.raises(UsageError, match="no command of its own") as caught:
        invoke("app", "web")
    assert "layerrun app web -- CMD" in caught.value.hint
