"""Launchers that run while somebody looks at them."""

from __future__ import annotations

import contextlib
import subprocess


def running(place, mode, script, **options):
    """Start a shell script in a mode, wait for its first line, ``ready``."""
    words = place.start(mode, *sh(place, mode, script))
    process = subprocess.Popen(
        place.argv(mode, *words),
        env=place.env(mode),
        **{
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "cwd": "/",
            **options,
        },
    )
    line = process.stdout.readline()
    assert line == "ready\n", (line, process.stderr.read())
    return process


def sh(place, mode, script):
    """Return the words of a shell script: over the base there is a shell of its own."""
    return ["/bin/sh", "-c", script]


@contextlib.contextmanager
def ends(process):
    """End a process and its sandbox when the test is done with it."""
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()
