"""What an app left in its layer, met by the commands that work on it from outside (checks 34 to 38, 47)."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest
from support import users

# Made inside, by the app itself, as far as it can; decoys outside are the targets of its links.
PLANT = r"""
import os, socket, sys
decoy, top = sys.argv[1], sys.argv[2]
os.makedirs(top); os.chdir(top)
os.symlink(decoy, "link"); os.symlink(decoy + "/file", "file-link"); os.symlink("../" * 30 + decoy[1:], "relative")
os.symlink("/proc/1/root" + decoy, "magic"); os.symlink("self", "self")
open("a", "w").write("x"); os.link("a", "b"); os.mkdir("links"); os.link("a", "links/c"); os.symlink(decoy, "links/out")
os.mkfifo("fifo"); socket.socket(socket.AF_UNIX).bind("socket")
os.mkdir("closed"); os.makedirs("closed/in/side"); os.chmod("closed/in", 0); os.chmod("closed", 0)
for name in (b"new\nline", b"\x1b[31mred\x1b]0;title\x07", b"\xff\xfe", b"n" * 255, b"-rf", b"* ?",
        b"\xe2\x80\xaebidi", b"a'b\"c"):
    open(name, "w").close()
for size in (2**63 - 1, 2**50, 2**43):
    try:
        with open("huge", "w") as f: f.truncate(size)
        break
    except OSError: pass
with open("setuid", "w") as f: f.write("#!/bin/sh\nid -u\n")
os.chmod("setuid", 0o6755)
for key in ("user.overlay.opaque", "user.overlay.redirect", "trusted.overlay.opaque", "user.x"):
    try: os.setxattr("links", key, b"y")
    except OSError: pass
for _ in range(int(sys.argv[3])):
    os.mkdir("d" * 100); os.chdir("d" * 100)
os.symlink(decoy, "deep")
"""


@pytest.fixture
def planted(layerrun, decoy, folder):
    """A function that makes the app ``a`` with such a layer: ``planted(who, deep=…)``; returns the folder inside."""

    def make(who=None, deep=40):
        top = f"{who.home if who else '/root'}/layerrun-test-planted"
        layerrun(
            "app",
            "a",
            "--",
            "/usr/bin/python3",
            "-c",
            PLANT,
            decoy(who).path,
            top,
            str(deep),
            user=who,
            check=0,
        )
        return top

    return make


def is_plain(text):
    """Nothing that drives a terminal, and lines only where layerrun ends them."""
    return all(c == "\n" or c.isprintable() for c in text)


def test_every_command_over_a_hostile_layer(layerrun, planted, either):
    top = planted(either)
    for words in (
        ("diff", "a"),
        ("diff", "a", "--stat"),
        ("du",),
        ("list", "--size"),
        ("show", "a"),
        ("which", "a", f"{top}/link/file"),
        ("which", "a", f"{top}/links/out"),
        ("which", "a", f"{top}/fifo"),
        ("clear-cache", "-y", "a"),
        ("reset", "-y", "a", "--path", f"{top}/link", "--dry-run"),
    ):
        done = layerrun(*words, user=either, timeout=60)
        assert done.rc in (0, 6), (words, done)
        assert is_plain(done.out), (words, done.out)
        assert is_plain(done.err), (words, done.err)
    listed = json.loads(layerrun("diff", "a", "--json", user=either, check=0).out)
    assert len(listed["changes"]) > 60
    raw = layerrun("diff", "a", "-0", user=either, text=False, check=0).out
    assert b"new\nline\0" in raw
    assert b"\x1b[31mred" in raw
    # Paths through links lead nowhere outside: what lies behind one is not the layer's.
    done = layerrun("reset", "-y", "a", "--path", f"{top}/link/**", user=either)
    assert done.rc in (0, 6), done
    for path in (f"{top}/link", f"{top}/links", f"{top}/closed", f"{top}/fifo"):
        done = layerrun("reset", "-y", "a", "--path", path, user=either, check=0)
    layerrun("reset", "-y", "a", user=either, check=0)
    assert not json.loads(layerrun("diff", "a", "--json", user=either, check=0).out)["changes"]


@pytest.mark.parametrize("either", ["root", pytest.param(users.PLAIN, marks=pytest.mark.long)], indirect=True)
def test_removing_a_hostile_layer(layerrun, planted, either):
    """With a tree deeper than any path and than descriptors go, which the decoys (looked at later) are linked from."""
    planted(either, deep=1100)
    for words in (("diff", "a", "--stat"), ("du",), ("list", "--size")):
        layerrun(*words, user=either, check=0, timeout=60)
    layerrun("remove", "-y", "a", user=either, check=0)
    store = layerrun.store(either)
    assert os.listdir(f"{store}/apps") == os.listdir(f"{store}/trash") == []


# An app that swaps folders and links all the time, near the top and deep down.
SWAP = r"""
import os, sys
decoy, top = sys.argv[1], sys.argv[2]
os.makedirs(top + "/" + "/".join("abcdefghijklmnopqrst")); os.makedirs(top + "/two")
os.symlink(decoy, top + "/link")
with open(top + "/a/file", "w") as f: f.write("x" * 10)
print("ready", flush=True)
import ctypes
libc = ctypes.CDLL(None)
def swap(one, two): libc.renameat2(-100, one.encode(), -100, two.encode(), 2)
while True:
    swap(top + "/a", top + "/link"); swap(top + "/a", top + "/link")
    swap(top + "/two", top + "/link"); swap(top + "/two", top + "/link")
    os.rename(top + "/a/b/c/d", top + "/moved"); os.rename(top + "/moved", top + "/a/b/c/d")
