"""How long it takes to import a Debian tree as a tar, and its next version, and to verify it; beside tar x and umoci.

Each runs as its own command, start of Python included. An import hashes every file, finds the equal ones, writes a
manifest and has all of it on the disk when it ends; `tar x` does nothing of that, so it is shown with a sync behind it
as well. In the next version every fiftieth file has another content. Memory is that of the largest
process, wait4(2).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import time

import arena

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests"))

from support import debian  # noqa: E402

LAYERRUN = os.path.join(os.path.dirname(sys.executable), "layerrun")


def prepare(where: str) -> None:
    """Make the archives: ``first.tar``, ``second.tar`` and an OCI layout ``image``."""
    tree = f"{where}/tree"
    arena.run("cp", "-a", debian.make(), tree)
    arena.run("tar", "-C", tree, "--xattrs", "-cf", f"{where}/first.tar", ".")
    layout = f"{where}/image"
    for words in (
        ["init", "--layout", layout],
        ["new", "--image", f"{layout}:debian"],
        ["raw", "add-layer", "--image", f"{layout}:debian", f"{where}/first.tar"],
    ):
        arena.run("umoci", *words)
    files = sorted(
        os.path.join(at, name)
        for at, _, names in os.walk(tree)
        for name in names
        if not os.path.islink(os.path.join(at, name)) and os.path.isfile(os.path.join(at, name))
    )
    for path in files[::50]:
        with open(path, "ab") as file:
            file.write(b"another version")
    arena.run("tar", "-C", tree, "--xattrs", "-cf", f"{where}/second.tar", ".")
    shutil.rmtree(tree)


def timed(argv, where: str, env=None) -> tuple[float, int]:
    """Return the milliseconds that a command takes and the KiB of its largest process."""
    os.sync()
    begin = time.perf_counter_ns()
    process = subprocess.Popen(
        argv,
        cwd=where,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    taken = (time.perf_counter_ns() - begin) / 1e6
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(argv)}: status {process.returncode}")
    return taken, usage.ru_maxrss


def one_round(where: str, samples: dict[str, list[float]], memory: dict[str, int]) -> None:
    """Time everybody once, each in a fresh place."""
    store = f"{where}/store"
    env = {**os.environ, "LAYERRUN_STORE": store, "LAYERRUN_SWEEP": "foreground"}
    made = f"{where}/made"
    os.mkdir(made)
    arena.run(LAYERRUN, "base", "list", env=env)
    imports = [
        ("import", [LAYERRUN, "base", "import", "debian", "first.tar"]),
        ("import of the next version", [LAYERRUN, "base", "import", "next", "second.tar"]),
        ("verify", [LAYERRUN, "base", "verify", "debian"]),
    ]
    others = [
        ("tar x", ["tar", "-C", made, "--xattrs", "-xpf", "first.tar"]),
        ("umoci unpack", ["umoci", "unpack", "--image", "image:debian", f"{where}/unpacked"]),
    ]
    both = [imports, others]
    random.shuffle(both)
    for name, argv in [one for part in both for one in part]:
        taken, peak = timed(argv, where, env)
        samples.setdefault(name, []).append(taken)
        memory[name] = max(memory.get(name, 0), peak)
        if name == "tar x":
            begin = time.perf_counter_ns()
            arena.run("sync", "-f", made)
            synced = taken + (time.perf_counter_ns() - begin) / 1e6
            samples.setdefault("tar x and sync", []).append(synced)
    sums = f"find {made} -type f -print0 | xargs -0 sha256sum"
    samples.setdefault("sha256sum", []).append(timed(["sh", "-c", sums], where)[0])
    for name in ("store", "made", "unpacked"):
        shutil.rmtree(f"{where}/{name}")


def ratios(result: dict) -> list[str]:
    """Return what the budgets are about, as lines."""
    median = {row["name"]: row["median_ms"] for row in result["rows"]}
    budgets = [
        ("import", "tar x", 1.3),
        ("import", "umoci unpack", 0.6),
        ("import of the next version", "tar x", 0.5),
        ("verify", "sha256sum", 1.2),
    ]
    return [
        f"{this} / {that}: {median[this] / median[that]:.2f} (at most {most})" for this, that, most in budgets
    ]


def main() -> None:
    """Run it on a tmpfs and on an ext4 of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--on", choices=["tmpfs", "ext4"], action="append")
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    arena.enter()
    results = []
    for kind in options.on or ["tmpfs", "ext4"]:
        with arena.filesystem(kind) as where:
            prepare(where)
            samples: dict[str, list[float]] = {}
            memory: dict[str, int] = {}
            for _ in range(options.rounds):
                one_round(where, samples, memory)
        result = arena.figures(f"a Debian tree as a tar, on {kind}", samples)
        result["peak_kib"] = memory
        results.append(result)
        if not options.as_json:
            print(arena.table(result))
            print("\n".join(ratios(result)))
            print(f"largest process: import {memory['import'] >> 10} MiB, tar {memory['tar x'] >> 10} MiB\n")
    if options.as_json:
        json.dump(results, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
