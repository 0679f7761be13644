"""Builds where the disk is full, and several at once."""

import os
import pathlib
import subprocess

import pytest
from support.sandbox import small_tree, wait_for
from support.stores import check_whole

from layerrun.store.store import Store

RECIPE = """
base = "small"
[[step]]
run = "cat /big /big >/one; echo a >/a"
cache = ["/var/cache/x"]
[[step]]
write = "/two"
text = "two"
[[step]]
run = "mkdir /d; echo $SOURCE_DATE_EPOCH >/d/three; cat /big >/d/four"
[app]
env = ["A=b"]
"""


@pytest.fixture
def recipe(folder):
    small_tree(f"{folder}/tree")
    pathlib.Path(folder, "tree", "big").write_bytes(os.urandom(150_000))
    path = pathlib.Path(folder, "build.toml")
    path.write_text(RECIPE)
    return str(path)


def layers_of(path):
    """Return (those in the catalog, those on disk); nothing may be there that nothing refers to."""
    with Store.open(path) as store:
        return {layer.id for layer in store.catalog.layers()}, set(os.listdir(f"{path}/layers"))


@pytest.mark.parametrize("count", [3, pytest.param(16, marks=pytest.mark.long)])
def test_the_same_steps_at_once(layerrun, recipe, folder, store_path, count):
    layerrun("base", "import", "small", f"{folder}/tree", check=0)
    jobs = [
        subprocess.Popen(
            layerrun.argv("build", f"app{number}", "-f", recipe, *(["--no-cache"] if number % 2 else [])),
            env=layerrun.env(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    said = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * count, "\n".join(said)
    with Store.open(store_path) as store:
        configs = [store.app(f"app{number}").config.layers for number in range(count)]
        digests = {tuple(store.catalog.layer(one).digest for one in layers) for layers in configs}
        assert len(digests) == 1
        assert len(set(configs)) == 1, "what was built twice is there once"
    known, there = layers_of(store_path)
    assert known == there == set(configs[0])
    check_whole(store_path)


@pytest.mark.long
@pytest.mark.parametrize("step", [160, 24])
def test_a_full_disk_anywhere(layerrun, recipe, folder, step):
    disk = f"{folder}/disk"
    os.mkdir(disk)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=755", "tmpfs", disk], check=True)
    try:
        store = f"{disk}/store"
        env = {"LAYERRUN_STORE": store}
        layerrun("base", "import", "small", f"{folder}/tree", env=env, check=0)
        failed = 0
        for free in range(0, 100_000, step):  # KiB
            info = os.statvfs(disk)
            fill = info.f_bavail * info.f_frsize - free * 1024
            with open(f"{disk}/fill", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, max(fill, 1))
            done = layerrun("build", "web", "-f", recipe, env=env)
            os.unlink(f"{disk}/fill")
            check_whole(store)
            known, there = layers_of(store)
            assert known == there
            if done.rc == 0:
                break
            failed += 1
            assert "Traceback" not in done.err
            assert "No space left" in done.err or "disk is full" in done.err, done.err
            with Store.open(store) as opened:
                assert opened.apps() == []
                assert opened.catalog.app("web") is None
        assert failed > 2
        assert layerrun("app", "web", "--", "cat", "/two", env=env, check=0).out == "two"
    finally:
        wait_for(lambda: subprocess.run(["umount", disk]).returncode == 0)  # once what is deleted is gone
