"""Root file systems in folders, as a source of bases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from layerrun.images.stream import Feed
from layerrun.model import IdMode
from layerrun.native.subids import subids

__all__ = ["FolderSource"]


@attrs.frozen
class FolderSource:
    """A root file system in a folder, whose owner vouches for it; ``fd`` is open for as long as it is used."""

    fd: int
    text: str
    vouched: bool = True

    def ids(self, *, rootless: bool) -> IdMode:
        """Choose whose ids the copy keeps: all (root), the caller's and its subordinate ones, or none.

        Subordinate ids serve where the tree's root folder belongs to one of them or to the caller; a tree
        whose owners the caller cannot map (root's own) would have them all as nobody.
        """
        if not rootless:
            return IdMode.RANGE
        found = subids()
        owner = os.fstat(self.fd).st_uid
        if found is not None and (owner == os.geteuid() or found[0] <= owner < found[0] + found[2]):
            return IdMode.SUBIDS
        return IdMode.SINGLE

    def feed(self, to: Feed) -> Mapping[str, Any]:
        """Write the tree; a folder says nothing of itself."""
        from layerrun.native.intake import emit_tree

        own = os.fstat(self.fd).st_uid == os.geteuid()
        if to.mapped or (to.ids is IdMode.SINGLE and not own):
            emit_tree(self.fd, to.out)
            return {}
        from layerrun.native.worker import run_in_userns

        # Also where all is the caller's own: only a root of sorts can read a folder of mode 0000.
        run_in_userns(
            f"{__name__}:emit_here",
            self.fd,
            to.out,
            uid_map=to.uid_map,
            gid_map=to.gid_map,
            pass_fds=(self.fd, to.out),
        )
        return {}


def emit_here(fd: int, out: int) -> None:
    """Write a tree as a stream, as the worker calls it."""
    from layerrun.native.intake import emit_tree

    emit_tree(fd, out)