"""


@pytest.mark.parametrize("either", ["root", pytest.param(users.PLAIN, marks=pytest.mark.long)], indirect=True)
def test_live_swaps(layerrun, decoy, either):
    """Check 36: commands that look at a running layer give what was there at some moment, or say that it changed."""
    top = f"{either.home if either else '/root'}/layerrun-test-swap"
    outside = decoy(either).path
    argv = layerrun.argv("app", "a", "--", "/usr/bin/python3", "-c", SWAP, outside, top, user=either)
    process = subprocess.Popen(
        argv, env=layerrun.env(either), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd="/"
    )
    try:
        assert process.stdout.readline() == b"ready\n"
        end, good = time.monotonic() + 3, 0
        while time.monotonic() < end:
            for words in (
                ("diff", "a", "--json"),
                ("du",),
                ("which", "a", f"{top}/a/file"),
                ("list", "--size"),
            ):
                done = layerrun(*words, user=either, timeout=60)
                assert "DECOY" not in done.out
                assert "Traceback" not in done.err, done.err
                assert "inner" not in done.out, "what lies behind a link was listed"
                good += done.rc == 0
            # It runs: nothing may be taken back, by no way.
            assert layerrun("reset", "-y", "a", "--path", f"{top}/a/**", user=either).rc == 5
        assert good
    finally:
        layerrun("kill", "a", user=either)
        process.wait(30)
        process.stdout.close()


def test_importing_what_is_swapped_meanwhile(layerrun, folder, decoy):
    """A base from a folder that changes all the time: a copy of what was there, or an error; nothing outside."""
    outside = decoy().path
    source = f"{folder}/source"
    os.makedirs(f"{source}/usr/" + "/".join("abcdefghijklmnopqrst"))
    script = SWAP.replace(
        'os.makedirs(top + "/" + "/".join("abcdefghijklmnopqrst")); ',
        'os.makedirs(top + "/" + "/".join("abcdefghijklmnopqrst"), exist_ok=True); ',
    )
    process = subprocess.Popen(
        ["/usr/bin/python3", "-c", script, outside, f"{source}/usr"], stdout=subprocess.PIPE, cwd="/"
    )
    try:
        assert process.stdout.readline() == b"ready\n"
        for number in range(5):
            done = layerrun("base", "import", f"b{number}", source, timeout=60)
            assert done.rc in (0, 1), done
            assert "Traceback" not in done.err
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    store = layerrun.store()
    found = subprocess.run(["grep", "-rl", "DECOY", f"{store}/bases"], capture_output=True, text=True).stdout
    assert found == ""
    assert os.listdir(f"{store}/staging") == os.listdir(f"{store}/trash") == []


def test_a_setuid_file_of_a_layer_is_out_of_reach(layerrun, planted, plain_user):
    """Check 38: by its path in the store for nobody else; a store that would let others in is refused."""
    top = planted()
    app = json.loads(layerrun("show", "a", "--json").out)["id"]
    store = layerrun.store()
    path = f"{store}/apps/{app}/data/upper{top}/setuid"
    info = os.stat(path)
    assert (info.st_mode & 0o6777, info.st_uid) == (0o6755, 0)
    done = plain_user.run(["/bin/sh", "-c", f"{path}; ls {store}; cat {path}"])
    assert "uid" not in done.stdout
    assert done.stdout == ""
    assert done.stderr.count("ermission denied") == 3
    for mode in (0o711, 0o755, 0o710, 0o701, 0o770):
        os.chmod(store, mode)
        for words in (("app", "a", "--", "true"), ("list",), ("app", "a", "--", "true")):
            done = layerrun(*words)
            assert done.rc in (1, 125), (oct(mode), words, done)
            assert "0700" in done.err, done.err
    os.chmod(store, 0o700)
    layerrun("app", "a", "--", "true", check=0)


def test_marks_of_overlayfs_do_not_travel(layerrun, planted, plain_user, user_folder):
    """Check 47: root's layer holds user.overlay.* as it is; made a base of a plain user's, none of it is left."""
    top = planted(deep=1)
    app = json.loads(layerrun("show", "a", "--json").out)["id"]
    upper = f"{layerrun.store()}/apps/{app}/data/upper"
    assert "user.overlay.opaque" in os.listxattr(f"{upper}{top}/links")
    source = f"{user_folder(plain_user)}/source"
    subprocess.run(["cp", "-a", f"{upper}{top}", source], check=True)
    os.makedirs(f"{source}/usr")
    subprocess.run(["chown", "-Rh", f"{plain_user.uid}:{plain_user.gid}", source], check=True)
    subprocess.run(["rm", "-f", f"{source}/huge"], check=True)
    layerrun("base", "import", "b", source, user=plain_user, check=0)
    (base,) = os.listdir(f"{layerrun.store(plain_user)}/bases")
    tree = f"{layerrun.store(plain_user)}/bases/{base}/tree"
    assert "user.x" in os.listxattr(f"{tree}/links")
    found = subprocess.run(
        ["getfattr", "-Rhd", "-m", "overlay", "--absolute-names", tree], capture_output=True, text=True
    )
    assert found.stdout == ""
