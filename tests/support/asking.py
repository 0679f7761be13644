"""A verb on a terminal of its own, and what it says and leaves."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import subprocess
import time


class Terminal:
    """The command on a terminal of its own: ``await_``, ``type``, then ``end``."""

    def __init__(self, layerrun, *words, **env):
        self.master, slave = pty.openpty()
        self.text = ""
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", *layerrun.argv(*words)],
            env=layerrun.env(TERM="xterm", **env),
            cwd="/",
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)

    def await_(self, pattern, seconds=30.0):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, f"{pattern!r} never came:\n{self.text}"
            assert self.read(), f"ended without {pattern!r}:\n{self.text}"
        return self.text

    def read(self):
        if select.select([self.master], [], [], 0.5)[0]:
            with contextlib.suppress(OSError):  # EIO: the other side is gone
                data = os.read(self.master, 65536)
                self.text += data.decode(errors="replace").replace("\r\n", "\n")
                return bool(data)
            return False
        return True

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self):
        while self.read():
            pass
        os.close(self.master)
        return self.process.wait(30)


def has_data(layerrun, name="web"):
    return layerrun("app", name, "--", "test", "-e", "/etc/layerrun-test").rc == 0


def document(layerrun, *words, check=0):
    data = json.loads(layerrun(*words, "--json", check=check).out)
    assert data["schema"] == 1
    return data
