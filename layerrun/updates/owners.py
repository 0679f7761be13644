"""Working on trees of the store as somebody who may read all of them."""

from __future__ import annotations

import importlib
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

    own = all(base.ids is not IdMode.SUBIDS for base in bases)
    return run_in_userns(function, *args, own=own, pass_fds=fds)
