"""Apps on trial: which starts count, after how many they go back, and what becomes of what was built meanwhile."""

import asyncio
import contextlib
import json
import pathlib

import pytest
from support.sandbox import wait_for

from layerrun import api

BAD = {"etc/shared": "2\n", "usr/bin/cat": None}


def state(place):
    (found,) = place.json("status")["apps"]
    return found


def on_trial(place, *words, tries=2, files=BAD):
    """Make an app that does not start any more after the update that follows."""
    place("create", "web", "--base", "small", *(words or ("--", "cat", "/etc/shared")), check=0)
    place.update(place.version("bad", files), "--tries", str(tries))


def test_as_many_starts_as_were_said(root):
    on_trial(root, tries=1)
    said = root("status", check=0).out
    assert "web is on trial over small@2" in said
    assert "0 of 1 start failed" in said
    assert state(root)["tries"] == 1
    assert "once: it is back on small@1" in root("app", "web", check=127).err
    assert root("app", "web", check=0).out == "1\n"
    assert "fell back to small@1" in root("status", check=0).out


@pytest.mark.long
def test_what_is_staged_keeps_its_tries(root):
    root("create", "web", "--base", "small", "--", "cat", "/etc/shared", check=0)
    root.update(root.version("bad", BAD), "--stage", "--tries", "1")
    assert "it is back on small@1" in root("app", "web", check=127).err


def test_starts_in_the_background_count_when_they_end(place):
    on_trial(place)
    place("edit", "web", "--health", "cat /etc/shared", check=0)
    assert "'cat'" in place("app", "web", "-d", check=127).err
    assert state(place)["failures"] == 1
    assert place("logs", "web").rc == 6
    assert (
        place("app", "web", "-d", "--", "sh", "-c", "echo going; sleep 0.1; echo gone; exit 3", check=0).out
        == ""
    )
    wait_for(lambda: state(place)["state"] == "fallen")
    said = place("logs", "web", check=0).out
    assert said.startswith("going\ngone\n")
    assert "web did not start well on small@2 2 times: it is back on small@1" in said


def test_a_variable_that_is_passed_on_is_in_no_command_line(root, monkeypatch):
    """What the launcher beside the app was started with may be read by everybody."""
    on_trial(root, files={"etc/new": ""})
    monkeypatch.setenv("MYSECRET", "of-nobody-else")
    line = "echo $MYSECRET; while [ ! -e /tmp/end ]; do sleep 0.05; done"
    root("app", "web", "-d", "-e", "MYSECRET", "--", "sh", "-c", line, check=0)
    try:
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found.append(path.read_bytes())
        assert any(b"\0-e\0MYSECRET\0" in words for words in found)
        assert not any(b"of-nobody-else" in words for words in found)
    finally:
        root("app", "web", "--", "touch", "/tmp/end", check=0)
    wait_for(lambda: root.json("status")["apps"] == [])
    assert root("logs", "web", check=0).out == "of-nobody-else\n"


@pytest.mark.long
def test_a_start_in_the_background_that_goes_well(root):
    on_trial(
        root, "--", "sh", "-c", "echo up; while [ ! -e /tmp/end ]; do sleep 0.05; done", files={"etc/new": ""}
    )
    root("app", "web", "-d", check=0)
    assert state(root)["state"] == "trial"
    assert (
        root("app", "web", "-d", "--", "touch", "/tmp/end", check=0).out == ""
    )  # it joins, which is no start
    wait_for(lambda: root.json("status")["apps"] == [])
    assert root("logs", "web", check=0).out == "up\n"


@pytest.mark.long
def test_shells_count(root):
    on_trial(root, "--", "sleep", "1", files={"usr/bin/sh": None})
    assert root("app", "web", "--", "no-such-command").rc == 127  # a slip, which says nothing of the app
    assert root("shell", "web").rc == 127
    assert state(root)["failures"] == 1
    assert "it is back on small@1" in root("shell", "web").err
    assert root("shell", "web", input="exit 7\n").rc == 7


@pytest.mark.long
def test_a_look_inside_does_not_end_the_trial_of_what_has_a_command(root):
    on_trial(root)
    assert root("shell", "web", input="exit 0\n").rc == 0
    assert (state(root)["state"], state(root)["failures"]) == ("trial", 0)
    root("edit", "web", "--unset", "command", check=0)
    assert root("shell", "web", input="exit 3\n").rc == 3
    assert root.json("status")["apps"] == []


