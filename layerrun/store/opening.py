"""Finding out whether a folder may be used as a store, and making a new one.

A store holds setuid files with their plain owners, so what keeps other users of the machine from
running them is that its root is 0700 and ours: anything else is refused, never repaired silently.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress

from layerrun.errors import StoreError
from layerrun.store.catalog import Catalog
from layerrun.store.fs import DIR_FLAGS, explain, fsync_dir, make_dir, present, read_text, write_file
from layerrun.store.locks import lock_file

__all__ = ["FOLDERS", "FORMAT", "open_root"]

FORMAT = "layerrun-store 1\n"
FOLDERS = ("apps", "bases", "commits", "kept", "layers", "objects", "skeletons", "staging", "trash")
_KNOWN = {
    *FOLDERS,
    "blobs",
    "plans",
    "records",
    "reserve",
    "store.lock",
    *("catalog.db" + end for end in ("", "-journal", "-wal", "-shm")),
}

# overlayfs takes no upper on these, or SQLite's locks and shared memory do not hold on them.
_UNFIT = {"overlay", "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "vfat", "exfat", "msdos", "ntfs3", "aufs"}


def open_root(path: str, *, create: bool) -> tuple[str, int]:
    """Open the store at ``path``, making it if it is not there; return its real path and a descriptor.

    Raises `StoreError` when the folder is not a store that this user may use.
    """
    made = False
    with explain("open the store", path):
        try:
            fd = os.open(path, DIR_FLAGS & ~os.O_NOFOLLOW)
        except FileNotFoundError:
            if not create:
                raise StoreError(
                    f"there is no store at {path!r}", hint="`layerrun create NAME` makes one"
                ) from None
            made = _make_root(path)
            fd = os.open(path, DIR_FLAGS & ~os.O_NOFOLLOW)
        except NotADirectoryError:
            raise StoreError(f"the store {path!r} is not a directory") from None
    try:
        real = os.path.realpath(path)
        _check(path, fd)
        if not os.path.samestat(os.stat(real), os.fstat(fd)):
            raise StoreError(
                f"the store {path!r} became another folder while it was opened", hint="try again"
            )
        text = read_text(fd, "format")
        if text is None:
            with explain("make the store", path):
                text = _initialise(real, fd, new=made)
        _check_format(path, text)
    except BaseException:
        os.close(fd)
        raise
    return real, fd


def _make_root(path: str) -> bool:
    parent = os.path.dirname(path)
    os.makedirs(parent, mode=0o755, exist_ok=True)
    parent_fd = os.open(parent, DIR_FLAGS & ~os.O_NOFOLLOW)
    try:
        make_dir(parent_fd, os.path.basename(path), 0o700)
        os.fsync(parent_fd)
    except FileExistsError:
        return False
    finally:
        os.close(parent_fd)
    return True


def _check(path: str, fd: int) -> None:
    status = os.fstat(fd)
    inside = os.environ.get("LAYERRUN_APP")
    if inside and file_system(fd) == "tmpfs" and stat.S_IMODE(status.st_mode) == 0o555:
        raise StoreError(
            f"the store {path!r} is hidden: this is inside the app {inside!r}",
            hint="layerrun does not nest; run it outside",
        )
    if status.st_uid != os.geteuid():
        raise StoreError(
            f"the store {path!r} belongs to uid {status.st_uid}, not to you (uid {os.geteuid()})",
            hint="name a store of your own with LAYERRUN_STORE or --store",
        )
    if stat.S_IMODE(status.st_mode) & 0o777 != 0o700:
        raise StoreError(
            f"the store {path!r} has mode {stat.S_IMODE(status.st_mode):04o}, and it must be 0700",
            # Never for a folder that is no store: `chmod 700 /etc` is no advice.
            hint=f"chmod 700 {path}  (it holds files that other users must not be able to run)"
            if present(fd, "format")
            else "name another folder with LAYERRUN_STORE or --store: this one is not a store",
        )
    kind = file_system(fd)
    if kind is not None and (kind in _UNFIT or kind.startswith("fuse")):
        raise StoreError(
            f"the store {path!r} is on {kind}, which cannot carry overlayfs uppers or the catalog",
            hint="put it on a local file system (ext4, xfs, btrfs, tmpfs; in a container: a volume)"
            " with LAYERRUN_STORE or --store",
        )


def file_system(fd: int) -> str | None:
    """Return the type of the file system that ``fd`` lies on (proc_pid_mountinfo(5)), if it can be told."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as file:
            wanted = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
        with open("/proc/self/mountinfo", "rb") as file:
            for line in file:
                if line.split(None, 1)[0] == wanted.encode():
                    return line.rpartition(b" - ")[2].split()[0].decode("ascii", "replace")
    except (OSError, StopIteration, IndexError):
        pass
    return None


def _initialise(path: str, fd: int, *, new: bool) -> str | None:
    """Make what a store consists of; ``format`` comes last and says that all the rest is there."""
    if not lock_file(fd, exclusive=True, wait=10.0):
        raise StoreError(f"another process is making the store {path!r} and does not end")
    try:
        text = read_text(fd, "format")
        if text is not None:
            return text
        if not new and _is_foreign(fd):
            return None
        # A default ACL of the folder around it would go on to everything inside: to uppers and to bases.
        for acl in ("system.posix_acl_default", "system.posix_acl_access"):
            with suppress(OSError):
                os.removexattr(fd, acl)
        for name in FOLDERS:
            if not present(fd, name):
                make_dir(fd, name, 0o700)
        os.close(
            os.open("store.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd)
        )
        Catalog.create(os.path.join(path, "catalog.db"))
        fsync_dir(fd)
        write_file(fd, "format", FORMAT)
        fsync_dir(fd)
        return FORMAT
    finally:
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_UN)


def _is_foreign(fd: int) -> bool:
    """Say whether a folder without a format file holds anything but what a making cut short leaves."""
    if any(name not in _KNOWN and not name.startswith(".format.") for name in os.listdir(fd)):
        return True
    for name in ("apps", "bases"):
        if present(fd, name):
            deeper = os.open(name, DIR_FLAGS, dir_fd=fd)
            try:
                if os.listdir(deeper):
                    return True
            finally:
                os.close(deeper)
    return False


def _check_format(path: str, text: str | None) -> None:
    if text == FORMAT:
        return
    if text is None:
        raise StoreError(
            f"{path!r} is not a store of layerrun, and not empty",
            hint="name another folder with LAYERRUN_STORE or --store",
        )
    if text.startswith("layerrun-store "):
        raise StoreError(
            f"the store {path!r} has format {text.split()[1]!r}, and this layerrun knows {FORMAT.split()[1]!r}",
            hint="a newer layerrun made it: use that one",
        )
    raise StoreError(f"the store {path!r} has an unreadable format file {text[:40]!r}")
