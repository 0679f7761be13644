"""Real plain users for the rootless tests: one with subordinate ids and one without.

Each worker of a run has two of its own. Several runs of the tests may share a machine. Each holds a shared lock while
it uses the users; the last one out removes them. A user who was there before (whose comment is not ours) is used and
left alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import pwd
import subprocess

from support import reach, workers
from support.reach import CACHE

PLAIN = "layerrun-test"
SINGLE = "layerrun-single"
COMMENT = "made by the tests of layerrun"

_shared = -1


class User:
    """A plain user of this machine, and a way to run things as that user alone."""

    def __init__(self, name: str) -> None:
        entry = pwd.getpwnam(workers.named(name))
        self.kind = name  # PLAIN or SINGLE
        self.name = entry.pw_name
        self.uid = entry.pw_uid
        self.gid = entry.pw_gid
        self.home = entry.pw_dir
        self.runtime_dir = f"{self.home}/.run"

    def __str__(self) -> str:
        return self.name

    def prefix(self) -> list[str]:
        """Return the words that, before a command, run it with this user's ids and their first group only."""
        return [
            "setpriv",
            "--reuid",
            self.name,
            "--regid",
            str(self.gid),
            "--clear-groups",
            "--inh-caps=-all",
        ]

    def environ(self, **more: str) -> dict[str, str]:
        """Return the environment of a login of this user, with ``more`` on top."""
        return {
            "HOME": self.home,
            "USER": self.name,
            "LOGNAME": self.name,
            "SHELL": "/bin/sh",
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "LANG": "C.UTF-8",
            "XDG_RUNTIME_DIR": self.runtime_dir,
            **{
                k: v
                for k, v in os.environ.items()
                if k.startswith(("LAYERRUN_", "ASAN_", "UBSAN_", "LD_PRELOAD"))
            },
            **more,
        }

    def run(self, argv, *, env=None, cwd=None, check=False, timeout=60, **options):
        """Run a command as this user: `subprocess.run` with output captured as text unless told otherwise."""
        for key, value in (("stdin", subprocess.DEVNULL), ("capture_output", True), ("text", True)):
            if not (key == "stdin" and "input" in options):
                options.setdefault(key, value)
        environment = self.environ() if env is None else env
        return subprocess.run(
            self.prefix() + reach.translate(argv),
            env=environment,
            cwd=cwd or self.home,
            check=check,
            timeout=timeout,
            **options,
        )

    def popen(self, argv, *, env=None, cwd=None, **options):
        """Start a command as this user."""
        environment = self.environ() if env is None else env
        return subprocess.Popen(
            self.prefix() + reach.translate(argv), env=environment, cwd=cwd or self.home, **options
        )


@contextlib.contextmanager
def _locked():
    os.makedirs(CACHE, exist_ok=True)
    with open(f"{CACHE}/users.edit", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tool(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def _has_subids(name: str) -> bool:
    try:
        with open("/etc/subuid") as file:
            return any(line.startswith(f"{name}:") for line in file)
    except FileNotFoundError:
        return False


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _free_subid() -> int:
    """Return the start of 65,536 ids that no line of /etc/subuid or /etc/subgid reaches, below layerrun's."""
    end = 100000
    for path in ("/etc/subuid", "/etc/subgid"):
        with contextlib.suppress(FileNotFoundError), open(path) as file:
            for line in file:
                fields = line.strip().split(":")
                if len(fields) == 3 and int(fields[1]) < 524288:
                    end = max(end, int(fields[1]) + int(fields[2]))
    return end


def ensure(kind: str) -> User:
    """Return the user of a kind, made first if missing; the user stays at least until `release`."""
    global _shared  # noqa: PLW0603  (one lock for the whole run)
    name = workers.named(kind)
    with _locked():
        if _shared < 0:
            _shared = os.open(f"{CACHE}/users.used", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            fcntl.flock(_shared, fcntl.LOCK_SH)
        try:
            pwd.getpwnam(name)
        except KeyError:
            # A run that was killed may have left the group.
            group = ["-g", name] if _has_group(name) else ["-U"]
            _tool("useradd", "-m", *group, "-s", "/bin/sh", "-c", COMMENT, name)
        user = User(kind)
        if pwd.getpwnam(name).pw_gecos == COMMENT:
            if kind == SINGLE and _has_subids(name):
                _tool("usermod", "--del-subuids", "0-4294967294", "--del-subgids", "0-4294967294", name)
            if kind == PLAIN and not _has_subids(name):
                start = _free_subid()
                ids = f"{start}-{start + 65535}"
                _tool("usermod", "--add-subuids", ids, "--add-subgids", ids, name)
        os.makedirs(user.runtime_dir, mode=0o700, exist_ok=True)
        os.chown(user.runtime_dir, user.uid, user.gid)
        return user


def release() -> None:
    """Give the users up; whoever is the last removes those that the tests made."""
    global _shared  # noqa: PLW0603  (see ensure)
    if _shared < 0:
        return
    with _locked():
        try:
            fcntl.flock(_shared, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass  # another run of the tests still uses them
        else:
            for name in [entry.pw_name for entry in pwd.getpwall() if entry.pw_gecos == COMMENT]:
                # -f: a sweep of the last test may not have ended. The home may hold files of
                # subordinate ids, which userdel refuses to remove.
                subprocess.run(["userdel", "-f", "-r", name], capture_output=True, check=False)
                subprocess.run(["rm", "-rf", f"/home/{name}"], check=False)
        os.close(_shared)
        _shared = -1
