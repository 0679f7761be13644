"""What this machine can do, found by doing it.

Each probe returns nothing, or raises with the reason why not. A test asks by marker (``pytest.mark.idmap``)
or through a fixture; with ``LAYERRUN_MUST_WORK=1`` a missing ability fails it, so that green never means
skipped.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable

import pytest

from support import debian, reach
from support.users import PLAIN, User, ensure

MUST_WORK = os.environ.get("LAYERRUN_MUST_WORK") == "1"

# Numbers of x86-64 and aarch64 alike (they are newer than the unified table).
SYS_OPEN_TREE = 428
SYS_MOUNT_SETATTR = 442
AT_EMPTY_PATH = 0x1000
OPEN_TREE_CLONE = 1
MOUNT_ATTR_IDMAP = 0x00100000


def _sh(script: str, *, user: User | None = None, timeout: float = 30) -> str:
    argv = ["sh", "-euc", script]
    done = subprocess.run(
        (user.prefix() if user else []) + argv,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise OSError(lines[-1])
    return done.stdout


def _root() -> None:
    if os.geteuid() != 0:
        raise OSError("not root")
    folder = tempfile.mkdtemp(dir="/var/tmp", prefix="layerrun-probe-")
    try:
        _sh(
            f"cd {folder}; mkdir l u w m; unshare -m mount -t overlay overlay "
            f"-o lowerdir=l,upperdir=u,workdir=w,index=off m"
        )
    finally:
        shutil.rmtree(folder)


def _rootless() -> None:
    if os.geteuid() != 0:
        raise OSError("only root can make the plain users these tests need")
    user = ensure(PLAIN)
    folder = tempfile.mkdtemp(dir="/var/tmp", prefix="layerrun-probe-")
    os.chown(folder, user.uid, user.gid)
    try:
        _sh(
            f"cd {folder}; mkdir l u w m; unshare -Urm mount -t overlay overlay "
            f"-o lowerdir=l,upperdir=u,workdir=w,userxattr m",
            user=user,
        )
    finally:
        shutil.rmtree(folder)


def _subids() -> None:
    _rootless()
    lines = _sh(
        "unshare -U --map-auto --map-root-user cat /proc/self/uid_map", user=ensure(PLAIN)
    ).splitlines()
    if len(lines) < 2:
        raise OSError("newuidmap mapped one id only")


def _idmap() -> None:
    """Clone a mount of the stores' file system and give the copy an id map."""
    if os.geteuid() != 0:
        raise OSError("not root")
    libc = ctypes.CDLL(None, use_errno=True)
    holder = subprocess.Popen(["unshare", "-U", "sleep", "60"], stdin=subprocess.DEVNULL)
    tree = userns = -1
    try:
        for _ in range(2000):
            if os.readlink(f"/proc/{holder.pid}/ns/user") != os.readlink("/proc/self/ns/user"):
                break
        with open(f"/proc/{holder.pid}/uid_map", "w") as file:
            file.write("0 524288 65536")
        with open(f"/proc/{holder.pid}/gid_map", "w") as file:
            file.write("0 524288 65536")
        userns = os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        tree = libc.syscall(SYS_OPEN_TREE, -100, b"/var/tmp", OPEN_TREE_CLONE | os.O_CLOEXEC)
        if tree < 0:
            raise OSError(ctypes.get_errno(), "open_tree")
        attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_IDMAP, 0, 0, userns)
        if (
            libc.syscall(SYS_MOUNT_SETATTR, tree, b"", AT_EMPTY_PATH, attributes, ctypes.sizeof(attributes))
            < 0
        ):
            raise OSError(ctypes.get_errno(), "mount_setattr on /var/tmp")
    finally:
        for fd in (tree, userns):
            if fd >= 0:
                os.close(fd)
        holder.kill()
        holder.wait()


def _compile(*flags: str) -> None:
    with tempfile.TemporaryDirectory(prefix="layerrun-probe-") as folder:
        source = os.path.join(folder, "probe.c")
        with open(source, "w") as file:
            file.write("int main(void) { return 0; }\n")
        _sh(f"cc {' '.join(flags)} -o {folder}/probe {source} && {folder}/probe")


def _fuzzer() -> None:
    with tempfile.TemporaryDirectory(prefix="layerrun-probe-") as folder:
        source = os.path.join(folder, "probe.c")
        with open(source, "w") as file:
            file.write("int LLVMFuzzerTestOneInput(const char *bytes, unsigned long size) { return 0; }\n")
        _sh(f"cd {folder} && clang -fsanitize=fuzzer,address,undefined -o probe {source} && ./probe -runs=1")


def _network() -> None:
    request = urllib.request.Request(debian.MIRROR + "/dists/bookworm/InRelease", method="HEAD")
    with urllib.request.urlopen(request, timeout=20):
        pass


def _debian() -> None:
    if os.geteuid() != 0:
        raise OSError("only root can make a Debian tree with its owners")
    if debian.cached():
        return
    if not shutil.which("mmdebstrap"):
        raise OSError("mmdebstrap is not installed")
    reason = why_not("network")
    if reason:
        raise OSError(reason)


def _reachable() -> None:
    """A plain user can start Python and import layerrun."""
    reach.settle(ensure(PLAIN).prefix())


def _cuttable() -> None:
    """A file system in an image can be mounted and shut down as if the power went."""
    from support import power

    folder = tempfile.mkdtemp(dir="/var/tmp", prefix="layerrun-probe-")
    try:
        _sh(f"unshare -m {sys.executable} {power.__file__} {folder}")
    finally:
        shutil.rmtree(folder)


def _cgroup2() -> None:
    from layerrun.native import cgroups

    if cgroups.mount_point() is None:
        raise OSError("no cgroup2 hierarchy that can be written to")


def _x86_64() -> None:
    if os.uname().machine != "x86_64":
        raise OSError(f"this machine is {os.uname().machine}")


def _vfat() -> None:
    with open("/proc/filesystems") as file:
        if "\tvfat\n" not in file.read():
            raise OSError("this kernel has none, or has not loaded it")


def _program(name: str) -> Callable[[], None]:
    def look() -> None:
        if not shutil.which(name):
            raise OSError(f"{name} is not installed")

    return look


PROBES = {
    "root": _root,
    "rootless": _rootless,
    "subids": _subids,
    "idmap": _idmap,
    "compiler": _compile,
    "sanitizers": lambda: _compile("-fsanitize=address,undefined"),
    "fuzzer": _fuzzer,
    "network": _network,
    "cuttable": _cuttable,
    "debian": _debian,
    "reachable": _reachable,
    "cgroup2": _cgroup2,
    "x86-64": _x86_64,
    "vfat": _vfat,
    "groff": _program("groff"),
    "systemd-notify": _program("systemd-notify"),
}


@functools.cache
def why_not(ability: str) -> str | None:
    """Return why the machine lacks the ability, or ``None`` if it has it."""
    try:
        PROBES[ability]()
    except (OSError, subprocess.SubprocessError, KeyError) as error:
        return f"{ability}: {error}"
    return None


def need(ability: str) -> None:
    """Skip the running test if the machine lacks the ability; fail it where everything must work."""
    reason = why_not(ability)
    if reason is None:
        return
    if MUST_WORK:
        pytest.fail(f"LAYERRUN_MUST_WORK=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def report() -> list[str]:
    """Return the lines that say what this machine can do."""
    able = [name for name in PROBES if why_not(name) is None]
    lines = [f"layerrun can test here: {' '.join(able)}"]
    lines += [f"layerrun cannot test here: {reason}" for name in PROBES if (reason := why_not(name))]
    return lines
