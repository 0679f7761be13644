"""What the tests of starts share: a mount namespace of their own, a small root file system, a look at processes."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time


class Mounts:
    """A mount namespace held by a sleeping process. Nothing done there is seen by the machine."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "sleep", "infinity"], stdin=subprocess.DEVNULL
        )
        mine = os.readlink("/proc/self/ns/mnt")
        while os.readlink(f"/proc/{self.process.pid}/ns/mnt") == mine:
            time.sleep(0.002)
        self.servers: list[int] = []

    def prefix(self) -> list[str]:
        """Return the words that, before a command, run it in this namespace."""
        return ["nsenter", "-t", str(self.process.pid), "-m", "--"]

    def sh(self, script, *words, check=True, **options):
        """Run a shell script there."""
        options.setdefault("stdin", subprocess.DEVNULL)
        argv = [*self.prefix(), "sh", "-ec", script, "sh", *map(os.fspath, words)]
        return subprocess.run(argv, check=check, capture_output=True, **options)

    def layerrun(self, layerrun, *words, user=None, check=None, env=None, timeout=120, **options):
        """Run the command line there; ``layerrun`` is the fixture."""
        done = subprocess.run(
            [*self.prefix(), *layerrun.argv(*words, user=user)],
            env=layerrun.env(user, **(env or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            cwd="/",
            timeout=timeout,
            **options,
        )
        if check is not None:
            said = f"{done.stdout}\n{done.stderr}"
            assert done.returncode == check, (
                f"layerrun {words}: status {done.returncode}, not {check}\n{said}"
            )
        return done

    def fuse(self, source, target, *options) -> int:
        """Serve the folder ``source`` at ``target`` through FUSE; return the server's pid."""
        words = [
            "fuse-overlayfs",
            "-f",
            "-o",
            ",".join([f"lowerdir={source}", "allow_other", *options]),
            target,
        ]
        server = subprocess.Popen([*self.prefix(), *words], stdin=subprocess.DEVNULL)
        self.servers.append(server.pid)
        line = re.compile(rf" {re.escape(target)} .* - fuse")
        end = time.monotonic() + 20
        while not line.search(pathlib.Path(f"/proc/{self.process.pid}/mountinfo").read_text()):
            assert server.poll() is None, "the FUSE server ended"
            assert time.monotonic() < end, "the FUSE server never mounted"
            time.sleep(0.01)
        return server.pid

    def end(self) -> None:
        """End the servers and the namespace."""
        for pid in self.servers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        self.process.kill()
        self.process.wait()


PROGRAMS = "sh cat grep ls mkdir touch rm ln stat id readlink true sleep env chmod".split()


@functools.cache
def libraries(program: str) -> set[str]:
    out = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return set(re.findall(r"(/\S+\.so\S*)", out))


def small_tree(root: str) -> str:
    """Make a root file system at ``root`` with a shell and a few programs in it; return ``root``."""
    for name in ("usr/bin", "usr/lib", "etc", "root", "var", "lib64"):
        os.makedirs(f"{root}/{name}")
    for name in ("bin", "lib"):
        os.symlink(f"usr/{name}", f"{root}/{name}")
    for program in PROGRAMS:
        path = os.path.realpath(shutil.which(program) or program)
        shutil.copy(path, f"{root}/usr/bin/{program}")
        for library in libraries(path):
            target = root + library
            if not os.path.exists(target):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copy(os.path.realpath(library), target)
    pathlib.Path(f"{root}/etc/base").write_text("base\n")
    return root


def inside_of(pid: int) -> list[int]:
    """Return the pids (as seen here) of the process ``pid``'s child, pid 1 of its sandbox, and of all beneath it."""
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        for tid in _listdir(f"/proc/{parent}/task"):
            with contextlib.suppress(OSError):
                text = pathlib.Path(f"/proc/{parent}/task/{tid}/children").read_text()
                children = [int(child) for child in text.split()]
                found += children
                todo += children
    return found


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


def wait_for(condition, seconds=30.0, what="it never came"):
    """Wait until ``condition()`` is true and return what it gave."""
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < end, what
        time.sleep(0.005)


def overlay_log() -> list[str]:
    """Return the kernel log's lines of overlayfs."""
    out = subprocess.run(["dmesg"], capture_output=True, text=True, errors="replace").stdout
    return [line for line in out.splitlines() if "overlayfs" in line]
