"""Data of a fixed size: an image as root, memory for an ephemeral start without."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time

import pytest
from support import probes
from support.sandbox import wait_for

FILL = "head -c 64M /dev/zero >/srv/full; stat -c %s /srv/full"


@pytest.fixture
def root():
    probes.need("root")
    probes.need("idmap")


def loops(store):
    """Return the loop devices on images of a store."""
    found = subprocess.run(["losetup", "-nO", "NAME,BACK-FILE"], capture_output=True, text=True, check=True)
    return [line for line in found.stdout.splitlines() if store in line]


def test_who_fills_it_is_told_and_nobody_else(layerrun, make, root):
    make("web", max_size=16 << 20)
    make("other")
    done = layerrun("app", "web", "--", "sh", "-c", FILL)
    assert "No space left on device" in done.err
    assert 8 << 20 < int(done.out) < 16 << 20
    layerrun("app", "other", "--", "sh", "-c", "head -c 1M /dev/zero >/srv/fine", check=0)
    # What it holds can be seen, taken back in part, and thrown away, full as it is.
    assert "/srv/full" in layerrun("diff", "web", check=0).out
    assert "the app's own layer" in layerrun("which", "web", "/srv/full", check=0).out
    row = json.loads(layerrun("du", "web", "--json", check=0).out)["apps"][0]
    assert row["max_size"] == 16 << 20
    assert 8 << 20 < row["allocated"] < 16 << 20
    assert "of 16.0 MiB" in layerrun("du", "web", check=0).out
    assert layerrun("reset", "-y", "web", "--path", "/srv/full", check=0).out == "/srv/full\n"
    layerrun("app", "web", "--", "sh", "-c", FILL, check=0)
    layerrun("reset", "-y", "web", check=0)
    assert layerrun("diff", "web", check=0).out == ""
    wait_for(lambda: not loops(layerrun.store()))


@pytest.mark.parametrize("no_userns", [False, True])
def test_it_is_like_any_other_data(layerrun, make, root, no_userns):
    """Owners, deletions, a home of its own, the next start by the stored plan, caches."""
    make("web", max_size=32 << 20, home="fresh", no_userns=no_userns)
    work = "mkdir -p ~/.cache /var/cache/z; echo a >~/.cache/a; echo b >~/b; echo c >/var/cache/z/c; "
    work += "rm /etc/passwd; chown 33 /etc/hostname"
    layerrun("app", "web", "--", "sh", "-c", work, check=0)
    look = "cat ~/b; ls /etc/passwd; stat -c %u /etc/hostname; cp /bin/true ~/true; ~/true && echo ran"
    for _ in range(2):
        assert layerrun("app", "web", "--", "sh", "-c", look).out == "b\n33\nran\n"
    assert layerrun("clear-cache", "-y", "web", check=0).out.split() == ["/var/cache", "/root/.cache"]
    layerrun("app", "web", "--", "sh", "-c", "test ! -e ~/.cache -a ! -e /var/cache/z -a -e ~/b", check=0)
    layerrun("remove", "-y", "web", check=0)
    wait_for(lambda: not loops(layerrun.store()))


def test_what_reads_while_it_runs_shares_the_device(layerrun, make, root):
    make("web", max_size=32 << 20)
    words = ["app", "web", "--", "sh", "-c", "echo a >/srv/a; sync; echo up; read line; cat /srv/a"]
    first = subprocess.Popen(
        layerrun.argv(*words), env=layerrun.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdout.readline() == "up\n"
    for _ in range(3):
        assert "/srv/a" in layerrun("diff", "web", check=0).out
        layerrun("du", "web", check=0)
        assert len(loops(layerrun.store())) == 1
    assert layerrun("app", "web", "--", "cat", "/srv/a", check=0).out == "a\n"
    assert layerrun("reset", "-y", "web").rc == 5
    assert first.communicate("\n", timeout=30)[0] == "a\n"
    wait_for(lambda: not loops(layerrun.store()))
    assert "/srv/a" in layerrun("diff", "web", check=0).out


def test_nothing_is_left_after_a_kill(layerrun, make, root):
    make("web", max_size=32 << 20)
    words = ["app", "web", "--", "sh", "-c", "echo a >/srv/a; sync /srv/a; echo up; sleep 1000"]
    for _ in range(3):
        first = subprocess.Popen(layerrun.argv(*words), env=layerrun.env(), stdout=subprocess.PIPE, text=True)
        assert first.stdout.readline() == "up\n"
        os.kill(first.pid, signal.SIGKILL)
        first.communicate(timeout=30)
        assert "/srv/a" in layerrun("diff", "web", check=0).out
    wait_for(lambda: not loops(layerrun.store()))


def test_many_at_once_have_one_device(layerrun, make, root):
    """Those that read, and those that start: never two caches of one image."""
    make("web", max_size=32 << 20)
    layerrun("app", "web", "--", "sh", "-c", "echo a >/srv/a", check=0)
    procs = []
    for i in range(12):
        words = ["diff", "web"] if i % 2 else ["app", "web", "--", "sh", "-c", f"echo {i} >/srv/b{i}"]
        procs.append(
            subprocess.Popen(
                layerrun.argv(*words),
                env=layerrun.env(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        time.sleep(0.02)
    for proc in procs:
        out, err = proc.communicate(timeout=60)
        assert proc.returncode == 0, (out, err)
    wait_for(lambda: not loops(layerrun.store()))
    image = next(
        os.path.join(top, "image") for top, _, files in os.walk(layerrun.store()) if "image" in files
    )
    subprocess.run(["e2fsck", "-fn", image], check=True, capture_output=True)
    assert layerrun("diff", "web", check=0).out.count("/srv/b") == 6


def test_it_can_grow(layerrun, make, root):
    make("web", max_size=16 << 20)
    layerrun("app", "web", "--", "sh", "-c", "head -c 9M /dev/zero >/srv/a", check=0)
    program = """
