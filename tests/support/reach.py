"""A Python with layerrun that a plain user can start.

Usually that is the one the tests run with. Where the checkout lies in a folder that only root may pass through
(below /root, in what mktemp -d made), a copy of the environment in /var/tmp takes its place.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import sysconfig

CACHE = "/var/tmp/layerrun-test-cache"
BIN = os.path.dirname(sys.executable)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

_bin = BIN


def translate(argv) -> list[str]:
    """Return the words with a program of this environment replaced by the one that plain users can reach."""
    words = [os.fspath(word) for word in argv]
    if os.path.dirname(words[0]) == BIN:
        words[0] = os.path.join(_bin, os.path.basename(words[0]))
    return words


def _why_not(prefix: list[str], folder: str) -> str | None:
    argv = [*prefix, f"{folder}/python", "-Ic", "import layerrun.errors"]
    done = subprocess.run(
        argv, cwd="/", capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return (done.stderr.strip().splitlines() or ["it fails"])[-1] if done.returncode else None


def _copy() -> str:
    os.makedirs(CACHE, exist_ok=True)
    folder = f"{CACHE}/environment-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = sysconfig.get_path("purelib", vars={"base": folder, "platbase": folder})
    shutil.copytree(
        sysconfig.get_path("purelib"),
        site,
        dirs_exist_ok=True,
        ignore=shutil.ignore_patterns("__editable__*"),
    )
    if not os.path.isdir(f"{site}/layerrun"):
        shutil.copytree(f"{ROOT}/layerrun", f"{site}/layerrun")
    # It finds its Python beside itself.
    shutil.copy2(f"{BIN}/layerrun", f"{folder}/bin/layerrun")
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
    return f"{folder}/bin"


def settle(prefix: list[str]) -> None:
    """Find or make an environment that the user of ``prefix`` can reach, or raise OSError."""
    global _bin  # noqa: PLW0603  (found once)
    if _why_not(prefix, BIN) is None:
        return
    folder = _copy()
    reason = _why_not(prefix, folder)
    if reason:
        raise OSError(f"a plain user cannot use {sys.executable}, nor a copy of it: {reason}")
    _bin = folder
