"""I4: a build that is killed leaves the steps that were done, and nothing else; the next one goes on from there."""

import os
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from support.sandbox import small_tree, wait_for
from support.stores import check_whole, die_at_line

from layerrun.building.build import build, stack_over
from layerrun.building.result import apply
from layerrun.config.recipe import recipe_from
from layerrun.store.store import Store

STRIDE = int(os.environ.get("CRASH_STRIDE", "197"))

RECIPE = """
base = "small"
[[step]]
add = "site"
to = "/srv"
[[step]]
write = "/etc/new"
text = "new"
[app]
env = ["A=b"]
"""


@pytest.fixture
def template(layerrun, folder, store_path):
    small_tree(f"{folder}/tree")
    os.makedirs(f"{folder}/site")
    Path(f"{folder}/site/f").write_text("one\n")
    layerrun("base", "import", "small", f"{folder}/tree", check=0)
    return store_path


CACHED = RECIPE.replace(
    "[app]", '[[step]]\nrun = "echo x >>/etc/cache/n; mkdir /srv/d"\ncache = ["/etc/cache"]\n[app]'
)


def made(path, folder, text):
    with Store.open(path) as store:
        recipe = recipe_from(text, folder=folder)
        built = build(store, recipe, stack_over(store.base("small")))
        app = apply(store, "web", recipe, built)
        return built, app


def sweep(template, folder, step, text=RECIPE):
    number, dead = random.Random(STRIDE).randrange(1, step), 0
    while True:
        path = f"{folder}/copy"
        shutil.copytree(template, path, symlinks=True)
        os.chmod(path, 0o700)
        if not die_at_line(number, lambda path=path: made(path, folder, text)):
            shutil.rmtree(path)
            return dead
        dead += 1
        check_whole(path)
        with Store.open(path) as store:
            app = store.catalog.app("web")
            if app is not None:
                assert len(app.config.layers) == text.count("[[step]]")
                assert store.catalog.recipe(app.id) is not None
            assert len(store.apps()) == (app is not None)
            layers = {layer.id for layer in store.catalog.layers()}
            assert set(os.listdir(f"{path}/layers")) == layers
            assert layers == {step.layer_id for step in store.catalog.cached_steps()}
            there = {name for name in os.listdir(path) if not name.startswith("catalog.db-")}
            assert there <= {*os.listdir(template), "caches"}
        built, app = made(path, folder, text)
        assert app.config.layers == built.layers
        for layer, name in zip(built.layers, ("srv/f", "etc/new", "srv/d"), strict=False):
            assert os.path.exists(f"{path}/layers/{layer}/tree/{name}")
        shutil.rmtree(path)
        number += step


def test_killed_at_any_line(template, folder):
    assert sweep(template, folder, STRIDE) > 5


@pytest.mark.long
def test_killed_at_nearly_every_line(template, folder):
    assert sweep(template, folder, 7) > 100


@pytest.mark.long
def test_killed_at_any_line_of_a_step_with_a_cache(template, folder):
    assert sweep(template, folder, 61, CACHED) > 10


def test_killed_while_a_command_runs(template, folder, layerrun):
    recipe = f"{folder}/build.toml"
    Path(recipe).write_text(
        RECIPE.replace("[app]", '[[step]]\nrun = "echo $$ >/going; exec sleep 1000"\n[app]')
    )
    words = layerrun.argv("build", "web", "-f", recipe)
    build = subprocess.Popen(words, env=layerrun.env(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: list(Path(template, "apps").glob("*/data/upper/going")))
        (step,) = layerrun("list", check=0).out.splitlines()[1:]
        assert step.startswith("build-")
    finally:
        build.send_signal(signal.SIGKILL)
        build.wait()
    wait_for(lambda: "build-" not in layerrun("list", check=0).out)
    check_whole(template)
    Path(recipe).write_text(RECIPE)
    assert layerrun("build", "web", "-f", recipe, check=0).err.count("cached") == 3  # two lines, and the sum


def test_an_interrupt_ends_the_step(template, folder, layerrun):
    recipe = f"{folder}/build.toml"
    Path(recipe).write_text('base = "small"\n[[step]]\nrun = "echo >/going; exec sleep 1000"\n')
    words = layerrun.argv("build", "web", "-f", recipe)
    build = subprocess.Popen(words, env=layerrun.env(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: list(Path(template, "apps").glob("*/data/upper/going")))
    build.send_signal(signal.SIGINT)
    assert build.wait() == 130
    assert os.listdir(f"{template}/apps") == []
    check_whole(template)
