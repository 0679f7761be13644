"""What is printed cannot harm a terminal, can be pasted into a shell, and is valid JSON."""

from __future__ import annotations

import base64
import json
import os
import subprocess

import pytest

from layerrun.cli import output

ODD = [
    b"new\nline",
    b"tab\there",
    b"\x1b[31mred",
    b"latin-\xe9",
    b"back\\slash\nand 'quote'",
    b"bidi \xe2\x80\xae over",
    b"$'literal'",
    b"\x7fdel",
    bytes(range(1, 256)).replace(b"/", b""),
]


@pytest.mark.parametrize(
    "name", ["/etc/hosts", "/a b", "/it's", "/\u00e9t\u00e9", '/"double"', "/back\\slash"]
)
def test_plain_names_are_printed_as_they_are(name):
    assert output.quoted(name) == name


@pytest.mark.parametrize("name", ODD)
def test_odd_names_are_quoted_so_that_a_shell_gives_them_back(name):
    text = output.quoted(os.fsdecode(name))
    assert text.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {text}"], capture_output=True, env={"LC_ALL": "C.UTF-8"})
    assert done.stdout == name


def test_sentences_lose_their_control_characters():
    assert output.printable("a\x1b[1mb\udcff") == "a\\e[1mb\\xff"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2 - 1, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (2**63, "8.0 EiB"),
    ],
)
def test_sizes(count, text):
    assert output.size(count) == text


def test_tables_align_by_what_is_seen(capsys):
    output.table(["NAME", ">SIZE"], [["a", "1 B"], ["漢字", "100 KiB"]])
    assert capsys.readouterr().out.splitlines() == ["NAME     SIZE", "a         1 B", "漢字  100 KiB"]


def test_a_table_without_rows_prints_nothing(capsys):
    output.table(["NAME"], [])
    assert capsys.readouterr().out == ""


def test_a_document_is_ascii_and_keeps_every_byte():
    path = os.fsdecode(b"/a\xff\n")
    text = output.document({"name": "x", "list": [{"path": path, "ok": "\u00e9"}], "argv": ["a", path]})
    assert text.isascii()
    data = json.loads(text)
    assert data["schema"] == 1
    assert data["list"] == [
        {"path": "/a\ufffd\n", "path_b64": base64.b64encode(b"/a\xff\n").decode(), "ok": "\u00e9"}
    ]
    assert base64.b64decode(data["argv_b64"][1]) == b"/a\xff\n"
    assert "name_b64" not in data


def test_a_document_of_astral_characters_is_whole():
    assert json.loads(output.document({"path": "/\U0001f600"}))["path"] == "/\U0001f600"


def test_an_empty_document_is_valid():
    assert json.loads(output.document({"apps": []})) == {"schema": 1, "apps": []}
