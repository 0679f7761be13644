"""What a start costs in company: of 999 other apps, of 100 layers, of a running instance, of three other starters.

The ratios are what counts: everybody is timed in turns, warm, over the same Debian tree.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "tests")]

import arena  # noqa: E402  (found through the lines above)
from launch import IMPORTS, LAYERRUN, bwrap, pair  # noqa: E402
from support import debian  # noqa: E402

APPS = 1000
LAYERS = 100
STARTERS = 4
ROOT = (0, 0)


def environment(store: str) -> dict[str, str]:
    """Return the environment for a store."""
    return {**os.environ, "LAYERRUN_STORE": store}


def make_store(path: str, tree: str, apps: int) -> None:
    """Make a store with the base ``debian``, an app ``bench`` over it and as many more as are missing to ``apps``."""
    env = environment(path)
    arena.run(LAYERRUN, "base", "import", "debian", tree, env=env)
    create = ["create", "bench", "--base", "debian", "--network", "none", "--", "true"]
    arena.run(LAYERRUN, *create, env=env)
    from layerrun.model import AppConfig, IdMode
    from layerrun.store.store import Store

    with Store.open(path) as store:
        for number in range(1, apps):
            store.create_app(f"app-{number}", AppConfig(base="debian"), ids=IdMode.RANGE)
    arena.run(LAYERRUN, "app", "bench", env=env)


def add_layers(path: str, name: str, count: int) -> None:
    """Give an app ``count`` layers of one file each."""
    import attrs

    from layerrun.store.store import Store

    with Store.open(path) as store:
        layers = []
        for number in range(count):
            layers.append(f"layer-{number}")
            top = f"{path}/layers/layer-{number}/tree"
            os.makedirs(top, mode=0o755)
            with open(f"{top}/file-{number}", "w") as file:
                file.write("x\n")
        app = store.app(name)
        store.update_app(name, attrs.evolve(app.config, layers=tuple(layers)))
    arena.run(LAYERRUN, "app", name, env=environment(path))


def others(where: str, tree: str, rounds: int) -> list[dict]:
    """Time starts in a store of one app and of many, joins, and the list of many."""
    one, many = f"{where}/one", f"{where}/many"
    make_store(one, tree, 1)
    make_store(many, tree, APPS)
    create = ["create", "running", "--base", "debian", "--network", "none", "--", "sleep", "inf"]
    arena.run(LAYERRUN, *create, env=environment(one))
    host = subprocess.Popen([LAYERRUN, "app", "running"], env=environment(one), stdin=subprocess.DEVNULL)
    try:
        time.sleep(1)
        race = arena.Contest("one app and many; joining")
        start = [LAYERRUN, "app", "bench", "--", "true"]
        race.add("a start, 1 app", start, environment(one))
        race.add(f"a start, {APPS} apps", start, environment(many))
        race.add("a join", [LAYERRUN, "app", "running", "--", "true"], environment(one))
        race.run(rounds)
        looking = arena.Contest(f"looking at {APPS} apps")
        looking.add("layerrun list", [LAYERRUN, "list"], environment(many))
        looking.add("python -c " + repr(IMPORTS), [sys.executable, "-c", IMPORTS])
        looking.run(rounds)
    finally:
        host.terminate()
        host.wait()
    return [race.result(), looking.result()]


def resident(where: str) -> list[dict]:
    """Tell what stays in memory beside a running command, and what a command that joins adds."""
    env, rows = environment(f"{where}/one"), []
    words = [LAYERRUN, "app", "running", "--", "sleep", "60"]
    host = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL)
    time.sleep(1)
    first = ours(host.pid)
    guest = subprocess.Popen(words, env=env, stdin=subprocess.DEVNULL)
    time.sleep(1)
    joined = [pid for pid in ours(host.pid) + ours(guest.pid) if pid not in first]
    for name, pids in (
        ("launcher and pid 1", first),
        ("a guest's launcher, and what stands beside it", joined),
    ):
        sums = [memory(pid) for pid in pids]
        rows.append({"name": name, "pss_kib": sum(s[0] for s in sums), "rss_kib": sum(s[1] for s in sums)})
    for process in (guest, host):
        process.terminate()
        process.wait()
    return [{"title": "what stays behind a running app", "rows": rows}]


def ours(pid: int) -> list[int]:
    """Return a launcher and the copies of it beneath."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        below = [ours(int(word)) for word in file.read().split()]
    with open(f"/proc/{pid}/comm") as file:
        own = [pid] if file.read().strip() == "layerrun" else []
    return own + [found for pids in below for found in pids]


