"""A terminal for a program under test: a pty of which the program's session is led by the program itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

# What it takes at most on a busy machine; nothing is ever awaited by time alone.
PATIENCE = 20.0


class Terminal:
    """Start ``argv`` on a terminal of its own and talk to it."""

    def __init__(self, argv, env, cwd="/", size=(24, 200)):
        self.master, slave = pty.openpty()
        self.text = ""
        self.resize(*size, tell=False)
        self.process = subprocess.Popen(
            argv,
            env={**env, "TERM": "xterm"},
            cwd=cwd,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  (no threads here)
        )
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with contextlib.suppress(ProcessLookupError):
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGCONT)
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self.master)

    def resize(self, rows, columns, tell=True):
        """Change the size; the kernel sends SIGWINCH to the foreground group by itself."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def cooked(self):
        """Say whether the terminal echoes and edits lines, as a shell's user expects it."""
        flags = termios.tcgetattr(self.master)[3]
        return bool(flags & termios.ICANON) and bool(flags & termios.ECHO)

    def send(self, text):
        os.write(self.master, text.encode())

    def line(self, text):
        self.send(text + "\r")

    def _read(self, end):
        ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
        if not ready:
            raise AssertionError(f"nothing more came; so far:\n{self.text}")
        try:
            got = os.read(self.master, 65536)
        except OSError:
            got = b""
        self.text += got.decode(errors="replace")
        return bool(got)

    def expect(self, pattern):
        """Wait for a match of ``pattern`` and take everything up to its end out of the text."""
        end = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.text)):
            if not self._read(end):
                raise AssertionError(f"it ended before {pattern!r}; so far:\n{self.text}")
        self.text = self.text[found.end() :]
        return found

    def status(self):
        """Wait for the end; return the exit status."""
        end = time.monotonic() + PATIENCE
        while self._read(end):
            pass
        return self.process.wait(PATIENCE)
