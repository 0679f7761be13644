"""The verbs over a real store and real programs: what they print, ask, destroy, and end with."""

from __future__ import annotations

import json
import os
import re

import pytest
from support.asking import Terminal, document, has_data

pytestmark = [pytest.mark.root, pytest.mark.idmap]


# app


def test_app_is_made_over_the_host_and_keeps_what_it_wrote(layerrun):
    first = layerrun("app", "web", "--", "sh", "-c", "echo hello >/etc/layerrun-test; exit 3", check=3)
    assert first.err == "layerrun: created app web over host\n"
    second = layerrun("app", "web", "--", "cat", "/etc/layerrun-test", check=0)
    assert (second.out, second.err) == ("hello\n", "")
    assert not os.path.exists("/etc/layerrun-test")


def test_argv_survives_byte_for_byte(layerrun):
    words = ["", "-n", "--", b"\xff\xfe", "new\nline", "*"]
    done = layerrun("app", "web", "--", "printf", r"%s\0", *map(os.fsdecode, words), text=False, check=0)
    assert done.out == b"".join(os.fsencode(w) + b"\0" for w in words)


def test_a_command_that_is_not_there_leaves_no_app(layerrun):
    done = layerrun("app", "web", "--", "no-such-command", check=127)
    assert "no-such-command" in done.err
    assert document(layerrun, "list")["apps"] == []
    layerrun("app", "web", "--", "/etc/passwd", check=126)
    assert document(layerrun, "list")["apps"] == []


def test_variables_and_the_working_folder(layerrun):
    script = 'echo "$A:$PWD"'
    done = layerrun("app", "web", "--cwd", "/etc", "-e", "A=b=c", "--", "sh", "-c", script, check=0)
    assert done.out == "b=c:/etc\n"


def test_an_app_of_its_own_command(layerrun):
    layerrun("create", "hi", "--", "echo", "a  b", check=0)
    assert layerrun("app", "hi", check=0).out == "a  b\n"
    assert layerrun("app", "hi", "--", "echo", "other", check=0).out == "other\n"


@pytest.mark.parametrize(
    "words",
    [
        ["app", "wbe"],
        ["shell", "wbe"],
        ["show", "wbe"],
        ["plan", "wbe"],
        ["which", "wbe", "/etc"],
        ["rename", "wbe", "x"],
        ["remove", "-y", "wbe"],
        ["reset", "-y", "wbe"],
        ["reset", "-y", "web", "wbe"],
        ["clear-cache", "-y", "wbe"],
        ["du", "wbe"],
        ["diff", "wbe"],
        ["discard", "-y", "wbe"],
        ["base", "show", "hots"],
        ["base", "verify", "hots"],
        ["base", "remove", "-y", "hots"],
        ["create", "new", "--base", "hots"],
        ["try", "--base", "hots", "--", "true"],
    ],
    ids=" ".join,
)
def test_unknown_names_end_with_6_and_name_the_nearest(layerrun, web, words):
    done = layerrun(*words, check=6)
    assert done.out == ""
    assert ("wbe" if "wbe" in words else "hots") in done.err.splitlines()[0]
    assert ("web" if "wbe" in words else "host") in done.err.splitlines()[1]
    assert has_data(layerrun)
    assert [app["name"] for app in document(layerrun, "list")["apps"]] == ["web"]


# reading


def test_list(layerrun, web):
    layerrun("create", "other", check=0)
    (other, found) = document(layerrun, "list", "--size")["apps"]
    assert other["name"] == "other"
    assert set(found) == {
        *("name", "kind", "id", "base", "ids", "generation", "created", "parent", "profile", "ephemeral"),
        *("entries", "apparent", "allocated"),
    }
    assert (found["name"], found["kind"], found["base"]) == ("web", "app", "host")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["created"])
    assert all(isinstance(found[key], int) for key in ("entries", "apparent", "allocated", "generation"))
    lines = layerrun("list", check=0).out.splitlines()
    assert [line.split()[0] for line in lines] == ["NAME", "other", "web"]
    assert "\x1b" not in "".join(lines)


def test_show(layerrun):
    layerrun("create", "web", "--share", "/srv:/data:ro", "--hide", "/etc/ssh", "--", "echo", "it's", check=0)
    data = document(layerrun, "show", "web")
    assert data["config"]["shares"] == ["/srv:/data:ro"]
    assert data["config"]["command"] == ["echo", "it's"]
    assert {"path", "fstype", "policy", "why"} == set(data["mounts"][0])
    text = layerrun("show", "web", check=0).out
    assert "reads the real /srv, as /data" in text
    assert "POLICY" in text


