"""A real Debian tree, made once and kept in /var/tmp for the next run."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess

from support.users import CACHE

MIRROR = "http://deb.debian.org/debian"
COMMAND = ["mmdebstrap", "--variant=minbase", "--mode=root", "--skip=cleanup/apt/lists"]
SUITE = "bookworm"
# Written last; what it does not stand beside is not whole.
DONE = ".made"


def _sources() -> str | None:
    """Return this machine's own apt sources if they are of the same suite: they may name a nearer mirror."""
    path = "/etc/apt/sources.list.d/debian.sources"
    with contextlib.suppress(OSError), open(path) as file:
        if f"Suites: {SUITE}" in file.read():
            return path
    return None


def _apt_conf() -> list[str]:
    """Return the options that this machine's apt needs to reach its mirror (a proxy, a clock that is off)."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    wanted = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    return [line for line in dump.splitlines() if line.startswith(wanted) and '""' not in line]


def _argv(target: str) -> list[str]:
    argv = [*COMMAND, *(f"--aptopt={line}" for line in _apt_conf()), SUITE, target]
    sources = _sources()
    return [*argv, sources] if sources else argv


def _folder() -> str:
    key = hashlib.sha256("\0".join(_argv("")).encode()).hexdigest()[:12]
    return f"{CACHE}/{SUITE}-{key}"


def cached() -> str | None:
    """Return the tree if it is there and whole."""
    tree = _folder() + "/tree"
    return tree if os.path.exists(f"{_folder()}/{DONE}") and os.path.isdir(tree + "/usr") else None


def make() -> str:
    """Return the tree, made first if missing. Nobody may change it: tests import it or copy it."""
    os.makedirs(CACHE, exist_ok=True)
    with open(f"{CACHE}/debian.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tree = cached()
        if tree:
            return tree
        folder = _folder()
        subprocess.run(["rm", "-rf", folder], check=True)
        os.makedirs(folder)
        done = subprocess.run(
            _argv(folder + "/tree"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=280,
        )
        if done.returncode:
            shutil.rmtree(folder, ignore_errors=True)
            raise OSError("mmdebstrap failed:\n" + done.stderr[-2000:])
        with open(f"{folder}/{DONE}", "w") as file:
            file.write("\n".join(_argv("")) + "\n")
        return folder + "/tree"
