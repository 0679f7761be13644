"""How long a Debian base takes to a registry and back, beside skopeo: docker-registry on loopback, both without TLS.

What is unchanged must go in under a second. Medians of several rounds, each with an empty registry.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "tests")]

from support import debian, registries  # noqa: E402  (found through the lines above)

DOOR = os.path.join(os.path.dirname(sys.executable), "layerrun")


def timed(*words: str, env: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run(words, env=env, check=True, capture_output=True)
    return time.monotonic() - began


def one_round(folder: str, tree: str) -> dict[str, float]:
    env = {**os.environ, "LAYERRUN_STORE": f"{folder}/store"}
    there = {**env, "LAYERRUN_STORE": f"{folder}/there"}
    subprocess.run([DOOR, "base", "import", "debian", tree], env=env, check=True, capture_output=True)
    with registries.registry(f"{folder}/registry") as host:
        place = f"oci://{host}/debian:12"
        push = [DOOR, "base", "push", "debian", place, "--insecure"]
        copy = ["skopeo", "copy", "--src-tls-verify=false"]
        return {
            "base push, all of it": timed(*push, env=env),
            "base push, unchanged": timed(*push, env=env),
            "base pull, all of it": timed(DOOR, "base", "pull", "debian", place, "--insecure", env=there),
            "base pull, unchanged": timed(DOOR, "base", "pull", "debian", place, "--insecure", env=there),
            "skopeo copy to a folder": timed(
                *copy, f"docker://{host}/debian:12", f"oci:{folder}/oci", env=env
            ),
        }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found: list[dict[str, float]] = []
    tree = debian.make()
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="layerrun-bench-", dir="/var/tmp") as folder:
            found.append(one_round(folder, tree))
            # TemporaryDirectory cannot remove what has no permissions.
            subprocess.run(["rm", "-rf", f"{folder}/store", f"{folder}/there"], check=True)
    for name in found[0]:
        print(f"{name:<26} {statistics.median(one[name] for one in found):7.2f} s")


if __name__ == "__main__":
    main()
