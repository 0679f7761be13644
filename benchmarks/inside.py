"""The start of an app without the start of Python: a process that is told to start it and says how long it took.

usage: inside.py NAME TELL SAY

Reads one byte from the descriptor TELL for each start; writes the nanoseconds of the whole start (lock, plan,
C core) and those of the C core alone to SAY.
"""

from __future__ import annotations

import os
import sys
import time

from layerrun.runtime import launch
from layerrun.store.store import Store


def main() -> None:
    """Serve until TELL is closed."""
    name, tell, say = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    core = 0
    run_plan = launch.run_plan

    def timed(*args, **options):
        nonlocal core
        begin = time.perf_counter_ns()
        try:
            return run_plan(*args, **options)
        finally:
            core = time.perf_counter_ns() - begin

    launch.run_plan = timed
    with Store.open() as store:
        app = store.app(name)
        while os.read(tell, 1):
            begin = time.perf_counter_ns()
            status = launch.run(store, app, ["true"])
            took = time.perf_counter_ns() - begin
            os.write(say, f"{status} {took} {core}\n".encode())


if __name__ == "__main__":
    main()
