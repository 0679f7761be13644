"""Over an imported base: the display, and what a program finds of the host's taste."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import pytest
from support.sandbox import libraries, small_tree

pytestmark = [pytest.mark.root]


def _base(layerrun, folder, user, *programs):
    tree = small_tree(f"{folder}/tree")
    for program in programs:
        path = shutil.which(program)
        shutil.copy(path, f"{tree}/usr/bin/{program}")
        for library in libraries(path):
            os.makedirs(os.path.dirname(tree + library), exist_ok=True)
            shutil.copy(os.path.realpath(library), tree + library)
    os.makedirs(f"{tree}/usr/share/zoneinfo/Europe")
    pathlib.Path(f"{tree}/usr/share/zoneinfo/Europe/Berlin").write_bytes(b"TZif")
    os.makedirs(f"{tree}/usr/lib/locale/de_DE.utf8")
    if user:
        subprocess.run(["chown", "-R", f"{user.uid}:{user.gid}", tree], check=True)
    layerrun("base", "import", "small", tree, user=user, check=0)


def _looks_at(layerrun, display, folder, user):
    _base(layerrun, folder, user, "xdpyinfo", "env")
    layerrun("create", "x", "--base", "small", "--socket", "x11", user=user, check=0)
    env = display.env() | {"LANG": "fr_FR.UTF-8", "LC_TIME": "de_DE.UTF-8", "LC_PAPER": "C", "LC_ALL": None}
    script = "xdpyinfo >/dev/null && env && ls /run/host/share/fonts && cat /run/host/fonts.conf"
    for _ in range(2):
        done = layerrun("app", "x", "--", "sh", "-euc", script, user=user, env=env, check=0)
        lines = done.out.splitlines()
        assert "LANG=C.UTF-8" in lines
        assert "LC_TIME=de_DE.UTF-8" in lines
        assert "LC_PAPER=C" in lines
        assert "FONTCONFIG_FILE=/run/host/fonts.conf" in lines
        assert set(os.listdir("/usr/share/fonts")) <= set(lines)
        assert "  <dir>/run/host/share/fonts</dir>" in lines
    done = layerrun("app", "x", "--", "sh", "-c", "echo x >/run/host/share/fonts/x", user=user, env=env)
    assert done.rc != 0


def test_a_display_over_a_base(layerrun, display, folder):
    _looks_at(layerrun, display, folder, None)


def test_a_plain_users_display_over_a_base(layerrun, users_display, user_folder, any_user):
    _looks_at(layerrun, users_display, user_folder(any_user), any_user)


def test_the_hosts_time_zone(layerrun, folder):
    """In a mount namespace in which the host's zone is another."""
    _base(layerrun, folder, None, "env", "head")
    layerrun("create", "z", "--base", "small", check=0)

    def inside(target, script):
        # /etc/localtime is a link: a folder of links stands in for /etc.
        mount = "mkdir -p $1/etc && cp -a /etc/. $1/etc/ && ln -sf $2 $1/etc/localtime && mount --bind $1/etc /etc"
        words = ["unshare", "-m", "sh", "-euc", f'{mount}; shift 2; exec "$@"', "sh", folder, target]
        words += layerrun.argv("app", "z", "--", "sh", "-euc", script)
        return subprocess.run(
            words,
            env=layerrun.env(TZ=None),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
        )

    if not os.path.exists("/usr/share/zoneinfo/Europe/Berlin"):
        pytest.fail("the tests need tzdata")
    done = inside("/usr/share/zoneinfo/Europe/Berlin", "env")
    assert "TZ=Europe/Berlin" in done.stdout.splitlines(), done.stderr
    # The base does not know this one: the file itself is shown.
    done = inside("/usr/share/zoneinfo/Asia/Tokyo", "env; head -c4 /run/host/localtime")
    assert "TZ=:/run/host/localtime" in done.stdout.splitlines(), done.stderr
    assert done.stdout.endswith("TZif")
    # The caller's own word counts.
    done = layerrun("app", "z", "--", "env", env={"TZ": "Asia/Tokyo"}, check=0)
    assert "TZ=Asia/Tokyo" in done.out.splitlines()
