"""Working on trees of the store as somebody who may read all of them."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from layerrun.model import Base, IdMode

if TYPE_CHECKING:
    from layerrun.store.store import Store

__all__ = ["as_owner"]


def as_owner(store: Store, bases: Sequence[Base], function: str, *args: Any, fds: Sequence[int]) -> Any:
    """Call ``module:function`` with JSON-able ``args``, in a plain user's store as root of a user namespace.

    Only a root of sorts can read a file of mode 0000, or one of a subordinate id's; ``fds`` are handed to it.
    """
    if not store.rootless:
        module, _, name = function.partition(":")
        return getattr(importlib.import_module(module), name)(*args)
    from layerrun.native.worker import run_in_userns

    if any(base.ids is IdMode.SUBIDS for base in bases):
        return run_in_userns(function, *args, pass_fds=fds)
    own = [(0, os.geteuid(), 1)], [(0, os.getegid(), 1)]
    return run_in_userns(function, *args, uid_map=own[0], gid_map=own[1], pass_fds=fds)
