"""What is mounted where, proc_pid_mountinfo(5), and what becomes of each kind of file system inside."""

from __future__ import annotations

import os
import re

import attrs

from layerrun.runtime.plan import Policy

__all__ = ["Mount", "classify", "mount_points", "parse", "visible_mounts"]

# Made by the kernel for the machine as a whole; a sandbox has its own or none.
PSEUDO = frozenset(
    "autofs binder binfmt_misc bpf cgroup cgroup2 configfs debugfs devpts devtmpfs efivarfs fusectl "
    "hugetlbfs mqueue nfsd nsfs proc pstore resctrl rpc_pipefs securityfs selinuxfs smackfs sysfs tracefs".split()
)
# Known to serve as a lower of an overlay. Others (vfat folds case, network file systems revalidate and
# may hang) are shown as they are, read-only.
LOWERS = frozenset(
    "bcachefs btrfs erofs ext2 ext3 ext4 f2fs iso9660 jfs nilfs2 overlay ramfs reiserfs squashfs tmpfs udf "
    "xfs zfs".split()
)


@attrs.frozen
class Mount:
    """A line of mountinfo: where, of which type, and whether what is mounted is a folder."""

    id: int
    parent: int
    path: str
    fstype: str
    source: str
    is_dir: bool = True


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), text)


def parse(text: str) -> list[Mount]:
    """Return the mounts of a mountinfo text, in its order. Paths are decoded as os.fsdecode does."""
    mounts = []
    # Not splitlines(): a path may hold what Unicode takes for the end of a line.
    for line in filter(None, text.split("\n")):
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        mounts.append(
            Mount(
                id=int(fields[0]),
                parent=int(fields[1]),
                path=_unescape(fields[4]),
                fstype=rest[0],
                source=_unescape(rest[1]) if len(rest) > 1 else "",
            )
        )
    return mounts


def _mount_id(path: str) -> tuple[int, bool] | None:
    """Return the id of the mount at ``path`` and whether it is a folder.

    O_PATH and fdinfo ask nothing of the file system, so a dead FUSE or NFS server cannot hang this.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as info:
            found = re.search(r"^mnt_id:\s*(\d+)", info.read(), re.MULTILINE)
        try:
            probe = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except NotADirectoryError:
            return int(found[1]) if found else -1, False
        os.close(probe)
        return int(found[1]) if found else -1, True
    finally:
        os.close(fd)


def _mountinfo() -> list[Mount]:
    with open("/proc/self/mountinfo", "rb") as file:
        return parse(os.fsdecode(file.read()))


def mount_points() -> list[str]:
    """Return where anything is mounted, in reach or not: the kernel counts those out of reach too."""
    return sorted({mount.path for mount in _mountinfo()})


def visible_mounts() -> list[Mount]:
    """Return the mounts that can be reached by their paths, parents before children.

    What another mount covers, or what lies in a folder that the caller may not enter, is left out.
    """
    found = []
    for mount in _mountinfo():
        seen = _mount_id(mount.path)
        if seen is not None and seen[0] == mount.id:
            found.append(attrs.evolve(mount, is_dir=seen[1]))
    return sorted(found, key=lambda mount: mount.path.split("/") if mount.path != "/" else [""])


def classify(mount: Mount) -> tuple[Policy, str]:
    """Return what becomes of a mount below the base, and why."""
    if mount.fstype in PSEUDO:
        return Policy.HIDDEN, f"{mount.fstype} belongs to the machine"
    if not mount.is_dir:
        return Policy.READ_ONLY, "a single file is mounted here"
    if mount.fstype in LOWERS:
        return Policy.OVERLAID, "a file system of its own, overlaid like the rest"
    return Policy.READ_ONLY, f"{mount.fstype} cannot lie under an overlay"
