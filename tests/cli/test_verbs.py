"""The verbs over a real store and real programs: what they print, ask, destroy, and end with."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import time

import pytest

pytestmark = [pytest.mark.root, pytest.mark.idmap]


class Terminal:
    """The command on a terminal of its own: ``await_``, ``type``, then ``end``."""

    def __init__(self, layerrun, *words, **env):
        self.master, slave = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *layerrun.argv(*words)],
            env=layerrun.env(TERM="xterm", **env),
            cwd="/",
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)

    def await_(self, pattern, seconds=30.0):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, f"{pattern!r} never came:\n{self.text}"
            assert self.read(), f"ended without {pattern!r}:\n{self.text}"
        return self.text

    def read(self):
        if select.select([self.master], [], [], 0.5)[0]:
            with contextlib.suppress(OSError):  # EIO: the other side is gone
                data = os.read(self.master, 65536)
                self.text += data.decode(errors="replace").replace("\r\n", "\n")
                return bool(data)
            return False
        return True

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self):
        while self.read():
            pass
        os.close(self.master)
        return self.process.wait(30)


@pytest.fixture
def terminal(layerrun):
    return lambda *words: Terminal(layerrun, *words)


@pytest.fixture
def web(layerrun):
    """An app that wrote something."""
    layerrun("app", "web", "--", "sh", "-c", "echo hello >/etc/layerrun-test", check=0)
    return "web"


def has_data(layerrun, name="web"):
    return layerrun("app", name, "--", "test", "-e", "/etc/layerrun-test").rc == 0


def document(layerrun, *words, check=0):
    data = json.loads(layerrun(*words, "--json", check=check).out)
    assert data["schema"] == 1
    return data


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
    assert set(data) == {"schema", "apps", "bases", "total"}
    assert set(data["apps"][0]) == {
        *("name", "kind", "parent", "profile"),
        *("entries", "apparent", "allocated", "max_size"),
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


# destroying


@pytest.mark.parametrize(
    "words", [["reset", "web"], ["reset", "--all"], ["remove", "web"], ["clear-cache", "web"]], ids=" ".join
)
def test_without_a_terminal_and_without_y_nothing_is_destroyed(layerrun, web, words):
    done = layerrun(*words, check=2)
    assert "  try: layerrun " in done.err
    assert "-y" in done.err
    assert has_data(layerrun)


def test_reset_asks_naming_the_size(layerrun, web, terminal):
    asked = terminal("reset", "web")
    asked.await_(r"web: [\d.]+ \w+ in \d+ entries\n")
    asked.await_(r"\[y/N\]")
    asked.type("\n")
    assert asked.end() == 1
    assert has_data(layerrun)
    asked = terminal("reset", "web")
    asked.await_(r"\[y/N\]")
    asked.type("\x04")
    assert asked.end() == 1
    assert has_data(layerrun)
    asked = terminal("reset", "web")
    asked.await_(r"\[y/N\]")
    asked.type("y\n")
    assert asked.end() == 0
    assert not has_data(layerrun)


def test_an_interrupt_at_a_question_destroys_nothing(layerrun, web, terminal):
    asked = terminal("reset", "web")
    asked.await_(r"\[y/N\]")
    asked.type("\x03")
    assert asked.end() == 130
    assert has_data(layerrun)


def test_reset_dry_run_and_all(layerrun, web):
    layerrun("app", "two", "--", "touch", "/etc/layerrun-test", check=0)
    out = layerrun("reset", "--all", "--dry-run", check=0).out
    assert [line.partition(":")[0] for line in out.splitlines()] == ["two", "web"]
    assert has_data(layerrun)
    layerrun("reset", "--all", "-y", check=0)
    assert not has_data(layerrun)
    assert not has_data(layerrun, "two")


def test_a_long_list_before_a_question_is_cut(layerrun, web, terminal):
    layerrun("app", "web", "--", "sh", "-c", "for i in $(seq 100); do : >/etc/layerrun-$i; done", check=0)
    asked = terminal("reset", "web", "--path", "/etc/**")
    text = asked.await_(r"\[y/N\]")
    assert "… and 81 more\n" in text
    assert text.count("layerrun-") == 20
    asked.type("n\n")
    assert asked.end() == 1
    assert has_data(layerrun)


def test_reset_of_one_path(layerrun, web):
    layerrun("app", "web", "--", "touch", "/etc/layerrun-other", check=0)
    shown = layerrun("reset", "web", "--path", "/etc/layerrun-t*", "--dry-run", check=0).out
    assert "/etc/layerrun-test" in shown
    assert has_data(layerrun)
    done = layerrun("reset", "-y", "web", "--path", "/etc/layerrun-t*", check=0)
    assert done.out == "/etc/layerrun-test\n"
    assert layerrun("diff", "web", "-0", check=0).out == "A /etc/layerrun-other\0"


def test_clear_cache(layerrun, web):
    layerrun("app", "web", "--", "sh", "-c", "echo x >/var/cache/layerrun-test", check=0)
    layerrun("clear-cache", "-y", "web", check=0)
    assert layerrun("diff", "web", "-0", check=0).out == "A /etc/layerrun-test\0"


def test_rename_and_remove(layerrun, web):
    layerrun("rename", "web", "shop", check=0)
    assert has_data(layerrun, "shop")
    layerrun("create", "web", check=0)
    layerrun("rename", "shop", "web", check=1)
    done = layerrun("remove", "--keep-data", "shop", check=0)
    assert "kept the data of shop in " in done.err
    layerrun("remove", "-y", "web", check=0)
    assert document(layerrun, "list")["apps"] == []
    assert "kept in " in layerrun("create", "shop", check=0).err


# try


WRITE = ["sh", "-c", "echo out; echo x >/etc/layerrun-test; exit 4"]


def test_try_without_a_terminal_keeps_it_and_says_so(layerrun):
    done = layerrun("try", "--", *WRITE, check=4)
    assert done.out == "out\nA         2 B  /etc/layerrun-test\n"
    name = re.search(r"kept as (\S+):", done.err)[1]
    assert not os.path.exists("/etc/layerrun-test")
    assert document(layerrun, "diff", name)["changes"][0]["path"] == "/etc/layerrun-test"
    layerrun("discard", "-y", name, check=0)
    layerrun("diff", name, check=6)


def test_try_that_changes_nothing_goes_without_a_word(layerrun):
    done = layerrun("try", "--", "true", check=0)
    assert (done.out, done.err) == ("", "")
    assert document(layerrun, "list")["apps"] == []


def test_try_goes_on_by_name(layerrun):
    layerrun("try", "--name", "t", "--", *WRITE, check=4)
    layerrun("try", "--name", "t", "--", "touch", "/etc/layerrun-other")
    assert layerrun("diff", "t", "-0", check=0).out == "A /etc/layerrun-other\0A /etc/layerrun-test\0"


def test_try_as_a_document(layerrun, folder):
    done = layerrun("try", "--json", "--", *WRITE, check=4)
    head, _, rest = done.out.partition("\n")
    assert head == "out"
    data = json.loads(rest)
    assert set(data) == {
        *("schema", "name", "base", "exit_status", "kept", "changes"),
        *("committed", "commit", "conflicts", "privileged"),
    }
    assert (data["exit_status"], data["kept"], data["base"]) == (4, True, "host")
    report = os.path.join(folder, "report")
    done = layerrun("try", "--report", report, "--", *WRITE, check=4)
    assert done.out.endswith("/etc/layerrun-test\n")
    with open(report) as file:
        assert json.load(file)["changes"] == data["changes"]


def test_try_of_a_missing_command_leaves_nothing(layerrun):
    layerrun("try", "--", "no-such-command", check=127)
    assert document(layerrun, "list")["apps"] == []


@pytest.mark.parametrize(
    ("answer", "kept"), [("\n", True), ("k\n", True), ("\x04", True), ("d\n", False), ("what\nd\n", False)]
)
def test_try_asks_on_a_terminal(layerrun, terminal, answer, kept):
    asked = terminal("try", "--", *WRITE)
    text = asked.await_(r"1 change in try-\w+: \[c\]ommit \[p\]ick \[k\]eep \[d\]iscard")
    assert "A         2 B  /etc/layerrun-test\n" in text
    asked.type(answer)
    assert asked.end() == 4
    assert len(document(layerrun, "list")["apps"]) == kept


def test_try_n_does_not_ask(layerrun, terminal):
    asked = terminal("try", "-n", "--", *WRITE)
    assert asked.end() == 4
    assert "ommit" not in asked.text.replace("layerrun commit", "")
    assert len(document(layerrun, "list")["apps"]) == 1


def test_discard_is_for_throwaways(layerrun, web):
    done = layerrun("discard", "-y", "web", check=2)
    assert "layerrun reset web" in done.err
    assert has_data(layerrun)


# bases


@pytest.fixture
def small(folder):
    """A root file system that is small, and odd where it may be."""
    root = os.path.join(folder, "root")
    os.makedirs(os.path.join(root, "usr/bin"))
    os.symlink("usr/bin", os.path.join(root, "bin"))
    with open(os.path.join(os.fsencode(root), b"odd\xff\n"), "wb") as file:
        file.write(b"x" * 10000)
    return root


def test_bases(layerrun, small):
    data = document(layerrun, "base", "import", "small", small)
    keys = {"name", "kind", "id", "digest", "ids", "source", "created", "entries", "size"}
    assert set(data) - {"schema"} == keys
    assert data["digest"].startswith("sha256:")
    bases = document(layerrun, "base", "list")["bases"]
    assert [base["name"] for base in bases] == ["host", "small"]
    assert all(set(base) == keys for base in bases)
    assert [line.split()[0] for line in layerrun("base", "list", check=0).out.splitlines()] == [
        "NAME",
        "host",
        "small",
    ]
    assert document(layerrun, "base", "verify", "small")["intact"] is True
    layerrun("create", "web", "--base", "small", check=0)
    assert document(layerrun, "base", "show", "small")["used_by"] == ["web"]
    refused = layerrun("base", "remove", "-y", "small", check=3)
    assert "web" in refused.err
    layerrun("remove", "-y", "web", check=0)
    layerrun("base", "remove", "-y", "small", check=0)
    layerrun("base", "show", "small", check=6)


def test_verify_finds_what_changed(layerrun, small, store_path):
    id_ = document(layerrun, "base", "import", "small", small)["id"]
    with open(
        os.path.join(os.fsencode(store_path), b"bases", id_.encode(), b"tree", b"odd\xff\n"), "r+b"
    ) as file:
        file.write(b"y")
    data = document(layerrun, "base", "verify", "small", check=1)
    assert data["intact"] is False
    assert data["problems"][0]["kind"] == "changed"
    assert "odd\\xff\\n" in layerrun("base", "verify", "small", check=1).out
    assert b"odd\xff\n\0" in layerrun("base", "verify", "small", "-0", text=False, check=1).out


def test_import_of_nonsense(layerrun, folder):
    layerrun("base", "import", "x", folder)
    assert layerrun("base", "import", "x", folder).rc != 0
    assert layerrun("base", "import", "x", os.path.join(folder, "nowhere")).rc != 0
    assert layerrun("base", "import", "host", "/").rc != 0
    assert [base["name"] for base in document(layerrun, "base", "list")["bases"]] == ["host"]


# others at work


def test_a_running_app_is_not_destroyed(layerrun, web, store_path):
    running = subprocess.Popen(
        layerrun.argv("app", "web", "--", "sh", "-c", "echo up; exec cat"),
        env=layerrun.env(),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert running.stdout.readline() == b"up\n"
        for words in (
            ["reset", "-y"],
            ["remove", "-y"],
            ["clear-cache", "-y"],
            ["reset", "-y", "--path", "/etc/**"],
        ):
            done = layerrun(*words, "web", check=5)
            assert "web" in done.err
    finally:
        running.communicate(timeout=30)
    assert running.returncode == 0
    assert has_data(layerrun)


def test_an_interrupt_reaches_the_command_and_its_status_comes_back(layerrun, terminal):
    asked = terminal("try", "--", "sh", "-c", "echo x >/etc/layerrun-test; echo up; exec sleep 60")
    asked.await_("up\n")
    asked.type("\x03")
    asked.await_(r"\[k\]eep \[d\]iscard")
    asked.type("d\n")
    assert asked.end() == 130
    assert document(layerrun, "list")["apps"] == []
