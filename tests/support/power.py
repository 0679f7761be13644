"""File systems whose power goes: what they had not made durable is lost, at one moment, for all of them.

Disk upon disk: images of ext4 lie as files on an ext4 of its own, which is in an image again. The outer one is
shut down without its log (``EXT4_IOC_SHUTDOWN``, which is there for tests like these): from that moment nothing gets to
the images any more, and what they were given since their last flush is gone too, as with a disk that has a volatile
cache. The page cache of the inner ones is lost. Mounted again, each replays its log.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import struct
import subprocess
import sys
import time

from layerrun.errors import ConflictError

# linux/ext4.h, fs/ext4/ext4.h: _IOR('X', 125, __u32); 2: neither data nor the log are written any more.
_SHUTDOWN = 0x8004587D
_WITHOUT_LOG = struct.pack("=I", 2)


def _sh(*words):
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


def _image(path, size):
    with open(path, "wb") as file:
        file.truncate(size)
    _sh("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-N", "8192", "-m", "0", path)


class Disks:
    """File systems on disks of one machine, mounted in this process's own mount namespace.

    ``at``: where each is mounted; they are mounted in that order, so that one may lie in another.
    """

    def __init__(self, folder, at, size=48 << 20):
        self._outer, self._image = f"{folder}/disks", f"{folder}/disks.img"
        self.at = at
        os.mkdir(self._outer)
        _image(self._image, (size + (16 << 20)) * len(at))
        _sh("mount", "-o", "loop", self._image, self._outer)
        self._images = [f"{self._outer}/{number}" for number in range(len(at))]
        for image, path in zip(self._images, at, strict=True):
            _image(image, size)
            os.makedirs(path, exist_ok=True)
            _sh("mount", "-o", "loop", image, path)
            os.rmdir(f"{path}/lost+found")
            os.close(os.open(f"{path}/.stir", os.O_CREAT, 0o600))

    def flush(self):
        """Make all durable."""
        for path in [*self.at, self._outer]:
            _sh("sync", "-f", path)

    def cut(self):
        """Cut the power."""
        fd = os.open(self._outer, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, _WITHOUT_LOG)
        finally:
            os.close(fd)

    def restore(self):
        """Let the power come back; nobody may use the file systems any more."""
        for path in reversed(self.at):
            _patiently("umount", path)
        _patiently("umount", self._outer)
        _sh("mount", "-o", "loop", self._image, self._outer)
        for image, path in zip(self._images, self.at, strict=True):
            _sh("mount", "-o", "loop", image, path)

    def stir(self, *, logs, caches):
        """Do without end what others may cause: ``logs`` are written, with all moves so far and no contents;
        disks empty their ``caches``."""
        files = [os.open(f"{path}/.stir", os.O_RDONLY) for path in self.at] if logs else []
        images = [os.open(image, os.O_RDWR) for image in self._images] if caches else []
        while True:
            for fd in files:
                os.fchmod(fd, 0o600)  # a new time of change is enough for something to be written
                os.fsync(fd)
            for fd in images:
                os.fdatasync(fd)
            time.sleep(0.0005)


def _patiently(*words):
    """Loop devices go a moment after what was mounted from them."""
    for _ in range(100):
        try:
            return _sh(*words)
        except OSError:
            time.sleep(0.02)
    return _sh(*words)


def child(work):
    """Do something in a child; return its pid. It does not come back: it waits to be killed."""
    pid = os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        work()
        while True:
            signal.pause()
    except BaseException:  # noqa: BLE001
        import traceback

        traceback.print_exc()
    finally:
        os._exit(1)


class Telling:
    """A child that does several things one after another and says what it begins and ends."""

    def __init__(self, things):
        self._read, write = os.pipe()
        self._said = b""

        def work():
            for number, thing in enumerate(things):
                os.write(write, b"%d" % number)
                try:
                    thing()
                except (AssertionError, ConflictError) as error:
                    os.write(write, f"! {error}".encode())  # no power was needed for that
                    raise
                os.write(write, b".")

        self.pid = child(work)
        os.close(write)

    def wait_for(self, number):
        """Wait until it begins with a thing."""
        while not self._said.endswith(b"%d" % number):
            data = os.read(self._read, 1)
            assert data, "the work failed by itself"
            self._said += data

    def kill(self):
        """Kill it; return whether it has ended all that it said it began."""
        kill(self.pid)
        while data := os.read(self._read, 100):
            self._said += data
        os.close(self._read)
        assert b"!" not in self._said, self._said.decode()
        return self._said.endswith(b".")


def kill(*pids):
    """Kill children and wait for their end."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    for pid in pids:
        os.waitpid(pid, 0)


if __name__ == "__main__":  # whether it works here: see support/probes.py
    disks = Disks(sys.argv[1], [f"{sys.argv[1]}/disk"])
    disks.cut()
    disks.restore()
