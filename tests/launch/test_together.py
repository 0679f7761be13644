"""Several commands at one app at once; the kernel's log stays quiet."""

from __future__ import annotations

import subprocess

import pytest
from support.sandbox import overlay_log


def popen(layerrun, who, *words):
    return subprocess.Popen(
        layerrun.argv(*words, user=who),
        env=layerrun.env(who),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends(processes):
    found = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        found.append((process.returncode, out, err))
    return found


def test_a_running_app_is_left_alone(layerrun, either, own_folder):
    shared = own_folder(either)
    layerrun("create", "a", "--share", shared, user=either, check=0)
    fifo = f"{shared}/gate"
    process = popen(
        layerrun, either, "app", "a", "--", "sh", "-c", 'mkfifo "$1" && echo up && cat "$1"', "sh", fifo
    )
    assert process.stdout.readline() == "up\n"
    for words in (
        ("reset", "-y", "a"),
        ("remove", "-y", "a"),
        ("clear-cache", "-y", "a"),
        ("reset", "-y", "a", "--path", "/etc/**"),
    ):
        done = layerrun(*words, user=either, check=5)
        assert "is running" in done.err, done.err
        assert "layerrun stop a" in done.err
    layerrun("app", "a", "--", "true", user=either, check=0)  # it joins
    for words in (("show", "a"), ("plan", "a"), ("list",), ("du",)):
        layerrun(*words, user=either, check=0)
    with open(fifo, "w"):
        pass
    assert process.wait(60) == 0
    process.stdout.close()
    process.stderr.close()
    layerrun("remove", "-y", "a", user=either, check=0)


def test_starts_and_resets_and_removes(layerrun):
    """In whatever order they come: each works or says why not, and what is left works."""
    for _ in range(3):
        layerrun("create", "a", check=0)
        words = [("app", "a", "--", "sh", "-c", "echo x >/etc/x")] * 4 + [("reset", "-y", "a")] * 3
        words += [("remove", "-y", "a")]
        found = ends([popen(layerrun, None, *each) for each in words])
        for code, _, err in found:
            # 0, busy, not found: removed before; a start of a removed app makes it anew.
            assert code in {0, 5, 6}, err
            assert "Traceback" not in err
        if "a" in layerrun("list", check=0).out.split():
            layerrun("app", "a", "--", "true", check=0)
            layerrun("remove", "-y", "a", check=0)
    assert layerrun("list", check=0).out == ""


def test_many_apps_at_once(layerrun, either):
    layerrun("list", user=either, check=0)
    processes = [
        popen(layerrun, either, "app", f"a{i}", "--", "sh", "-c", f"echo {i} >~/n; cat ~/n")
        for i in range(10)
    ]
    for i, (code, out, err) in enumerate(ends(processes)):
        assert (code, out) == (0, f"{i}\n"), err


@pytest.mark.timeout(600)
def test_a_hundred_starts_add_no_line_to_the_log(layerrun, who):
    """Others may use overlays on this machine meanwhile, so a noisy round is done again."""
    layerrun("create", "a", user=who, check=0)
    said = []
    for _ in range(3):
        before = len(overlay_log())
        for i in range(100 if who is None else 40):
            layerrun("app", "a", "--", "sh", "-c", f"echo {i} >~/count", user=who, check=0)
        said = overlay_log()[before:]
        if not said:
            break
    assert not said
