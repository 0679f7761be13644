"""How long a commit of many new files takes, and to undo it: beside `cp -a` of the same files.

"folder": one new folder with all in it; "files": as many files in folders that are there already. Working out what is
to be done, the journal, and writing all out are within; `cp -a` writes nothing out. At the end, a small commit by
`layerrun try -y` beside podman: a container, `podman diff`, and copying what it lists.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from layerrun.commit import engine, plan
from layerrun.store.store import Store

HERE = os.path.dirname(os.path.abspath(__file__))
LAYERRUN = os.path.join(os.path.dirname(sys.executable), "layerrun")


def measure(function) -> float:
    """Return the milliseconds a call takes, with nothing left to be written from before."""
    os.sync()
    begin = time.perf_counter_ns()
    function()
    return (time.perf_counter_ns() - begin) / 1e6


def one_round(where: str, count: int, *, whole: bool) -> dict[str, float]:
    """Return the time of each contestant for one new tree."""
    tree, peer = os.path.join(where, "tree"), os.path.join(where, "peer")
    os.mkdir(tree)
    if not whole:
        for number in range(0, count, 1000):
            os.mkdir(f"{tree}/d{number}")
    taken: dict[str, float] = {}
    into = os.path.join(tree, "new") if whole else tree
    environment = {**os.environ, "LAYERRUN_STORE": os.path.join(where, "store"), "PYTHONPATH": HERE}
    program = f"import reset; reset.fill({into!r}, {count})"
    words = [LAYERRUN, "try", "-n", "--name", "bench", "--", sys.executable, "-c", program]
    subprocess.run(words, env=environment, check=True, capture_output=True)
    with Store.open(os.path.join(where, "store")) as store:
        app = store.app("bench")
        upper = f"{store.app_dir(app)}/data/upper{into}"
        kind = "folder" if whole else "files"
        taken[f"cp -a, {kind}"] = measure(lambda: subprocess.run(["cp", "-a", upper, peer], check=True))
        made = []

        def commit() -> None:
            made.append(engine.commit(store, app, plan.plan(store, app, plan.Selection())))

        taken[f"commit, {kind}"] = measure(commit)
        taken[f"undo, {kind}"] = measure(lambda: engine.undo(store, made[0]))
        taken[f"redo, {kind}"] = measure(lambda: engine.redo(store, made[0]))
    shutil.rmtree(where)
    return taken


def small(where: str) -> dict[str, float]:
    """Return what one line in /etc takes, by `layerrun try -y`; it is taken back."""
    environment = {**os.environ, "LAYERRUN_STORE": os.path.join(where, "store")}
    words = [LAYERRUN, "try", "-y", "--", "sh", "-c", "echo x > /etc/layerrun-bench"]

    def attempt() -> None:
        subprocess.run(words, env=environment, check=True, capture_output=True)

    taken = {"layerrun try -y": measure(attempt)}
    subprocess.run([LAYERRUN, "undo"], env=environment, check=True, capture_output=True)
    peer = shutil.which("try")
    if peer is not None:
        taken["try -y"] = measure(
            lambda: subprocess.run([peer, "-y", *words[4:]], check=True, capture_output=True)
        )
        os.unlink("/etc/layerrun-bench")
    return taken


def main() -> None:
    """Measure, and print the medians in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {}
    top = tempfile.mkdtemp(prefix="layerrun-bench-", dir="/var/tmp")
    try:
        for number in range(options.rounds):
            for whole in (True, False):
                where = os.path.join(top, f"{number}-{whole}")
                os.mkdir(where)
                for name, value in one_round(where, options.count, whole=whole).items():
                    samples.setdefault(name, []).append(value)
        for _ in range(options.rounds * 3):
            for name, value in small(top).items():
                samples.setdefault(name, []).append(value)
    finally:
        shutil.rmtree(top)
    for name, values in samples.items():
        print(f"{name:<20} {statistics.median(values):>10.1f} ms")


if __name__ == "__main__":
    main()
