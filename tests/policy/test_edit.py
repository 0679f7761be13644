"""``create``, ``edit`` and ``show`` of what an app may reach, on a real store."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import sqlite3
import subprocess

import pytest

pytestmark = [pytest.mark.root, pytest.mark.idmap]


@pytest.fixture
def web(layerrun):
    layerrun("create", "web", "--limit", "pids=50", "--", "true", check=0)
    return "web"


def config(layerrun, name="web"):
    return json.loads(layerrun("show", name, "--json", check=0).out)["config"]


def test_what_is_given_is_changed_and_the_rest_stays(layerrun, web, tmp_path):
    layerrun(
        "edit",
        web,
        "--network",
        "none",
        "--share",
        f"{tmp_path}:/s:ro",
        "-e",
        "A=b",
        "--limit",
        "nofile=99",
        check=0,
    )
    done = layerrun("edit", web, "-e", "C=d", "-e", "A=e", "--hide", "/srv", "--", "id", "-u", check=0)
    assert "changed web: hides, command, env" in done.err
    found = config(layerrun)
    assert found["env"] == ["A=e", "C=d"]
    assert found["command"] == ["id", "-u"]
    assert found["shares"] == [f"{tmp_path}:/s:ro"]
    assert found["policy"]["network"] == "none"
    assert found["policy"]["limits"] == ["pids=50", "nofile=99"]
    assert layerrun("app", web, check=0).out == "0\n"
    assert layerrun("app", web, "--", "ls", "/srv", "/s", check=0).out == "/s:\n\n/srv:\n"


def test_a_change_counts_at_the_next_start(layerrun, web):
    interfaces = ("app", web, "--", "cat", "/proc/net/dev")
    before = layerrun(*interfaces, check=0).out
    layerrun("edit", web, "--network", "none", check=0)
    assert len(layerrun(*interfaces, check=0).out.splitlines()) == 3
    layerrun("edit", web, "--unset", "network", check=0)
    assert [line.split()[0] for line in layerrun(*interfaces, check=0).out.splitlines()] == [
        line.split()[0] for line in before.splitlines()
    ]


def test_unset(layerrun, web):
    layerrun(
        "edit", web, "--allow", "nesting", "--deny", "ptrace", "--hide", "/srv", "--hide", "/opt", check=0
    )
    layerrun(
        "edit",
        web,
        "--unset",
        "hide=/srv",
        "--unset",
        "allow",
        "--unset",
        "limit=pids",
        "--unset",
        "command",
        check=0,
    )
    found = config(layerrun)
    assert found["hides"] == ["/opt"]
    assert found["command"] == []
    assert found["policy"]["allow"] == []
    assert found["policy"]["deny"] == ["ptrace"]
    assert found["policy"]["limits"] == []
    layerrun("edit", web, "--unset", "policy", check=0)
    assert config(layerrun)["policy"]["deny"] == []
    layerrun("edit", web, "--deny", "ptrace", check=0)
    layerrun("edit", web, "--allow", "ptrace", check=0)
    assert config(layerrun)["policy"]["deny"] == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--unset", "shar"], "did you mean share"),
        (["--unset", "hide=/nowhere"], "no hide=/nowhere"),
        (["--unset", "network=none"], "one value"),
        (["--publish", "80"], "private"),
        (["--share", "/does/not/exist"], "does not exist"),
        (["--limit", "pids=0"], "bad value"),
        (["--from", "/does/not/exist"], "cannot read"),
        (["--from", "/dev/null", "--network", "none"], "excludes"),
        ([], "no terminal"),
    ],
)
def test_what_makes_no_sense_changes_nothing(layerrun, web, words, why):
    before = config(layerrun)
    done = layerrun("edit", web, *words, check=2)
    assert why in done.err
    assert config(layerrun) == before


def test_a_running_app_is_not_edited(layerrun, web):
    process = subprocess.Popen(
        layerrun.argv("app", web, "--", "sh", "-c", "echo ready; sleep 1000"),
        env=layerrun.env(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    assert "running" in layerrun("edit", web, "--network", "none", check=5).err
    layerrun("edit", web, "--network", "none", "--kill", check=0)
    assert process.wait() == 137
    process.stdout.close()
    assert config(layerrun)["policy"]["network"] == "none"


def test_a_profile_has_its_apps_policy(layerrun, web):
    layerrun("app", web, "--profile", "work", "--", "true", check=0)
    assert "profile" in layerrun("edit", "web@work", "--network", "none", check=2).err
    layerrun("edit", web, "--network", "none", check=0)
    assert len(layerrun("app", "web@work", "--", "cat", "/proc/net/dev", check=0).out.splitlines()) == 3


def test_toml_makes_another_like_it(layerrun, web, tmp_path):
    layerrun("edit", web, "--preset", "strict", "--allow", "cap:chown", "--hide", "/srv", check=0)
    path = tmp_path / "web.toml"
    path.write_text(layerrun("show", web, "--toml", check=0).out)
    layerrun("create", "shop", "--from", str(path), check=0)
    assert config(layerrun, "shop") == config(layerrun)
    assert "like that already" in layerrun("edit", "shop", "--from", str(path), check=0).err
    path.write_text("base = 'other'")
    assert "base" in layerrun("edit", "shop", "--from", str(path), check=2).err
    path.write_bytes(b"\xff\xfe")
    assert "UTF-8" in layerrun("create", "next", "--from", str(path), check=2).err
    assert "excludes --hide" in layerrun("create", "next", "--from", str(path), "--hide", "/x", check=2).err


def test_in_an_editor(layerrun, web, tmp_path):
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nexec sed -i \'s/^preset = .*/preset = "strict"/\' "$1"\n')
    editor.chmod(0o755)
    master, slave = pty.openpty()
    done = subprocess.run(
        layerrun.argv("edit", web),
        env=layerrun.env(EDITOR=str(editor), VISUAL=str(editor)),
        stdin=slave,
        stderr=slave,
        timeout=60,
    )
    said = os.read(master, 4096).decode()
    os.close(master)
    os.close(slave)
    assert (done.returncode, "changed web: preset" in said) == (0, True), said
    assert config(layerrun)["policy"]["preset"] == "strict"


def test_show_says_what_and_why(layerrun, web):
    layerrun("edit", web, "--preset", "service", "--network", "none", "--allow", "cap:net_raw", check=0)
    shown = layerrun("show", web, check=0).out
    assert "nothing but a loopback of its own" in shown
    assert "at most 50 processes" in shown
    why = layerrun("show", web, "--explain", check=0).out
    assert [line.split("  ")[-1].strip() for line in why.splitlines() if "net_raw" in line] == [
        "--allow cap:net_raw"
    ]
    assert any("the preset service" in line for line in why.splitlines() if "core dumps" in line)
    data = json.loads(layerrun("show", web, "--json", check=0).out)
    assert {
        "kind": "network",
        "value": "none",
        "text": "connects to nothing but a loopback of its own",
    }.items() <= next(one for one in data["reach"] if one["kind"] == "network").items()


def test_an_old_catalog_has_no_policy(layerrun, web):
    """What was stored before there were policies has none, and is the default."""
    with contextlib.closing(sqlite3.connect(os.path.join(layerrun.store(), "catalog.db"))) as catalog:
        catalog.execute("UPDATE apps SET config = '{}'")
        catalog.commit()
    assert config(layerrun)["policy"]["preset"] == "default"
