"""The verb `try`: what it keeps, tells and asks."""

from __future__ import annotations

import json
import os
import re

import pytest
from support.asking import document

pytestmark = [pytest.mark.root, pytest.mark.idmap]

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
