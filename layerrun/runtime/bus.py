"""The session's bus, through a filter: xdg-dbus-proxy(1), one for each start, which ends with the sandbox.

It is nobody's child, so no launcher waits for it. It ends when the last copy of a descriptor is closed that only the
launcher and pid 1 hold (`layerrun.native.launch.Start.keep`), whoever was killed before.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping

from layerrun.errors import LaunchError
from layerrun.policy import Socket

__all__ = ["PROGRAM", "is_installed", "start"]

PROGRAM = "xdg-dbus-proxy"
# Nothing said: the bus itself and the portals, which ask the person.
_DEFAULT = ("talk=org.freedesktop.portal.*",)
# The program is the system's, whatever the caller's PATH says, and it parses what hostile programs send: of the
# caller's environment it gets what the bus's protocol may need.
_PATH = "/usr/local/bin:/usr/bin:/bin"
_KEPT = ("HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
_PATIENCE = 10.0  # seconds, for a proxy to be ready
# A second fork: what has no parent to wait for it is nobody's zombie.
_ORPHAN = '"$@" &'


def is_installed() -> bool:
    """Say whether there is a proxy."""
    return shutil.which(PROGRAM, path=_PATH) is not None


def start(bus: Socket, address: str, folder_fd: int, name: str, environ: Mapping[str, str]) -> int:
    """Start a proxy that listens at ``name`` in a folder; return the descriptor whose last copy ends it.

    Returns once it listens. Raises `LaunchError` when it does not.
    """
    rules = [f"--{rule}" for rule in bus.rules or _DEFAULT]
    try:
        os.unlink(name, dir_fd=folder_fd)
    except FileNotFoundError:
        pass
    ours, theirs = os.pipe()
    try:
        with tempfile.TemporaryFile() as said:
            # By descriptor: the path of a socket has at most 107 bytes, and the store's may have more.
            path = f"/proc/self/fd/{folder_fd}/{name}"
            words = [PROGRAM, f"--fd={theirs}", address, path, "--filter", *rules]
            try:
                done = subprocess.run(
                    ["/bin/sh", "-c", _ORPHAN, "sh", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    pass_fds=(theirs, folder_fd),
                    env={"PATH": _PATH} | {key: environ[key] for key in _KEPT if key in environ},
                    cwd="/",
                    umask=0,  # for every user inside; of others the store keeps it
                    start_new_session=True,
                    check=False,
                )
            finally:
                os.close(theirs)
            if done.returncode == 0 and _is_ready(ours):
                return ours
            said.seek(0)
            why = os.fsdecode(said.read(2000)).strip() or "it did not begin to listen"
    except BaseException:
        os.close(ours)
        raise
    os.close(ours)
    raise LaunchError(
        f"cannot start {PROGRAM} for the session's bus: {why}",
        hint=f"is there a bus at {address}? Without it: layerrun edit, --deny socket:session-bus",
    )


def _is_ready(fd: int) -> bool:
    """Wait for the byte that the proxy writes once it listens."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    until = time.monotonic() + _PATIENCE
    if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
        return False
    return os.read(fd, 1) != b""
