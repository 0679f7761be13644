"""How long `true` takes in an app when a Python program starts it: `App.run` beside the front door's own time.

One Python process does it all, in turns: `app.run`, subprocess.run of the front door with the same words, and
posix_spawn of it, which is as little as can be. Medians, and the ratio to the front door alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "tests")]

import arena  # noqa: E402  (found through the lines above)
from support import sandbox  # noqa: E402

import layerrun  # noqa: E402


def contestants(store: str, door: str):
    """Return what is timed: names and functions. The first is what the others are compared with."""
    app = layerrun.Store(store).app("bench")
    words = [door, "app", "bench", "--", "true"]
    loop = asyncio.new_event_loop()

    def spawn():
        pid = os.posix_spawn(door, words, os.environ)
        assert os.waitpid(pid, 0)[1] == 0

    def popen():
        with app.popen(["true"]) as process:
            pass
        assert process.returncode == 0

    return {
        "app.run": lambda: app.run(["true"], check=True),
        "front door by posix_spawn": spawn,
        "front door by subprocess.run": lambda: subprocess.run(words, check=True),
        "app.run, output captured": lambda: app.run(["true"], check=True, capture_output=True),
        "front door, output captured": lambda: subprocess.run(words, check=True, capture_output=True),
        "app.popen and wait": popen,
        "app.run_async": lambda: loop.run_until_complete(app.run_async(["true"], check=True)),
        "true by subprocess.run": lambda: subprocess.run(["/bin/true"], check=True),
    }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--json", metavar="FILE", help="write the JSON document there instead of printing it")
    options = parser.parse_args()
    arena.enter()
    door = os.path.join(os.path.dirname(sys.executable), "layerrun")
    with arena.filesystem() as where:
        store = os.environ["LAYERRUN_STORE"] = f"{where}/store"
        arena.run(door, "base", "import", "small", sandbox.small_tree(f"{where}/tree"))
        layerrun.Store(store).create("bench", base="small", network="none")
        found = contestants(store, door)
        times = {name: [] for name in found}
        for number in range(options.rounds + 3):
            names = list(found)
            random.shuffle(names)
            for name in names:
                begin = time.perf_counter_ns()
                found[name]()
                if number >= 3:  # warm
                    times[name].append((time.perf_counter_ns() - begin) / 1e6)
    arena.publish("api", [arena.figures("starts from a Python program, as root", times)], options.json)


if __name__ == "__main__":
    main()
