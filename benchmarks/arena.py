"""What the benchmarks share: a file system of their own, interleaved timing, and the table.

They run in a private mount namespace on a fresh ext4 with a journal in a file, so that the machine's own file
system, its history and its mount table have no say, and nothing is left mounted however they end.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time

MARK = "LAYERRUN_BENCH_ARENA"


def enter() -> None:
    """Start this program anew in a private mount namespace, as root."""
    if os.geteuid() != 0:
        sys.exit(
            "run the benchmarks as root: they mount a file system of their own; rootless starts are among them"
        )
    if MARK not in os.environ:
        words = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvpe("unshare", words, {**os.environ, MARK: "1"})


@contextlib.contextmanager
def filesystem(kind: str = "ext4", size: str = "8G"):
    """Give a folder on a fresh file system: ext4 in a sparse file, or tmpfs."""
    top = f"/var/tmp/layerrun-bench-{os.getpid()}"
    os.mkdir(top, 0o755)
    try:
        where = f"{top}/fs"
        os.mkdir(where)
        if kind == "tmpfs":
            run("mount", "-t", "tmpfs", "-o", f"size={size},nr_inodes=0,mode=755", "tmpfs", where)
        else:
            run("truncate", "-s", size, f"{top}/image")
            run(
                "mkfs.ext4",
                "-q",
                "-N",
                "1500000",
                "-E",
                "lazy_itable_init=1,lazy_journal_init=1",
                f"{top}/image",
            )
            run("mount", "-o", "loop", f"{top}/image", where)
        os.chmod(where, 0o755)
        try:
            yield where
        finally:
            subprocess.run(["umount", "-l", where], check=False)
    finally:
        shutil.rmtree(top, ignore_errors=True)


def run(*argv, **options):
    """Run a command that must succeed; its output is kept for the error message."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(argv)}: status {done.returncode}\n{done.stderr}{done.stdout}")
    return done.stdout


def timed(argv, env) -> float:
    """Return the milliseconds from starting a command to having its status, which must be 0."""
    devnull = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, devnull, fd) for fd in (0, 1)]
    begin = time.perf_counter_ns()
    pid = os.posix_spawnp(argv[0], argv, env, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    end = time.perf_counter_ns()
    os.close(devnull)
    if status:
        raise SystemExit(f"{' '.join(argv)}: status {os.waitstatus_to_exitcode(status)}")
    return (end - begin) / 1e6


class Service:
    """A process that does the work when told and says how long it took: see inside.py."""

    def __init__(self, argv, env) -> None:
        told, self.tell = os.pipe()
        self.said, saying = os.pipe()
        self.process = subprocess.Popen(
            [*argv, str(told), str(saying)], env=env, pass_fds=(told, saying), stdin=subprocess.DEVNULL
        )
        os.close(told)
        os.close(saying)

    def once(self) -> tuple[float, float]:
        """Return the milliseconds of all of it and of the C core."""
        os.write(self.tell, b"x")
        words = os.read(self.said, 100).split()
        if len(words) != 3 or words[0] != b"0":
            raise SystemExit(f"{self.process.args}: said {words}")
        return int(words[1]) / 1e6, int(words[2]) / 1e6

    def stop(self) -> None:
        """End it."""
        os.close(self.tell)
        os.close(self.said)
        self.process.wait()


class Contest:
    """Contestants timed in turns, in an order that changes, so that a slow second hits them all alike."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.contestants: dict[str, dict] = {}

    def add(self, name, argv, env=None, every=1, before=None) -> None:
        """Add a contestant; one that does not work here is named and left out. ``every`` thins out slow ones."""
        env = dict(os.environ if env is None else env)
        try:
            if before:
                before()
            for _ in range(2):  # warm
                timed(argv, env)
        except (SystemExit, OSError) as error:
            print(f"left out: {name}: {str(error).strip()}", file=sys.stderr)
            return
        self.contestants[name] = {"argv": argv, "env": env, "every": every, "ms": []}

    def add_service(self, names: tuple[str, str], argv, env) -> None:
        """Add one that measures itself: the names of its two figures."""
        service = Service(argv, env)
        try:
            for _ in range(2):
                service.once()
        except (SystemExit, OSError) as error:
            print(f"left out: {names[0]}: {error}", file=sys.stderr)
            service.stop()
            return
        self.contestants[names[0]] = {"service": service, "every": 1, "ms": []}
        self.contestants[names[1]] = {"every": sys.maxsize, "ms": []}

    def run(self, rounds: int) -> None:
        """Time everybody ``rounds`` times."""
        for number in range(1, rounds + 1):
            names = [n for n, c in self.contestants.items() if number % c["every"] == 0]
            random.shuffle(names)
            for name in names:
                contestant = self.contestants[name]
                if "service" in contestant:
                    whole, core = contestant["service"].once()
                    contestant["ms"].append(whole)
                    following = list(self.contestants)[list(self.contestants).index(name) + 1]
                    self.contestants[following]["ms"].append(core)
                    continue
                contestant["ms"].append(timed(contestant["argv"], contestant["env"]))

    def result(self) -> dict:
        """End the services; return the figures as plain data, milliseconds."""
        for contestant in self.contestants.values():
            if "service" in contestant:
                contestant["service"].stop()
        return figures(self.title, {name: c["ms"] for name, c in self.contestants.items()})


def figures(title: str, samples: dict) -> dict:
    """Return median, quartiles and ratio to the first of each list of milliseconds."""
    rows = []
    first = None
    for name, ms in samples.items():
        if not ms:
            continue
        median = statistics.median(ms)
        first = median if first is None else first
        quartiles = statistics.quantiles(ms, n=4) if len(ms) > 1 else [median] * 3
        rows.append(
            {
                "name": name,
                "runs": len(ms),
                "median_ms": round(median, 3),
                "q1_ms": round(quartiles[0], 3),
                "q3_ms": round(quartiles[2], 3),
                "min_ms": round(min(ms), 3),
                # How many times as long the first one takes as this one.
                "first_over_this": round(first / median, 3),
            }
        )
    return {"title": title, "rows": rows}


def table(result: dict) -> str:
    """Return the figures as text."""
    rows = result["rows"]
    if not rows:
        return f"{result['title']}: nobody could take part"
    width = max(len(row["name"]) for row in rows)
    if "pss_kib" in rows[0]:
        lines = [
            f"  {row['name']:{width}}  {row['pss_kib']:6} KiB of its own, {row['rss_kib']:6} resident"
            for row in rows
        ]
        return "\n".join([result["title"], *lines])
    lines = [result["title"], f"  {'':{width}}  runs  median ms      q1      q3  {rows[0]['name']} / this"]
    for row in rows:
        lines.append(
            f"  {row['name']:{width}}  {row['runs']:4}  {row['median_ms']:9.2f}  {row['q1_ms']:6.2f}  "
            f"{row['q3_ms']:6.2f}  {row['first_over_this']:.2f}"
        )
    return "\n".join(lines)


def publish(benchmark: str, results: list[dict], path: str | None) -> None:
    """Print the tables, then the same as one JSON document, to a file if one is named."""
    for result in results:
        print(table(result), end="\n\n")
    document = {
        "schema": 1,
        "benchmark": benchmark,
        "machine": {
            "kernel": platform.release(),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        },
        "results": results,
    }
    if path:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file, indent=2)
    else:
        print(json.dumps(document))
