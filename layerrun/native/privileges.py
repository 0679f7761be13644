"""What our own helper processes give up, by prctl(2). `layerrun.native.worker` alone needs this.

python-prctl is imported when it is needed: no start of an app waits for it.
"""

from __future__ import annotations

import os
import signal

__all__ = ["confine"]


def confine(parent: int | None) -> None:
    """Gain no new privileges from here on and, where ``parent`` is given, end when that process ends.

    To be called after the ids have changed for the last time, which would undo it. Ends the process at
    once if the parent is gone already.
    """
    import prctl

    prctl.set_no_new_privs(True)
    if parent is not None:
        prctl.set_pdeathsig(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
