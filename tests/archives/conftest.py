"""A tree to make archives of."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def tree(folder):
    """A folder with a little of everything that tar knows."""
    top = f"{folder}/tree"
    os.makedirs(f"{top}/usr/bin")
    with open(f"{top}/usr/bin/tool", "wb") as file:
        file.write(b"#!/bin/sh\n" * 10000)
    os.chmod(f"{top}/usr/bin/tool", 0o4755)
    os.chown(f"{top}/usr/bin/tool", 3, 60000)
    os.link(f"{top}/usr/bin/tool", f"{top}/usr/bin/twin")
    os.symlink("../bin/tool", f"{top}/usr/link")
    os.symlink("x" * 300, f"{top}/usr/longlink")
    os.mkfifo(f"{top}/fifo", 0o640)
    deep = f"{top}/" + "/".join(["d" * 60] * 6)
    os.makedirs(deep)
    with open(f"{deep}/{'n' * 200}", "wb") as file:
        file.write(b"deep")
    with open(f"{top}/holes", "wb") as file:
        for offset in (1 << 20, 2 << 20, 4 << 20):
            file.seek(offset)
            file.write(b"data" * 5000)
        file.truncate(6 << 20)
    with open(f"{top}/empty", "wb"):
        pass
    with open(os.fsencode(top) + b"/\xff\xc3\xa4 \n", "wb") as file:
        file.write(b"odd")
    os.setxattr(f"{top}/usr", "user.mark", b"a\0b\xff=\n")
    os.setxattr(f"{top}/usr/bin/tool", "user.x", b"")
    for number in range(40):
        with open(f"{top}/usr/{number}", "wb") as file:
            file.write(os.urandom(number * 37))
        os.utime(f"{top}/usr/{number}", ns=(0, 1_600_000_000_123_456_789 + number))
    return top