import attrs, sys
from layerrun.errors import UsageError
from layerrun.runtime import volumes
from layerrun.store.store import Store
with Store.open() as store:
    app = store.app("web")
    for size in (8 << 20, None):
        try:
            volumes.check_size(store, app, size)
        except UsageError:
            print("refused")
    volumes.check_size(store, app, 64 << 20)
    policy = attrs.evolve(app.config.policy, max_size=64 << 20)
    app = store.update_app("web", attrs.evolve(app.config, policy=policy))
    volumes.resize(store, app)
    print(volumes.room(store, app).size)
"""
    import sys

    done = subprocess.run(
        [sys.executable, "-c", program], env=layerrun.env(), capture_output=True, text=True, check=False
    )
    assert done.stdout == f"refused\nrefused\n{64 << 20}\n", done.stderr
    layerrun("app", "web", "--", "sh", "-c", "head -c 30M /dev/zero >/srv/b && stat -c %s /srv/a", check=0)


def test_without_root_it_is_for_one_start(layerrun, make, any_user):
    made = layerrun("create", "said", "--max-size", "8M", "--", "true", user=any_user, check=0)
    assert "--ephemeral" in made.err
    make("web", any_user, max_size=8 << 20)
    done = layerrun("app", "web", "--", "true", user=any_user)
    assert done.rc == 125
    assert "--ephemeral" in done.err
    where = "/var/tmp/full"  # over the host a plain user can write where it could outside
    fill = f"head -c 64M /dev/zero >{where}; stat -c %s {where}"
    done = layerrun("app", "web", "--ephemeral", "--", "sh", "-c", fill, user=any_user)
    assert "No space left on device" in done.err
    assert 4 << 20 < int(done.out) <= 8 << 20
    done = layerrun("app", "web", "--ephemeral", "--", "ls", "/var/tmp", user=any_user, check=0)
    assert "full" not in done.out.split()


def test_it_can_be_reset_where_the_disk_itself_is_full(layerrun, make, root, folder):
    """The reserve of the store is enough for a new image."""
    disk, place = f"{folder}/disk", f"{folder}/place"
    os.mkdir(place)
    subprocess.run(["truncate", "-s", "64M", disk], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        env = {"LAYERRUN_STORE": f"{place}/store"}
        layerrun("create", "web", "--max-size", "64M", env=env, check=0)
        layerrun("app", "web", "--", "sh", "-c", "head -c 5M /dev/urandom >/srv/a", env=env, check=0)
        subprocess.run(["dd", "if=/dev/zero", f"of={place}/fill", "bs=4K"], capture_output=True, check=False)
        layerrun("reset", "-y", "web", env=env, check=0)
        assert layerrun("diff", "web", env=env, check=0).out == ""
        wait_for(lambda: not loops(f"{place}/store"))
    finally:
        subprocess.run(["umount", place], check=True)
