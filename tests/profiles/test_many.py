"""Many at once, over trees with ids of others, and the question before profiles are destroyed."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess

import pytest
from support.sandbox import inside_of, small_tree


def test_a_new_profile_started_often_at_once(run):
    """One makes it, the others find it and join or follow; nobody takes it back from another."""
    script = "echo x >>/var/tmp/lines; sleep 0.3"
    started = [
        subprocess.Popen(
            run.layerrun.argv("app", "web", "--profile", "new", "--", "sh", "-c", script, user=run.who),
            env=run.layerrun.env(run.who),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    said = [(process.communicate(timeout=120)[1], process.returncode) for process in started]
    assert [status for _, status in said] == [0] * 8, said
    assert sum("created profile" in text for text, _ in said) == 1
    assert len(run.folders()["apps"]) == 2
    assert run.sh("wc -l </var/tmp/lines", "web@new") == "8\n"


def test_ephemeral_starts_and_other_verbs_at_once(run):
    """While starts come and go, what reads the store fails nowhere, and nothing is left."""
    before = run.folders()
    loop = 'for i in 1 2 3 4 5 6; do "$@" || exit 1; done'
    words = [
        *[
            [
                "app",
                "web",
                "--ephemeral",
                "--",
                "sh",
                "-c",
                "test ! -e /var/tmp/token && echo e >/var/tmp/token",
            ]
        ]
        * 3,
        *[["list", "--size"], ["du"], ["ps"], ["show", "web"]],
    ]
    started = [
        subprocess.Popen(
            ["sh", "-c", loop, "sh", *run.layerrun.argv(*argv, user=run.who)],
            env=run.layerrun.env(run.who),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for argv in words
    ]
    said = [(process.communicate(timeout=240)[1], process.returncode) for process in started]
    assert said == [("", 0)] * len(words)
    run("list")
    assert run.folders() == before


@pytest.mark.parametrize("killed", [False, True])
def test_files_of_other_ids(run, who, own_folder, gone, killed):
    """Over an imported tree a file can belong to an id that only a user namespace can remove."""
    tree = small_tree(os.path.join(own_folder, "tree"))
    shutil.copy("/usr/bin/chown", f"{tree}/usr/bin/chown")
    if who:
        subprocess.run(["chown", "-Rh", f"{who.uid}:{who.gid}", tree], check=True)
    run("base", "import", "small", tree)
    run("create", "db", "--base", "small")
    before = run.folders()
    process = run.popen(
        "mkdir /d && touch /d/f && chown 5:5 /d/f /d && chmod 700 /d && echo ready; read line",
        "db",
        "--ephemeral",
    )
    (name,) = [name for name in run.apps() if name.startswith("db@tmp-")]
    uid = os.stat(f"{run.path}/apps/{run.apps()[name]['id']}/data/upper/d").st_uid
    assert uid != (who.uid if who else 0)
    if killed:
        pids = inside_of(process.pid)
        process.kill()
        process.wait(60)
        gone(pids)
        run("list")
    else:
        run.ended(process)
    assert run.folders() == before


def asked(run, *words, answer):
    """Run a command on a terminal and answer its question; return what it printed and its status."""
    master, slave = pty.openpty()
    argv = run.layerrun.argv(*words, user=run.who)
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *argv],
        env=run.layerrun.env(run.who, TERM="dumb"),
        cwd="/",
        stdin=slave,
        stdout=slave,
        stderr=slave,
    )
    os.close(slave)
    text = ""
    try:
        while "[y/N]" not in text:
            assert select.select([master], [], [], 30)[0], text
            text += os.read(master, 65536).decode().replace("\r", "")
        os.write(master, f"{answer}\n".encode())
        return text, process.wait(60)
    finally:
        os.close(master)


def test_the_question_names_the_profiles(run):
    for profile in ("a", "b"):
        run.sh("echo x >/var/tmp/token", "web", "--profile", profile)
    run("create", "other")
    text, status = asked(run, "remove", "web", "other", "web@a", answer="n")
    assert [line.split(":")[0].strip() for line in text.splitlines() if " in " in line] == [
        "web",
        "web@a",
        "web@b",
        "other",
    ]
    assert "Remove with all data, and 2 profiles along?" in text
    assert status == 1
    assert set(run.apps()) == {"web", "web@a", "web@b", "other"}
    text, status = asked(run, "remove", "web@b", answer="y")
    assert "Remove with all data?" in text
    assert (status, set(run.apps())) == (0, {"web", "web@a", "other"})
    text, _ = asked(run, "reset", "--all", answer="n")
    assert [line.split(":")[0].strip() for line in text.splitlines() if " in " in line] == [
        "other",
        "web",
        "web@a",
    ]
    assert len(json.loads(run("du", "--json").out)["apps"]) == 3
