"""Taking turns with tests that run at the same time: one marked ``alone`` has the machine to itself.

All others hold a lock together while they run; who is alone holds it by itself. Before it everybody passes a gate, at
which they wait who find somebody there that wants to be alone: otherwise there would always be one more who is in.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from support import workers
from support.reach import CACHE


@contextlib.contextmanager
def taken(*, alone: bool) -> Iterator[None]:
    """Wait for one's turn, and hold it."""
    if not workers.ID:  # a run within a test too, which has its turn
        yield
        return
    os.makedirs(CACHE, exist_ok=True)
    with open(f"{CACHE}/turns.gate", "a") as gate, open(f"{CACHE}/turns", "a") as turn:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(turn, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield
