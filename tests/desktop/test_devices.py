"""Devices: there where granted, with the host's permissions or by root's word, and nothing else of /dev."""

from __future__ import annotations

import os
import subprocess

import pytest

pytestmark = [pytest.mark.root]
OPEN = "stat -c '%t:%T %a' /dev/autofs && head -c0 /dev/autofs && ls /dev"


def test_a_device_is_there_only_if_granted(layerrun, any_user):
    number = os.stat("/dev/autofs").st_rdev
    for user in (None, any_user):
        layerrun("create", "dev", "--device", "/dev/autofs", user=user, check=0)
        for _ in range(2):
            done = layerrun("app", "dev", "--", "sh", "-c", OPEN, user=user, check=0)
            first, *names = done.out.splitlines()
            assert first == f"{os.major(number):x}:{os.minor(number):x} 644"
            assert set(names) == {
                *"autofs fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
            }
        layerrun("app", "not", "--", "stat", "/dev/autofs", user=user, check=1)


def test_root_grants_what_only_root_may_open(layerrun, plain_user):
    if not os.path.exists("/dev/fuse"):
        os.mknod("/dev/fuse", 0o600 | 0o020000, os.makedev(10, 229))
    layerrun("create", "f", "--device", "fuse", check=0)
    layerrun("app", "f", "--", "sh", "-c", "exec 3<>/dev/fuse", check=0)
    # Other nodes cannot be made, and the host's are not changed.
    before = os.stat("/dev/fuse")
    layerrun("app", "f", "--", "sh", "-c", "mknod /dev/vda b 254 0; mknod /dev/x c 1 1", check=1)
    layerrun("app", "f", "--", "sh", "-c", "chmod 666 /dev/fuse; rm /dev/fuse", check=0)
    after = os.stat("/dev/fuse")
    assert (after.st_mode, after.st_ctime_ns) == (before.st_mode, before.st_ctime_ns)


@pytest.mark.parametrize(
    ("device", "said"),
    [("/dev/fd", "symbolic link"), ("/dev/net", "is no device"), ("/dev/none", "is not there")],
)
def test_what_is_no_device_is_refused(layerrun, device, said):
    layerrun("create", "odd", "--device", device, check=0)
    done = layerrun("app", "odd", "--", "true")
    assert done.rc in (2, 125)
    assert said in done.err


def test_a_presets_device_may_be_missing(layerrun):
    layerrun("create", "d", "--preset", "desktop", check=0)
    layerrun("app", "d", "--", "true", check=0)
    if not os.path.exists("/dev/dri"):
        assert "device dri: /dev/dri is not there" in layerrun("show", "d", check=0).out


def test_a_folder_of_devices(layerrun, any_user, folder):
    """In a mount namespace with a /dev of its own, in which harmless nodes stand in for keyboards."""
    make = """
        mkdir $1/dev && mount -t tmpfs -o mode=755 dev $1/dev && cd $1/dev
        for node in null zero full random urandom tty ptmx; do cp -a /dev/$node .; done
        ln -s /proc/self/fd fd && mkdir pts shm input && mount --rbind /dev/pts pts
        mknod input/event0 c 1 5 && chmod 666 input/event0 && mknod input/event1 c 1 5 && chmod 600 input/event1
        ln -s event0 input/by-name; mount --rbind $1/dev /dev; cd /; shift; exec "$@"
    """
    script = "cd /dev/input; echo *; head -c1 event0 | wc -c; head -c1 event1 2>/dev/null | wc -c"
    for user, seen, second in ((None, "event0 event1", "1"), (any_user, "by-name event0 event1", "0")):
        layerrun("create", "i", "--device", "input", user=user, check=0)
        for _ in range(2):
            words = ["unshare", "-m", "sh", "-euc", make, "sh", folder]
            words += layerrun.argv("app", "i", "--", "sh", "-uc", script, user=user)
            done = subprocess.run(
                words,
                env=layerrun.env(user),
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                cwd="/",
            )
            assert done.stdout.splitlines() == [seen, "1", second], done.stderr
            os.rmdir(f"{folder}/dev")