def memory(pid: int) -> tuple[int, int]:
    """Return Pss and Rss of a process in KiB; pages that processes share count for each in part, or whole."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        values = dict(line.split(":") for line in file if line.startswith(("Pss:", "Rss:")))
    return int(values["Pss"].split()[0]), int(values["Rss"].split()[0])


def deep(where: str, tree: str, rounds: int) -> list[dict]:
    """Time starts of a stack of one layer and of many."""
    race = arena.Contest("one layer and many")
    for name, count in ((f"{LAYERS} layers", LAYERS), ("1 layer", 1)):
        store = f"{where}/layers-{count}"
        make_store(store, tree, 1)
        add_layers(store, "bench", count)
        race.add(name, [LAYERRUN, "app", "bench", "--", "true"], environment(store))
    race.run(rounds)
    return [race.result()]


def _starter(argv: list[str], env: dict[str, str], turns, done) -> None:
    """Start a command as often as told; say how many failed."""
    for count in iter(turns.get, 0):
        failed = 0
        for _ in range(count):
            try:
                arena.timed(argv, env)
            except SystemExit as error:
                print(error, file=sys.stderr)
                failed += 1
        done.put(failed)


class Crowd:
    """Starters that start at the same time, each an app of its own."""

    def __init__(self, commands: list[tuple[list[str], dict[str, str]]]) -> None:
        context = multiprocessing.get_context("fork")
        self.turns = [context.SimpleQueue() for _ in commands]
        self.done = context.SimpleQueue()
        self.processes = [
            context.Process(target=_starter, args=(argv, env, turns, self.done), daemon=True)
            for (argv, env), turns in zip(commands, self.turns, strict=True)
        ]
        self.starts = self.failures = 0
        for process in self.processes:
            process.start()

    def once(self, each: int) -> float:
        """Let each start ``each`` times; return the milliseconds a start took, all of them together."""
        begin = time.perf_counter_ns()
        for turns in self.turns:
            turns.put(each)
        self.failures += sum(self.done.get() for _ in self.turns)
        self.starts += each * len(self.turns)
        return (time.perf_counter_ns() - begin) / 1e6 / (each * len(self.turns))

    def end(self) -> None:
        """End them."""
        for turns in self.turns:
            turns.put(0)
        for process in self.processes:
            process.join()


def together(where: str, tree: str, starts: int) -> list[dict]:
    """Let starters compete with as many of bubblewrap's: ``starts`` starts of layerrun's in all."""
    store = f"{where}/together"
    make_store(store, tree, 1)
    env = environment(store)
    ours, theirs = [], []
    for number in range(STARTERS):
        name = f"starter-{number}"
        arena.run(LAYERRUN, "create", name, "--base", "debian", "--network", "none", "--", "true", env=env)
        arena.run(LAYERRUN, "app", name, env=env)
        ours.append(([LAYERRUN, "app", name, "--", "true"], env))
        upper, work, _ = pair(where, f"bwrap-{number}", ROOT)
        theirs.append((bwrap_words(tree, upper, work), dict(os.environ)))
    crowds = {"layerrun app": Crowd(ours), "bwrap": Crowd(theirs)}
    samples: dict[str, list[float]] = {name: [] for name in crowds}
    each = 25
    for _ in range(-(-starts // (each * STARTERS))):
        for name, crowd in crowds.items():
            samples[name].append(crowd.once(each))
    for name, crowd in crowds.items():
        crowd.end()
        print(f"{name}: {crowd.failures} of {crowd.starts} starts failed", file=sys.stderr)
    if crowds["layerrun app"].failures:
        raise SystemExit("a start failed")
    return [arena.figures(f"{STARTERS} starters at once: ms a start, all together", samples)]


def bwrap_words(tree: str, upper: str, work: str) -> list[str]:
    """Return bubblewrap's command line for what an app does."""
    program = bwrap()
    if program is None:
        raise SystemExit("bubblewrap is not there")
    spaces = [f"--unshare-{kind}" for kind in ("user", "pid", "ipc", "uts", "net")]
    stack = ["--overlay-src", tree, "--overlay", upper, work, "/", "--dev", "/dev", "--proc", "/proc"]
    return [program, *spaces, *stack, "--tmpfs", "/tmp", "--die-with-parent", "true"]


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--starts", type=int, default=2000, help="of all starters together")
    parser.add_argument("--json", metavar="FILE", help="write the JSON document there instead of printing it")
    options = parser.parse_args()
    arena.enter()
    with arena.filesystem() as where:
        tree = f"{where}/tree"
        arena.run("cp", "-a", debian.make(), tree)
        results = [
            *others(where, tree, options.rounds),
            *resident(where),
            *deep(where, tree, options.rounds),
            *together(where, tree, options.starts),
        ]
    arena.publish("many", results, options.json)


if __name__ == "__main__":
    main()
