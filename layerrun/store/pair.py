"""The data unit of an app: its upper, the work folders that belong to it, and its fresh home.

They are made, exchanged and thrown away together: a work folder never meets another upper.
"""

from __future__ import annotations

import errno
import os
import stat

from layerrun.model import Home
from layerrun.store.fs import DIR_FLAGS, make_dir

__all__ = ["make_data"]

# What an image is filled from; it goes before the unit is in its place.
_SEED = "seed"


def _remove_seed(data: int) -> None:
    from layerrun.native import trees

    trees.remove_tree(data, os.fsencode(_SEED))


def make_data(
    dir_fd: int, name: str, *, home: Home, root: os.stat_result | None, max_size: int | None = None
) -> None:
    """Make an empty data unit ``name`` beneath ``dir_fd``, durably; with ``max_size`` all of it lies in an image.

    The upper's own root gets the mode and the owner of ``root`` (the base's root folder), since an
    overlay shows its upper's; 0755 and the caller's own where that is ``None``.
    """
    make_dir(dir_fd, name, 0o700)
    data = os.open(name, DIR_FLAGS, dir_fd=dir_fd)
    try:
        if max_size is not None:
            from layerrun.native import volumes  # seldom needed

            make_data(data, _SEED, home=home, root=root)
            seed = os.open(_SEED, DIR_FLAGS, dir_fd=data)
            try:
                make_dir(seed, "trash")  # in advance: what is full has no room for it
            finally:
                os.close(seed)
            volumes.make_image(data, max_size, _SEED)
            _remove_seed(data)
            os.fsync(data)
            return
        make_dir(data, "upper", 0o755)
        if root is not None:
            # A plain user cannot give folders away; the owner is then the caller's, who is root inside.
            try:
                os.chown("upper", root.st_uid, root.st_gid, dir_fd=data, follow_symlinks=False)
            except OSError as error:
                # EINVAL: we are in a user namespace that has no id for that owner.
                if error.errno not in (errno.EPERM, errno.EINVAL):
                    raise
            os.chmod("upper", stat.S_IMODE(root.st_mode), dir_fd=data)
        make_dir(data, "work", 0o700)
        if home is Home.FRESH:
            make_dir(data, "home", 0o700)
        os.close(os.open("roots", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=data))
        os.fsync(data)  # with what is new in it
    finally:
        os.close(data)
