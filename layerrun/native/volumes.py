"""Images that hold an app's data in a fixed size, as root: mke2fs(8), csrc/volume.c, docs/limits.md."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from layerrun.errors import LayerrunError, StoreError, SystemError
from layerrun.native import ffi, lib, new_error, raise_error

__all__ = ["IMAGE", "grow_image", "make_image", "open_image", "open_lower_image", "room"]

IMAGE = "image"
_TOOLS = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"


def open_image(dir_fd: int, name: str = IMAGE) -> int:
    """Mount an image for this process alone and return its root folder; the mount goes with the last descriptor in it.

    Whoever has the same image mounted, a running app too, shares its loop device and its file system.
    """
    return _root_of(lib.lr_image_open, dir_fd, name)


def open_lower_image(dir_fd: int, name: str) -> int:
    """Mount an erofs or squashfs image, read-only, for this process alone and return its root folder, as root.

    Raises `layerrun.errors.SystemError`; with EINVAL if it is neither.
    """
    return _root_of(lib.lr_image_lower, dir_fd, name)


def _root_of(mounted: Callable[..., int], dir_fd: int, name: str) -> int:
    err = new_error()
    mount = mounted(dir_fd, ffi.new("char[]", os.fsencode(name)), err)
    if mount < 0:
        raise_error(err)
    try:
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=mount)
    finally:
        os.close(mount)


def _run(tool: str, *words: str, fds: tuple[int, ...], fine: tuple[int, ...] = (0,)) -> None:
    import subprocess

    try:
        done = subprocess.run(
            [tool, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=fds,
            env={"PATH": _TOOLS, "LC_ALL": "C", "MKE2FS_CONFIG": "/dev/null"},
            cwd="/",
            check=False,
        )
    except FileNotFoundError:
        raise StoreError(
            f"{tool} is not there, and data of a fixed size needs it", hint="install e2fsprogs"
        ) from None
    if done.returncode not in fine:
        said = done.stderr.decode("utf-8", "replace").strip()
        if "No space left" in said:  # which mke2fs(8) tells in words alone
            raise SystemError(
                f"{tool} failed: {os.strerror(errno.ENOSPC)}",
                errno=errno.ENOSPC,
                hint="free some space, or put the store elsewhere with LAYERRUN_STORE",
            )
        raise StoreError(f"{tool} failed with status {done.returncode}: {said}")


def make_image(dir_fd: int, size: int, seed: str) -> None:
    """Make a sparse image of ``size`` bytes in a folder, with what is in its folder ``seed`` in it, durably."""
    fd = os.open(
        IMAGE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd
    )
    source = os.open(seed, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        os.ftruncate(fd, size)
        # Everything is said, since distributions differ. A hole reads as zeros: no table needs to be written.
        _run(
            "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "8192", "-m", "0",
            "-O", "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,"
            "large_file,huge_file,dir_nlink,extra_isize,metadata_csum,uninit_bg",
            "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0",
            "-d", f"/proc/self/fd/{source}", f"/proc/self/fd/{fd}", fds=(fd, source),
        )  # fmt: skip
        os.fsync(fd)
    finally:
        os.close(source)
        os.close(fd)


def grow_image(dir_fd: int, size: int) -> None:
    """Make an image that nobody has mounted larger. The caller holds the app's lock."""
    import fcntl
    import time

    fd = os.open(IMAGE, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        for turn in range(100):  # a loop device goes a moment after its last user
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if turn == 99:
                    raise LayerrunError("somebody looks at the data just now", hint="try again") from None
                time.sleep(0.05)
        os.ftruncate(fd, size)
        path = f"/proc/self/fd/{fd}"
        _run("e2fsck", "-f", "-p", path, fds=(fd,), fine=(0, 1))
        _run("resize2fs", path, fds=(fd,))
        os.fsync(fd)
    finally:
        os.close(fd)


def room(data_fd: int) -> tuple[int, int]:
    """Return the bytes that are used of a mounted image, its own bookkeeping included, and those that are left."""
    info = os.fstatvfs(data_fd)
    return (info.f_blocks - info.f_bfree) * info.f_frsize, info.f_bavail * info.f_frsize
