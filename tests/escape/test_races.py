"""Checks 23, 25, 26 and 27: what an app or a base prepares for a start, and what it changes while one goes on."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import time

import pytest
from support.sandbox import small_tree

check = pytest.mark.check

# Writes who loaded it, and how confined that process was.
LIBRARY = r"""
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
__attribute__((constructor)) static void loaded(void)
{
    char text[8192] = "", line[200];
    int fd = open("/proc/self/status", O_RDONLY);
    if (fd < 0 || read(fd, text, sizeof text - 1) < 0)
        return;
    close(fd);
    char *name = strstr(text, "Name:"), *filter = strstr(text, "Seccomp:"), *caps = strstr(text, "CapBnd:");
    int length = snprintf(line, sizeof line, "%.*s %.*s %.*s\n", (int)strcspn(name, "\n"), name,
                          (int)strcspn(filter, "\n"), filter, (int)strcspn(caps, "\n"), caps);
    fd = open("/tmp/loaded", O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (write(fd, line, (size_t)length) < 0)
        return;
    close(fd);
}
"""


@pytest.fixture
def running(place, mode):
    """Start shell scripts in the mode's app; end them with the test."""
    started = []

    def start(script, app="a"):
        words = place.argv(mode, "app", app, "--", "/bin/sh", "-c", script)
        process = subprocess.Popen(
            words, env=place.env(mode), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd="/"
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(30)
        process.stdout.close()


def joins(place, mode, running, rounds):
    """Join an app whose shell, libraries and users are exchanged all the time; return what was loaded."""
    place.make(mode)
    library = f"{place.path}/loaded.so"
    if not os.path.exists(library):
        pathlib.Path(f"{place.path}/loaded.c").write_text(LIBRARY)
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, f"{place.path}/loaded.c"], check=True)
    within = library if mode != "subids" else f"{place.upper(mode)}/probe/loaded.so"
    if within != library:
        shutil.copy(library, within)
    probe, lib = place.inside(mode, "probe"), place.inside(mode, "loaded.so")
    # One id cannot write /etc of the machine's: there it is a variable.
    preload = f"echo {lib} >/etc/ld.so.preload; echo 'root::0:0::/tmp:/tmp/sh' >/etc/passwd2;"
    exchange = f"cp /etc/passwd /etc/passwd3; {probe} flip /etc/passwd2 /etc/passwd3 &"
    script = "" if mode == "one-id" else preload + exchange
    script += f"cp /bin/sh /tmp/sh; cp {probe} /tmp/other; {probe} flip /tmp/sh /tmp/other &"
    script += "echo ready; exec sleep 1000"
    running(script)
    extra = ["--env", f"LD_PRELOAD={lib}"] if mode == "one-id" else []
    for _ in range(rounds):
        done = place.layerrun(mode, "app", "a", *extra, "--", "/tmp/sh", "status", "joined")
        assert '"got": "0"' not in done.stdout
        place.layerrun(mode, "app", "a", *extra, "--", "/bin/true", check=0)
    text = place.layerrun(mode, "enter", "a", "--", "/bin/cat", "/tmp/loaded", check=0).stdout
    place.layerrun(mode, "app", "a", "--", "/bin/rm", "-f", "/etc/ld.so.preload")
    return [line.split() for line in text.splitlines()]


def judge_joins(loaded, mode, rounds, seen):
    seen(f"{rounds} joins; loaded {len(loaded)} times, each in a confined process")
    assert len(loaded) >= rounds
    for line in loaded:
        found = dict(zip(line[::2], line[1::2], strict=True))
        assert found["Name:"] != "layerrun", "layerrun's own process loaded something of the app's"
        assert found["Seccomp:"] == "2"
        assert int(found["CapBnd:"], 16) == (0 if mode == "one-id" else 0x800404FB)


@check(23)
def test_race_with_a_joiner(place, mode, running, seen):
    judge_joins(joins(place, mode, running, 8), mode, 8, seen)


@check(23)
@pytest.mark.long
def test_long_race_with_a_joiner(place, mode, running, seen):
    judge_joins(joins(place, mode, running, 500), mode, 500, seen)


PLACES = "proc dev dev/pts dev/null sys tmp etc run".split()
KINDS = ("absolute", "relative", "dotdot", "file", "pid 1")


