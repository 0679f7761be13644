"""What destroys asks first, naming what goes; without an answer, or while it runs, nothing does."""

from __future__ import annotations

import subprocess

import pytest
from support.asking import document, has_data

pytestmark = [pytest.mark.root, pytest.mark.idmap]


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


def test_discard_is_for_throwaways(layerrun, web):
    done = layerrun("discard", "-y", "web", check=2)
    assert "layerrun reset web" in done.err
    assert has_data(layerrun)


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