@pytest.mark.parametrize(("setting", "coloured"), [(None, True), ("1", False), ("", True)])
def test_colour_only_on_a_terminal_and_never_with_no_color(layerrun, web, setting, coloured):
    on_terminal = Terminal(layerrun, "list", NO_COLOR=setting)
    assert on_terminal.end() == 0
    assert ("\x1b[1m" in on_terminal.text) == coloured


def test_plan(layerrun, web):
    data = document(layerrun, "plan", "web")
    assert data["operations"]
    assert layerrun("plan", "web", "--", "id", check=0).out.splitlines()
    assert b"\0" in layerrun("plan", "-0", "web", text=False, check=0).out


def test_which(layerrun, web):
    assert document(layerrun, "which", "web", "/etc/layerrun-test")["layer"] == "upper"
    data = document(layerrun, "which", "web", "/etc/passwd")
    assert set(data) == {"schema", "path", "layer", "whiteout", "detail"}
    assert data["layer"] == "base"
    layerrun("which", "web", "/no/such/thing", check=6)


def test_du(layerrun, web):
    data = document(layerrun, "du")
    assert set(data) == {"schema", "apps", "bases", "caches", "total"}
    assert set(data["apps"][0]) == {
        *("name", "kind", "parent", "profile"),
        *("entries", "apparent", "allocated", "frees", "max_size"),
    }
    assert data["total"] == data["apps"][0]["allocated"] > 0
    assert layerrun("du", check=0).out.splitlines()[-1].startswith("total")


def test_diff(layerrun, web):
    data = document(layerrun, "diff", "web")
    record = {"change": "A", "path": "/etc/layerrun-test", "type": "file", "size": 6}
    assert data["changes"] == [record | {"old_type": None, "old_size": None}]
    assert layerrun("diff", "web", check=0).out == "A         6 B  /etc/layerrun-test\n"
    assert layerrun("diff", "web", "-0", check=0).out == "A /etc/layerrun-test\0"
    stat = layerrun("diff", "web", "--stat", check=0).out.splitlines()
    assert stat == [
        "A /etc/layerrun-test | 1 +",
        "A           1  added",
        "1 change, 1 line added, 0 removed, 6 B written over 0 B",
    ]
    layerrun("diff", "web", "--exit-code", check=1)
    layerrun("reset", "-y", "web", check=0)
    layerrun("diff", "web", "--exit-code", check=0)


def test_odd_names_are_quoted_for_people_and_raw_for_programs(layerrun):
    layerrun("app", "web", "--", "sh", "-c", r"cd /etc; : >$(printf 'a\377\033')", check=0)
    assert r"$'/etc/a\xff\e'" in layerrun("diff", "web", check=0).out
    assert layerrun("diff", "web", "-0", text=False, check=0).out == b"A /etc/a\xff\x1b\0"
    assert document(layerrun, "diff", "web")["changes"][0]["path_b64"] == "L2V0Yy9h/xs="


def test_doctor(layerrun):
    done = layerrun("doctor", "--json")
    data = json.loads(done.out)
    assert data["healthy"] == (done.rc == 0)
    assert {"name", "status", "detail", "hint"} == set(data["checks"][0])
    assert {check["status"] for check in data["checks"]} <= {"ok", "warn", "fail"}


def test_a_folder_that_is_no_store_is_not_to_be_changed(layerrun, folder):
    done = layerrun("--store", folder, "list", check=1)
    assert "chmod" not in done.err
    assert os.listdir(folder) == []


def test_version_document(layerrun):
    assert set(document(layerrun, "version")) == {"schema", "version", "python", "kernel", "machine"}


def test_completion_of_names(layerrun, web):
    layerrun("create", "wiki", check=0)
    env = {"_LAYERRUN_COMPLETE": "bash_complete", "COMP_WORDS": "layerrun reset w", "COMP_CWORD": "2"}
    assert layerrun(env=env, check=0).out.split() == ["plain,web", "plain,wiki"]
    env |= {"COMP_WORDS": "layerrun try --base h", "COMP_CWORD": "3"}
    assert layerrun(env=env, check=0).out.split() == ["plain,host"]


# others at work


def test_an_interrupt_reaches_the_command_and_its_status_comes_back(layerrun, terminal):
    asked = terminal("try", "--", "sh", "-c", "echo x >/etc/layerrun-test; echo up; exec sleep 60")
    asked.await_("up\n")
    asked.type("\x03")
    asked.await_(r"\[k\]eep \[d\]iscard")
    asked.type("d\n")
    assert asked.end() == 130
    assert document(layerrun, "list")["apps"] == []
