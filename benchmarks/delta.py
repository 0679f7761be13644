"""Deltas between two real Debian trees, beside tar with zstd, and beside an ostree static delta: sizes and times.

The new tree is the one of the tests; the old one has, of each of its packages, the oldest version that the mirror has.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time

import arena

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "tests"))
from support import debian

LAYERRUN = os.path.join(os.path.dirname(sys.executable), "layerrun")
CHANGED = "tar of the changed files, zstd -19"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often each is timed")
    parser.add_argument("--json", help="where the figures go as JSON")
    given = parser.parse_args()
    arena.enter()
    new = debian.make()
    with arena.filesystem(size="16G") as where:
        old = older(new, where)
        bench = Bench(where, old, new)
        bench.tar()
        bench.layerrun(given.rounds)
        if shutil.which("ostree"):
            bench.ostree(given.rounds)
        else:
            print("left out: ostree: it is not installed", file=sys.stderr)
        bench.print()
        arena.publish("delta", [arena.figures(*one) for one in bench.times], given.json)


def older(new: str, where: str) -> str:
    """Return a tree of the same packages as ``new``, with the oldest versions that there are."""
    packages = arena.run("dpkg-query", f"--admindir={new}/var/lib/dpkg", "-W", "-f=${Package}\n").split()
    oldest: dict[str, str] = {}
    for line in arena.run("apt-cache", "madison", *packages).splitlines():
        name, version, _ = (word.strip() for word in line.split("|"))
        known = oldest.get(name)
        if (
            known is None
            or subprocess.run(["dpkg", "--compare-versions", version, "lt", known], check=False).returncode
            == 0
        ):
            oldest[name] = version
    pins = f"{where}/pins"
    with open(pins, "w") as file:
        for name, version in oldest.items():
            file.write(f"Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n")
    target = f"{where}/old"
    argv = debian._argv(target)
    at = len(debian.COMMAND)
    argv[at:at] = [
        f'--setup-hook=cp {pins} "$1/etc/apt/preferences.d/old"',
        '--customize-hook=rm "$1/etc/apt/preferences.d/old"',
    ]
    arena.run(*argv)
    return target


class Bench:
    """The figures as they come."""

    def __init__(self, where: str, old: str, new: str) -> None:
        self.where, self.old, self.new = where, old, new
        self.sizes: dict[str, tuple[int, float, float]] = {}  # bytes, seconds to make, MiB at the most
        self.times: list[tuple[str, dict[str, list[float]]]] = []

    def tar(self) -> None:
        """What there is without deltas."""
        changed = [
            path for path in files(self.new) if read(f"{self.new}/{path}") != read(f"{self.old}/{path}")
        ]
        print(f"{len(changed)} of {len(list(files(self.new)))} files differ\n")
        tar = f"{self.where}/changed.tar"
        subprocess.run(
            ["tar", "-C", self.new, "-cf", tar, "-T", "-"], input="\n".join(changed), text=True, check=True
        )
        self.made("tar of the changed files, zstd -3", ["zstd", "-3", "-qfk", tar], tar + ".zst")
        self.made(CHANGED, ["zstd", "-19", "-T2", "-qfk", tar], tar + ".zst")

    def made(self, name: str, argv: list[str], path: str) -> None:
        """Run what makes a file; note its size and what it took."""
        begin = time.monotonic()
        done = subprocess.run(
            ["/usr/bin/env", "python3", "-c", PEAK, *argv], capture_output=True, text=True, check=True
        )
        self.sizes[name] = (
            os.path.getsize(path),
            time.monotonic() - begin,
            int(done.stdout.split()[-1]) / 1024,
        )

    def layerrun(self, rounds: int) -> None:
        """Make deltas at three levels, and apply that of the default."""
        os.environ["LAYERRUN_STORE"] = f"{self.where}/store"
        for name, tree in (("old", self.old), ("new", self.new)):
            arena.run(LAYERRUN, "base", "import", name, tree)
        path = f"{self.where}/delta"
        for level in ("3", "9", "19"):
            argv = [LAYERRUN, "base", "delta", "old", "new", path, "--force", "--level", level]
            self.made(f"layerrun base delta --level {level}", argv, path)
        tar = f"{self.where}/new.tar"
        arena.run("tar", "-C", self.new, "-cf", tar, ".")
        apply: list[float] = []
        whole: list[float] = []
        for _ in range(rounds):
            for source, times in ((path, apply), (tar, whole)):
                # Without the new base's own objects.
                arena.run(LAYERRUN, "base", "remove", "-y", "new")
                arena.run(LAYERRUN, "gc", "-y", "--all")
                begin = time.monotonic()
                arena.run(LAYERRUN, "base", "import", "new", source)
                times.append(1000 * (time.monotonic() - begin))
        self.times.append(
            (
                "applied, over the old base",
                {"base import of the delta": apply, "base import of the whole tar": whole},
            )
        )

    def ostree(self, rounds: int) -> None:
        """Commit both trees; a delta between the commits; apply it where there is the old one."""
        repo = f"{self.where}/ostree"
        arena.run("ostree", "init", f"--repo={repo}", "--mode=bare")
        for name, tree in (("old", self.old), ("new", self.new)):
            copy = f"{self.where}/copy"
            arena.run("cp", "-a", tree, copy)
            shutil.rmtree(f"{copy}/dev")  # it takes no device nodes
            arena.run("ostree", "commit", f"--repo={repo}", f"--branch={name}", f"--tree=dir={copy}")
            shutil.rmtree(copy)
        path = f"{self.where}/ostree.delta"
        argv = ["ostree", "static-delta", "generate", f"--repo={repo}", "--from=old", "--to=new", "--inline"]
        self.made("ostree static-delta generate --inline", [*argv, f"--filename={path}"], path)
        times = []
        for _ in range(rounds):
            target = f"{self.where}/target"
            arena.run("ostree", "init", f"--repo={target}", "--mode=bare")
            arena.run("ostree", "pull-local", f"--repo={target}", repo, "old")
            commit = arena.run("ostree", "rev-parse", f"--repo={repo}", "new").strip()
            begin = time.monotonic()
            arena.run("ostree", "static-delta", "apply-offline", f"--repo={target}", path)
            arena.run("ostree", "checkout", f"--repo={target}", "-H", commit, f"{target}-tree")
            times.append(1000 * (time.monotonic() - begin))
            shutil.rmtree(target)
            shutil.rmtree(f"{target}-tree")
        self.times[-1][1]["ostree apply-offline and checkout -H"] = times

    def print(self) -> None:
        """Print the table of sizes."""
        whole = self.sizes[CHANGED][0]
        width = max(map(len, self.sizes))
        print(f"  {'':{width}}      bytes  of {CHANGED!r}     made in  at most")
        for name, (size, seconds, memory) in self.sizes.items():
            print(f"  {name:{width}} {size:10,}  {size / whole:6.2f}  {seconds:8.1f} s  {memory:6.0f} MiB")
        print()


# The memory of what it starts, in KiB, is the last word that it prints.
PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def files(root: str):
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield os.path.relpath(path, root)


def read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


if __name__ == "__main__":
    main()
