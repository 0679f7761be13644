"""Copying one entry of a layer that is no folder: content with its holes, owner, mode, attributes, times."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from layerrun.layers import overlay

__all__ = ["copy_entry"]

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CLONE = 0x40049409  # FICLONE, ioctl_ficlone(2)
_MOST = 1 << 26


def copy_entry(source: int, target: int, name: bytes, *, userxattr: bool) -> os.stat_result:
    """Copy ``name`` from one open folder to another; return the status of the one that was copied.

    Overlayfs's own attributes of that flavour are left out. Raises `OSError`: ESTALE if it changes meanwhile.
    """
    info = os.stat(name, dir_fd=source, follow_symlinks=False)
    kind = stat.S_IFMT(info.st_mode)
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif kind == stat.S_IFREG:
        _copy_file(source, target, name, info)
    else:  # a socket, a fifo or a device, which is never opened
        os.mknod(name, kind | 0o600, info.st_rdev, dir_fd=target)
    _copy_metadata(source, target, name, info, userxattr=userxattr)
    return info


def _copy_file(source: int, target: int, name: bytes, info: os.stat_result) -> None:
    old = os.open(name, _READ, dir_fd=source)
    try:
        if not os.path.samestat(os.fstat(old), info):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), name)
        new = os.open(name, _MAKE, 0o600, dir_fd=target)
        try:
            _copy_content(old, new, info.st_size)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _copy_content(old: int, new: int, size: int) -> None:
    import fcntl

    if size == 0:
        return
    with suppress(OSError):
        fcntl.ioctl(new, _CLONE, old)
        return
    at = 0
    while at < size:
        try:
            at = os.lseek(old, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # only a hole is left
        end = min(os.lseek(old, at, os.SEEK_HOLE), size)
        while at < end:
            os.lseek(new, at, os.SEEK_SET)
            done = os.sendfile(new, old, at, min(end - at, _MOST))
            if done == 0:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            at += done
    os.ftruncate(new, size)


def _copy_metadata(source: int, target: int, name: bytes, info: os.stat_result, *, userxattr: bool) -> None:
    """Owner before mode and attributes, since chown(2) takes setuid and capabilities away; times last."""
    try:
        os.chown(name, info.st_uid, info.st_gid, dir_fd=target, follow_symlinks=False)
    except OSError as error:
        # A plain user cannot give files away; inside they were never anybody else's.
        if not userxattr or error.errno not in (errno.EPERM, errno.EINVAL):
            raise
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(name, stat.S_IMODE(info.st_mode), dir_fd=target)
    old, new = (b"/proc/self/fd/%d/%s" % (fd, name) for fd in (source, target))
    for key in os.listxattr(old, follow_symlinks=False):
        if not overlay.is_private_xattr(key, userxattr=userxattr):
            os.setxattr(new, key, os.getxattr(old, key, follow_symlinks=False), follow_symlinks=False)
    os.utime(name, ns=(info.st_atime_ns, info.st_mtime_ns), dir_fd=target, follow_symlinks=False)
