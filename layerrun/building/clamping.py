"""Making what a step has left the same whenever it is run: times, overlayfs's notes, sockets."""

from __future__ import annotations

import os
import stat

from layerrun.layers import overlay
from layerrun.native import trees
from layerrun.native.trees import open_beneath

__all__ = ["clamp"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY


def clamp(upper_fd: int, trash_fd: int, since_ns: int, epoch: int, *, userxattr: bool) -> None:
    """Give all that was modified at ``since_ns`` or later the time ``epoch`` (seconds), files and folders alike.

    What is older was given its time on purpose, by an archive it comes from. Sockets go to the trash. Of overlayfs's
    own attributes the mark of an opaque folder stays: the others name inodes of this machine.
    """
    mark = overlay.xattr_name("opaque", userxattr=userxattr)
    parent, parent_fd = b"", os.dup(upper_fd)
    folders: list[bytes] = [b""]
    try:
        for number, entry in enumerate(trees.list_tree(upper_fd)):
            above, _, name = entry.path.rpartition(b"/")
            if above != parent:
                os.close(parent_fd)
                parent_fd = -1
                parent, parent_fd = above, open_beneath(upper_fd, above, _FOLDER)
            if stat.S_ISSOCK(entry.mode):
                os.rename(name, b"socket-%d" % number, src_dir_fd=parent_fd, dst_dir_fd=trash_fd)
                continue
            for key in map(os.fsdecode, entry.xattrs):
                if key != mark and overlay.is_private_xattr(key, userxattr=userxattr):
                    os.removexattr(_through(parent_fd, name), key, follow_symlinks=False)
            if stat.S_ISDIR(entry.mode):
                folders.append(entry.path)
            elif entry.mtime_ns >= since_ns:
                os.utime(name, (epoch, epoch), dir_fd=parent_fd, follow_symlinks=False)
    finally:
        if parent_fd >= 0:
            os.close(parent_fd)
    _clamp_folders(upper_fd, folders, since_ns, epoch, userxattr=userxattr)


def _clamp_folders(
    upper_fd: int, folders: list[bytes], since_ns: int, epoch: int, *, userxattr: bool
) -> None:
    """Do it to folders once nothing in them changes any more; the root has overlayfs's notes as well."""
    mark = overlay.xattr_name("opaque", userxattr=userxattr)
    for path in folders:
        fd = open_beneath(upper_fd, path, _FOLDER)
        try:
            if not path:
                for key in os.listxattr(fd):
                    if key != mark and overlay.is_private_xattr(key, userxattr=userxattr):
                        os.removexattr(fd, key)
            if os.fstat(fd).st_mtime_ns >= since_ns:
                os.utime(fd, (epoch, epoch))
        finally:
            os.close(fd)


def _through(parent_fd: int, name: bytes) -> bytes:
    """Return a path to a name in an open folder, for what takes no descriptor of one."""
    return b"/proc/self/fd/%d/%s" % (parent_fd, name)
