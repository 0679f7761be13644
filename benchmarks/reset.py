"""How long clearing an app's data takes: with 100,000 files in it, with none, and beside `rm -rf` of the same.

The command pays for a start of Python; "Store.reset_app" is the same without it. What reset moved away is removed in
the background afterwards: each measurement waits until that is over, and the time it takes is not counted.
"""

from __future__ import annotations

import argparse
import glob
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]

import arena  # noqa: E402  (found through the line above)

LAYERRUN = os.path.join(os.path.dirname(sys.executable), "layerrun")


def fill(folder: str, count: int) -> None:
    """Make ``count`` files of 100 bytes, 1,000 in a folder."""
    for number in range(0, count, 1000):
        below = os.path.join(folder, f"d{number}")
        os.makedirs(below, exist_ok=True)
        fd = os.open(below, os.O_RDONLY | os.O_DIRECTORY)
        for file in range(min(1000, count - number)):
            out = os.open(f"f{file}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=fd)
            os.write(out, b"x" * 100)
            os.close(out)
        os.close(fd)


def settle(store: str) -> None:
    """Wait until what was reset is gone, and written."""
    while os.listdir(f"{store}/trash") or os.listdir(f"{store}/staging"):
        time.sleep(0.05)
    os.sync()


def measure(function) -> float:
    """Return the milliseconds a call takes."""
    begin = time.perf_counter_ns()
    function()
    return (time.perf_counter_ns() - begin) / 1e6


def rounds(where: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the samples of each contestant."""
    store = f"{where}/store"
    os.environ["LAYERRUN_STORE"] = store
    arena.run(LAYERRUN, "create", "bench", "--", "true")
    (upper_of,) = glob.glob(f"{store}/apps/*")

    def command() -> None:
        subprocess.run(
            [LAYERRUN, "reset", "-y", "bench"], check=True, stdin=subprocess.DEVNULL, capture_output=True
        )

    def library() -> None:
        opened.reset_app("bench")

    def remove() -> None:
        subprocess.run(["rm", "-rf", f"{where}/plain"], check=True)

    from layerrun.store.store import Store

    samples: dict[str, list[float]] = {}
    full, empty = f"{options.files:,} files", "no file"
    for number in range(options.rounds + 1):
        turns = [(command, "layerrun reset"), (library, "Store.reset_app")]
        with Store.open(store) as opened:
            for function, what in turns if number % 2 else reversed(turns):
                for content in (full, empty):
                    if content == full:
                        fill(f"{upper_of}/data/upper/srv", options.files)
                    settle(store)
                    samples.setdefault(f"{what}, {content}", []).append(measure(function))
                    assert not os.path.exists(f"{upper_of}/data/upper/srv")
                    settle(store)
        fill(f"{where}/plain", options.files)
        os.sync()
        samples.setdefault(f"rm -rf, {full}", []).append(measure(remove))
    # The first round warms up.
    return {name: ms[1:] for name, ms in samples.items()}


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--filesystem", choices=["ext4", "tmpfs"], default="ext4")
    parser.add_argument("--json", metavar="FILE", help="write the JSON document there instead of printing it")
    options = parser.parse_args()
    if not shutil.which("mkfs.ext4"):
        sys.exit("mkfs.ext4 is missing: install e2fsprogs")
    arena.enter()
    with arena.filesystem(options.filesystem) as where:
        result = arena.figures(f"reset on {options.filesystem}", rounds(where, options))
    arena.publish("reset", [result], options.json)


if __name__ == "__main__":
    main()
