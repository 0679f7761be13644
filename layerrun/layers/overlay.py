"""How overlayfs writes things down in an upper: whiteouts, opaque folders and its private attributes.

The store of root has them in ``trusted.overlay.*``, that of a plain user in ``user.overlay.*`` (mount
option ``userxattr``). An attribute of the user's own with such a name is stored escaped, with a
further ``overlay.`` in it. Source: Documentation/filesystems/overlayfs.rst of the kernel.
"""

from __future__ import annotations

import errno
import os
import stat

__all__ = [
    "clear_opaque",
    "copy_metadata",
    "is_opaque",
    "is_private_xattr",
    "is_whiteout",
    "make_whiteout",
    "set_opaque",
    "xattr_name",
]


def xattr_name(key: str, *, userxattr: bool) -> str:
    """Return the full name of a private attribute, as ``trusted.overlay.opaque`` for ``opaque``."""
    return f"{'user' if userxattr else 'trusted'}.overlay.{key}"


def is_private_xattr(name: str, *, userxattr: bool) -> bool:
    """Say whether an attribute in an upper is overlayfs's own (and not the user's, escaped)."""
    prefix = xattr_name("", userxattr=userxattr)
    return name.startswith(prefix) and not name.startswith(prefix + "overlay.")


def is_whiteout(status: os.stat_result) -> bool:
    """Say whether an entry hides what lies beneath its name: a character device 0:0."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def make_whiteout(dir_fd: int, name: str) -> None:
    """Hide what lies beneath a name. Any user may make this one device node (Linux 5.8)."""
    os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=dir_fd)


def is_opaque(fd: int, *, userxattr: bool) -> bool:
    """Say whether an open folder (not ``O_PATH``) hides all that lies beneath it."""
    try:
        return os.getxattr(fd, xattr_name("opaque", userxattr=userxattr)) == b"y"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def set_opaque(fd: int, *, userxattr: bool) -> None:
    """Let an open folder hide all that lies beneath it."""
    os.setxattr(fd, xattr_name("opaque", userxattr=userxattr), b"y")


def clear_opaque(fd: int, *, userxattr: bool) -> None:
    """Let what lies beneath an open folder show through again."""
    try:
        os.removexattr(fd, xattr_name("opaque", userxattr=userxattr))
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise


def copy_metadata(source: int, target: int, *, userxattr: bool) -> None:
    """Give an open folder the owner, the mode and the attributes of another, overlayfs's own left out."""
    status = os.fstat(source)
    if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
        try:
            os.fchown(target, status.st_uid, status.st_gid)
        except OSError as error:
            # A plain user cannot give folders away; inside they were never anybody else's.
            if not userxattr or error.errno not in (errno.EPERM, errno.EINVAL):
                raise
    os.fchmod(target, stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source):
        if not is_private_xattr(name, userxattr=userxattr):
            os.setxattr(target, name, os.getxattr(source, name))
