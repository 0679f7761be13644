"""How long a snapshot, a rollback and a branch take through the API, over much data and over next to none.

Each turn writes one file first, so that there is something to freeze. Beside them `cp -al`, the quickest copy of the
same data that a plain file system has, and an fsync of a folder, of which each of the three makes about eight. Then a
start with 1 and with 399 layers beneath, before and after these are made one.
Budgets: 10 ms for each of the three, whatever there is; ten branches of it in one second.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]

import arena  # noqa: E402  (found through the line above)
from reset import fill, measure  # noqa: E402

LAYERRUN = os.path.join(os.path.dirname(sys.executable), "layerrun")


def _write(store, name: str) -> None:
    path = os.path.join(store.app_dir(store.app(name)), "data", "upper", "srv-one")
    with open(path, "w", encoding="ascii") as file:
        file.write("x")


def _fresh(store, name: str, files: int) -> None:
    """Make an app with this many files in its upper."""
    from layerrun.model import AppConfig
    from layerrun.runtime import apps

    app = apps.create(store, name, AppConfig(command=("true",)))
    if files:
        fill(os.path.join(store.app_dir(app), "data", "upper", "srv"), files)
    os.sync()


def _turns(store, name: str) -> list:
    """Return what is measured of an app, with its name."""
    from layerrun.runtime import snapshots

    def branches() -> None:
        for turn in range(10):
            snapshots.branch(store, store.app(name), f"{name}-b{turn}")

    return [
        ("snapshot", lambda: snapshots.snapshot(store, store.app(name), "s")),
        ("rollback", lambda: snapshots.rollback(store, store.app(name), "s")),
        ("branch", lambda: snapshots.branch(store, store.app(name), f"{name}-b")),
        ("10 branches", branches),
    ]


def _one_fsync(where: str) -> None:
    fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    os.close(os.open("one", os.O_WRONLY | os.O_CREAT, dir_fd=fd))
    os.fsync(fd)
    os.unlink("one", dir_fd=fd)
    os.close(fd)


def changes(where: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the samples of snapshot, rollback and branch."""
    from layerrun.store.store import Store

    samples: dict[str, list[float]] = {}
    with Store.open(f"{where}/store") as store:
        for number in range(options.rounds + 1):
            for files in (options.files, 0):
                name, content = f"a{number}-{files}", f"{files:,} files"
                _fresh(store, name, files)

                for what, work in _turns(store, name):
                    _write(store, name)
                    samples.setdefault(f"{what}, {content}", []).append(measure(work))
            samples.setdefault("fsync of a folder", []).append(measure(lambda: _one_fsync(where)))
            fill(f"{where}/plain", options.files)
            os.sync()
            words = ["cp", "-al", f"{where}/plain", f"{where}/copy"]
            copy = measure(lambda words=words: subprocess.run(words, check=True))
            samples.setdefault(f"cp -al, {options.files:,} files", []).append(copy)
            for path in ("plain", "copy"):
                shutil.rmtree(f"{where}/{path}")
    return {name: ms[1:] for name, ms in samples.items()}


def depth(where: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Return the samples of starts over stacks of 1 and of 399 layers, and of the same when one was made of them."""
    from layerrun.runtime import snapshots, squash
    from layerrun.store.store import Store

    samples: dict[str, list[float]] = {}
    squash.DEEP = 500
    env = os.environ | {"LAYERRUN_STORE": f"{where}/store"}

    def starts(what: str, name: str) -> None:
        words = [LAYERRUN, "app", name]
        samples[what] = [arena.timed(words, env) for _ in range(options.rounds * 4 + 2)][2:]

    with Store.open(f"{where}/store") as store:
        _fresh(store, "shallow", 0)
        _fresh(store, "deep", 0)
        for number in range(399):
            for name in ("deep", *(["shallow"] if number == 0 else [])):
                _write(store, name)
                snapshots.snapshot(store, store.app(name))
        starts("start, 1 layer", "shallow")
        starts("start, 399 layers", "deep")
        samples["squash of 399 layers"] = [measure(lambda: squash.squash(store, store.app("deep")))]
        starts("start, 399 layers made one", "deep")
    return samples


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--filesystem", choices=["ext4", "tmpfs"], default="ext4")
    parser.add_argument("--json", metavar="FILE", help="write the JSON document there instead of printing it")
    options = parser.parse_args()
    arena.enter()
    results = []
    for title, function in (("snapshots", changes), ("stacks", depth)):
        with arena.filesystem(options.filesystem) as where:
            results.append(arena.figures(f"{title} on {options.filesystem}", function(where, options)))
    arena.publish("snapshots", results, options.json)


if __name__ == "__main__":
    main()