def test_starts_from_python_count(root, caplog):
    on_trial(root, tries=4)
    web = api.Store(root.store()).app("web")
    with pytest.raises(FileNotFoundError):
        web.run()
    with pytest.raises(FileNotFoundError):
        web.popen()
    with pytest.raises(FileNotFoundError):
        asyncio.run(web.run_async())
    assert state(root)["failures"] == 3
    root("edit", "web", "--health", "cat /etc/shared", check=0)
    assert web.run(["sh", "-c", "exit 1"]).returncode == 1
    assert "4 times: it is back on small@1" in caplog.text
    assert web.run(capture_output=True).stdout == b"1\n"


@pytest.mark.long
def test_a_start_from_python_that_goes_well_ends_the_trial(root):
    for end in ("run", "popen", "run_async"):
        if end != "run":
            root("base", "rollback", "small", "-y", check=0)
            root("base", "switch", "small", "2", "-y", check=0)
        else:
            on_trial(root, files={"etc/new": ""})
        assert state(root)["state"] == "trial"
        web = api.Store(root.store()).app("web")
        if end == "run":
            web.run(check=True, capture_output=True)
        elif end == "popen":
            with web.popen(stdout=-3) as process:
                wait_for(lambda process=process: process.poll() is not None)
        else:
            asyncio.run(web.run_async(capture_output=True))
        assert root.json("status")["apps"] == []


RECIPE = """
base = "small"
name = "web"
[[step]]
run = "cat /etc/shared >/etc/built; echo WORD >>/etc/built"
[app]
command = ["cat", "/etc/built"]
health = ["false"]
"""


def build(place, word, before="true", **options):
    recipe = pathlib.Path(place.top, "build.toml")
    recipe.write_text(RECIPE.replace("WORD", word).replace("cat /etc", f"{before}; cat /etc", 1))
    return place("build", "-y", "-f", recipe, **options)


def fail(place, check=1):
    return place("app", "web", "--", "sh", "-c", "exit 1", check=check).err


def test_what_was_built_meanwhile_is_built_over_the_version_before(root):
    build(root, "first", check=0)
    root("edit", "web", "--unset", "health", check=0)
    root.update(root.version("two", {"etc/shared": "2\n"}), "--tries", "1")
    build(root, "second", check=0)
    said = fail(root)
    assert "it is back on small@1; what was built since is built over that" in said
    root("edit", "web", "--unset", "health", check=0)
    assert root("app", "web", check=0).out == "1\nsecond\n"
    root.update(root.version("three", {"etc/shared": "3\n"}))  # and it goes along again, built anew
    assert root("app", "web", check=0).out == "3\nsecond\n"


@pytest.mark.long
def test_what_cannot_be_built_over_the_version_before_is_kept(root):
    root("create", "web", "--base", "small", check=0)
    root.update(root.version("two", {"etc/only": "2\n"}), "--tries", "1")
    build(root, "second", before="test -e /etc/only", check=0)
    layers = root.json("show", "web")["config"]["layers"]
    assert "it keeps its layers, which cannot be built over that" in fail(root)
    assert root.json("show", "web")["config"]["layers"] == layers
    root("edit", "web", "--unset", "health", check=0)
    assert root("app", "web", check=0).out == "1\nsecond\n"


@pytest.mark.long
def test_an_app_that_went_back_is_looked_at_by_the_next_update_and_goes_back_to_what_it_had(root):
    on_trial(root, tries=1)
    root("edit", "web", "--health", "cat /etc/shared", check=0)
    fail(root)
    assert root.json("show", "web")["config"]["base"] == "small@1"
    failed = root.update(root.version("worse", {"usr/bin/cat": None, "etc/new": ""}), check=4)
    assert "'cat /etc/shared' of web failed" in failed.err
    assert json.loads(root("status", "--json", check=0).out)["bases"][0]["version"] == 2


def test_what_versions_gives_can_go_back_and_forth(root):
    on_trial(root)
    first, second = api.Store(root.store()).base("small").versions()
    assert second.rollback().apps == ("web",)
    assert root.versions() == {1: True, 2: False}
    second.switch(2)
    assert root.versions() == {1: False, 2: True}
    first.switch(first)
    assert root.versions() == {1: True, 2: False}
