"""Skeletons: small trees of empty mount points, kept in the store by the digest of what they hold.

An overlay's lowest lower is the place for a mount point that the base lacks: put into the upper it
would be a change that nobody made. Without root a skeleton also stands in for a folder of the host
that has mounts beneath it, which the kernel does not take as a lower (locked mounts, mount_namespaces(7)).
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["Skeleton"]


@attrs.define
class Skeleton:
    """Entries by absolute path: a folder with its mode, an empty file, or a link with its text."""

    entries: dict[str, tuple[str, str]] = attrs.field(factory=dict)

    def folder(self, path: str, mode: int = 0o755) -> None:
        """Add a folder and those above it that are not there yet."""
        parent = os.path.dirname(path)
        if path != "/" and parent != "/" and parent not in self.entries:
            self.folder(parent)
        if path != "/":
            self.entries[path] = ("dir", f"{mode:o}")

    def file(self, path: str) -> None:
        """Add an empty file to mount another on."""
        self._parent(path)
        self.entries[path] = ("file", "444")

    def link(self, path: str, text: str) -> None:
        """Add a symbolic link."""
        self._parent(path)
        self.entries[path] = ("link", text)

    def _parent(self, path: str) -> None:
        parent = os.path.dirname(path)
        if parent != "/" and parent not in self.entries:
            self.folder(parent)

    def store(self, store: Store, *, make: bool) -> str:
        """Return the tree's path in the store; with ``make`` it is there afterwards."""
        listing = json.dumps(sorted(self.entries.items()))
        name = hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()
        path = os.path.join(store.path, "skeletons", name)
        if not make or os.path.isdir(path):
            return path
        with store.ticket() as ticket:
            os.mkdir("skeleton", 0o755, dir_fd=ticket.fd)
            self._make(f"/proc/self/fd/{ticket.fd}/skeleton")
            try:
                os.rename("skeleton", path, src_dir_fd=ticket.fd)
            except OSError:
                # Somebody else made the same one; a rename onto a full folder fails.
                if not os.path.isdir(path):
                    raise
        return path

    def _make(self, top: str) -> None:
        modes = []
        for path, (kind, text) in sorted(self.entries.items(), key=lambda entry: entry[0].split("/")):
            if kind == "dir":
                os.mkdir(top + path, 0o755)
                modes.append((top + path, int(text, 8)))
            elif kind == "file":
                os.close(os.open(top + path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o444))
            else:
                os.symlink(text, top + path)
        # Last and deepest first: a folder that we may not write could not have been filled.
        for path, mode in reversed(modes):
            os.chmod(path, mode)
