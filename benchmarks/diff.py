"""How long it takes to list 100,000 changes, beside find(1) over the same upper; and what differs between two branches.

The files of the first kind are new; those of the second were there before and have another size now, so each is looked
at twice; those of the third have another content of the same size, so each is read, and what lies beneath it. The last
line is of two branches that have the 100,000 in common and differ in one file.
"""

from __future__ import annotations

import argparse
import glob
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]

import arena  # noqa: E402  (found through the line above)
from reset import fill, measure  # noqa: E402

LAYERRUN = os.path.join(os.path.dirname(sys.executable), "layerrun")


def quiet(*argv: str) -> None:
    """Run a command that must succeed and whose output nobody reads, but in a pipe."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    assert done.stdout


def rewrite(folder: str, content: bytes) -> None:
    """Give every file in a tree another content, its own size or not."""
    for top, _, names in os.walk(folder):
        for name in names:
            with open(os.path.join(top, name), "wb") as file:
                file.write(content)


def upper_of(store: str, name: str) -> str:
    """Return the path of an app's upper."""
    from layerrun.store.store import Store

    with Store.open(store) as opened:
        return os.path.join(opened.app_dir(opened.app(name)), "data", "upper")


def rounds(where: str, options: argparse.Namespace) -> list[dict]:
    """Return the figures of each kind of change."""
    store = os.environ["LAYERRUN_STORE"] = f"{where}/store"
    os.makedirs(f"{where}/tree/usr")
    fill(f"{where}/tree/srv", options.files)
    arena.run(LAYERRUN, "base", "import", "bench", f"{where}/tree")
    kinds = {"new": "/mnt", "of another size": "/srv", "of the same size": "/srv"}
    for number, path in enumerate(kinds.values()):
        name = f"app{number}"
        arena.run(LAYERRUN, "create", name, "--base", "bench" if number else "host", "--", "true")
        upper = upper_of(store, name)
        fill(upper + path, options.files)
        if number:
            rewrite(upper + path, b"y" * (50 if number == 1 else 100))
    arena.run(LAYERRUN, "branch", "app0", "one")
    arena.run(LAYERRUN, "branch", "app0", "two")
    fill(upper_of(store, "two") + "/mnt/more", 1)
    os.sync()

    results = []
    for number, kind in enumerate(kinds):
        name = f"app{number}" if number else "one"
        tree = upper_of(store, name) if number else glob.glob(f"{store}/layers/*/tree")[0]
        contestants = {
            "layerrun diff": (LAYERRUN, "diff", name),
            "find -printf": ("find", tree, "-printf", "%p %s %y\n"),
            "layerrun diff --json": (LAYERRUN, "diff", name, "--json"),
        }
        results.append(contest(f"{options.files:,} files {kind}", contestants, options.rounds))
    both = {
        "layerrun diff one two": (LAYERRUN, "diff", "one", "two"),
        "python": (sys.executable, "-c", "print(1)"),
    }
    results.append(contest(f"{options.files:,} files in common, one not", both, options.rounds))
    return results


def contest(title: str, contestants: dict[str, tuple[str, ...]], count: int) -> dict:
    """Time everybody in turns; the first round warms up."""
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(count + 1):
        for name in contestants if number % 2 else reversed(contestants):
            samples[name].append(measure(lambda name=name: quiet(*contestants[name])))
    return arena.figures(title, {name: ms[1:] for name, ms in samples.items()})


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--filesystem", choices=["ext4", "tmpfs"], default="ext4")
    parser.add_argument("--json", metavar="FILE", help="write the JSON document there instead of printing it")
    options = parser.parse_args()
    arena.enter()
    with arena.filesystem(options.filesystem) as where:
        results = rounds(where, options)
    arena.publish("diff", results, options.json)


if __name__ == "__main__":
    main()
