"""Reading what a stack of layers shows at a path: content, target, attributes; never through a link, never waiting."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from layerrun import errors
from layerrun.layers.delta import Stat
from layerrun.layers.overlay import is_private_xattr
from layerrun.layers.text import LARGEST
from layerrun.native.trees import open_beneath

__all__ = ["Reader"]

_ESCAPED = "overlay.overlay."


class Reader:
    """Reads from open layers.

    Args:
        layers: `layerrun.layers.between.Stacks.all`.
        userxattr: the flavour of overlayfs's attributes.
        cross_mounts: the last layer may have mounts in it.
    """

    def __init__(self, layers: Sequence[int], *, userxattr: bool, cross_mounts: bool) -> None:
        self._layers = layers
        self._userxattr = userxattr
        self._cross = cross_mounts

    def content(self, layer: int, path: bytes, seen: Stat, *, most: int = LARGEST) -> bytes | None:
        """Return what is in a regular file or the target of a link; ``None``: too large, or not to be read.

        Raises:
            layerrun.errors.SystemError: ESTALE if there is something else by now than what was seen.
        """
        if not stat.S_ISLNK(seen.mode) and (not seen.is_file or seen.size > most):
            return None
        fd = self._open(layer, path, seen)
        try:
            if stat.S_ISLNK(seen.mode):
                return os.readlink(b"", dir_fd=fd)
            # The one who was seen is opened, whatever has the name by now.
            file = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except PermissionError:
            return None
        finally:
            os.close(fd)
        with open(file, "rb", buffering=0) as opened:
            parts, left = [], most + 1
            while left and (part := opened.read(min(left, 1 << 20))):
                parts.append(part)
                left -= len(part)
        return b"".join(parts) if left else None

    def xattrs(self, layer: int, path: bytes, seen: Stat) -> dict[str, bytes]:
        """Return the user's own extended attributes, by the names that are seen inside."""
        fd = self._open(layer, path, seen)
        try:
            # By way of /proc, for nothing but a file or a folder can be opened without something happening.
            at = f"/proc/self/fd/{fd}"
            found = {}
            for key in os.listxattr(at):
                if not is_private_xattr(key, userxattr=self._userxattr):
                    found[self._unescaped(key)] = os.getxattr(at, key)
            return found
        finally:
            os.close(fd)

    def _unescaped(self, key: str) -> str:
        prefix = ("user." if self._userxattr else "trusted.") + _ESCAPED
        return key.replace(_ESCAPED, "overlay.", 1) if key.startswith(prefix) else key

    def _open(self, layer: int, path: bytes, seen: Stat) -> int:
        cross = self._cross and layer == len(self._layers) - 1
        fd = open_beneath(self._layers[layer], path, os.O_PATH, cross_mounts=cross)
        now = os.fstat(fd)
        if (now.st_ino, now.st_dev, stat.S_IFMT(now.st_mode)) == (seen.ino, seen.dev, stat.S_IFMT(seen.mode)):
            return fd
        os.close(fd)
        shown = os.fsdecode(b"/" + path)
        raise errors.SystemError(f"{shown} was replaced while it was read", errno=116, path=shown)  # ESTALE