def odd_tree(place, mode, kind, places):
    """Make a base whose mount points lead to a decoy of the machine's; return it and the decoy."""
    folder = f"{place.path}/odd-{mode}-{kind.replace(' ', '')}-{len(places)}-{places[0].replace('/', '')}"
    outside, tree = f"{folder}/outside", f"{folder}/tree"
    os.makedirs(f"{outside}/pts")
    pathlib.Path(f"{outside}/null").write_text("machine\n")
    pathlib.Path(f"{outside}/kept").write_text("machine\n")
    small_tree(tree)
    for name in places:
        path = f"{tree}/{name}"
        if os.path.islink(os.path.dirname(path)):
            continue
        if os.path.isdir(path):
            shutil.rmtree(path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        target = {
            "absolute": outside,
            "relative": "var",
            "dotdot": "../" * 20 + outside.strip("/"),
            "pid 1": "/proc/1/root" + outside,
            "file": None,
        }[kind]
        if target is None:
            pathlib.Path(path).write_text("a file\n")
        else:
            os.symlink(target, path)
    prefix = place.prefix(mode)
    if prefix:
        from support.users import PLAIN, SINGLE

        subprocess.run(["chown", "-Rh", SINGLE if mode == "one-id" else PLAIN, folder], check=True)
    return tree, outside


def start_over(place, mode, kind, places, seen):
    tree, outside = odd_tree(place, mode, kind, places)
    name = f"odd{abs(hash((kind, tuple(places)))) % 10**8}"
    place.make(mode)
    before = sorted((root, *folders, *files) for root, folders, files in os.walk(outside))
    done = place.layerrun(mode, "base", "import", name, tree)
    if done.returncode == 0:
        place.layerrun(mode, "create", name, "--base", name, check=0)
        script = f"echo ran; cat {outside}/kept /etc/kept /tmp/kept; echo x >/tmp/new; echo x >{outside}/new"
        done = place.layerrun(mode, "app", name, "--", "/bin/sh", "-c", script)
        assert "machine" not in done.stdout
        place.layerrun(mode, "remove", "-y", name)
    seen(f"{kind}: status {done.returncode}")
    assert "Traceback" not in done.stderr
    if "ran" not in done.stdout:
        assert done.returncode in {1, 2, 125}
        assert done.stderr.startswith("layerrun: "), done.stderr
    assert sorted((root, *folders, *files) for root, folders, files in os.walk(outside)) == before
    assert pathlib.Path(f"{outside}/null").read_text() == "machine\n"


MANY = ("dev/null", "dev/pts", "tmp", "run", "sys")


@check(25, only=("root",))
@pytest.mark.parametrize(
    ("kind", "places"),
    [
        *((kind, MANY) for kind in KINDS),
        ("absolute", ("proc",)),
        ("file", ("proc",)),
        ("dotdot", ("dev", "etc")),
        ("file", ("dev", "etc")),
    ],
    ids=str,
)
def test_odd_mount_points(place, mode, kind, places, seen):
    start_over(place, mode, kind, places, seen)


@check(25, only=("one-id", "subids"))
@pytest.mark.parametrize("kind", ["dotdot", "file"])
def test_odd_mount_points_of_plain_users(place, mode, kind, seen):
    start_over(place, mode, kind, MANY, seen)


@check(25)
@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PLACES)
def test_each_odd_mount_point(place, mode, kind, name, seen):
    start_over(place, mode, kind, (name,), seen)


def bind_race(place, mode, running, rounds):
    """One app exchanges a folder of a share for a link outwards, while another starts with that folder as its share."""
    place.make(mode)
    folder = f"{place.path}/share-{mode}-{rounds}"
    outside = f"{folder}/outside"
    for path in (outside, f"{folder}/share/x", f"{folder}/share/y"):
        os.makedirs(path)
    pathlib.Path(f"{outside}/machine").write_text("")
    os.symlink("../outside", f"{folder}/share/link")
    pathlib.Path(f"{folder}/share/x/right").write_text("")
    prefix = place.prefix(mode)
    if prefix:
        subprocess.run(["chown", "-Rh", prefix[2], folder], check=True)
    base = ["--base", "small"] if mode == "subids" else []
    flipper, victim = f"flipper{rounds}", f"victim{rounds}"
    if mode == "subids":
        place.layerrun(mode, "create", flipper, *base, "--share", f"{folder}/share:/mnt", check=0)
    else:
        place.layerrun(mode, "create", flipper, "--share", f"{folder}/share:/mnt", check=0)
    shares = [
        "--share",
        f"{folder}/share/x:/srv",
        "--share",
        f"{folder}/share:/mnt",
        "--share",
        f"{folder}/share/y:/mnt/x",
    ]
    place.layerrun(mode, "create", victim, *base, *shares, check=0)
    probe = place.inside(mode, "probe")
    running(f"echo ready; exec {probe} flip /mnt/x /mnt/link", app=flipper)
    ran = refused = 0
    command = ["/bin/sh", "-c", "echo /srv/* /mnt/x/*"]
    for _ in range(rounds):
        done = place.layerrun(mode, "app", victim, "--", *command)
        assert "machine" not in done.stdout, "a mount leads outside"
        assert done.returncode in {0, 2, 125}, done.stderr
        ran, refused = ran + (done.returncode == 0), refused + (done.returncode != 0)
    return f"{rounds} starts: {ran} ran, {refused} were refused; no mount leads outside"


@check(26)
def test_race_at_a_share(place, mode, running, seen):
    seen(bind_race(place, mode, running, 10))


@check(26)
@pytest.mark.long
@pytest.mark.timeout(3600)
def test_long_race_at_a_share(place, mode, running, seen):
    seen(bind_race(place, mode, running, 10_000))


@check(27)
def test_what_covers(place, mode, running, seen):
    """CVE-2025-31133: what lies in /dev cannot be taken away, and each cover is the null device."""
    probe = place.inside(mode, "probe")
    running(
        "for f in /dev/null /dev/pts/0 /dev/pts /dev/tty; do"
        " rm -f $f; mv $f /dev/x; ln -sf /proc/1/root $f; done 2>/dev/null;"
        f"cp {probe} /dev/shm/n; {probe} flip /dev/null /dev/shm/n & {probe} flip /dev/pts /dev/shm/n &"
        "echo ready; exec sleep 1000"
    )
    end = time.monotonic() + 1
    rounds = 0
    while time.monotonic() < end or rounds < 3:
        script = "for f in /proc/keys /proc/timer_list /dev/null; do test -e $f && stat -c '%F %t:%T' $f; done; true"
        done = place.layerrun(mode, "app", "a", "--", "/bin/sh", "-c", script, check=0)
        rounds += 1
        assert set(done.stdout.splitlines()) == {"character special file 1:3"}
    seen(f"{rounds} joins: every cover is 1:3")
