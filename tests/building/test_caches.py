"""Folders that are kept between builds: no part of what a step comes to, and gone when nobody wants them any more."""

import json
import os
import pathlib
import re
import signal
import subprocess
from unittest import mock

import pytest
from support import users
from support.sandbox import small_tree, wait_for
from support.stores import check_whole
from support.whose import whose

from layerrun.config.recipe import recipe_from
from layerrun.errors import UsageError
from layerrun.model import IdMode
from layerrun.runtime import step_caches
from layerrun.store.store import Store

EVERYBODY = ["root", *(pytest.param(user, marks=pytest.mark.long) for user in (users.PLAIN, users.SINGLE))]

STEP = """
[[step]]
run = "RUN"
cache = ["/var/cache/deep/x", "/etc/kept"]
"""


class Place:
    def __init__(self, layerrun, top, who):
        self.layerrun, self.top, self.who = layerrun, top, who
        small_tree(f"{top}/tree")
        os.makedirs(f"{top}/tree/etc/kept")
        pathlib.Path(f"{top}/tree/etc/kept/beneath").write_text("of the base\n")
        self.write("true")
        self("base", "import", "small", f"{top}/tree", check=0)

    def __call__(self, *words, **options):
        return self.layerrun(*words, user=self.who, **options)

    def write(self, *runs, name="build.toml"):
        steps = "".join(STEP.replace("RUN", run) for run in runs)
        pathlib.Path(self.top, name).write_text('base = "small"\nname = "web"\n' + steps)
        if self.who:
            subprocess.run(["chown", "-hR", f"{self.who.uid}:{self.who.gid}", self.top], check=True)
        return f"{self.top}/{name}"

    def build(self, *words, check=0):
        return self("build", "-y", "-f", f"{self.top}/build.toml", *words, check=check)

    def layers(self):
        found = []
        for layer in json.loads(self("show", "web", "--json", check=0).out)["config"]["layers"]:
            tree = pathlib.Path(self.layerrun.store(self.who), "layers", layer, "tree")
            found.append(sorted(str(path.relative_to(tree)) for path in tree.rglob("*")))
        return found

    def caches(self):
        folder = pathlib.Path(self.layerrun.store(self.who), "caches")
        return sorted(os.listdir(folder)) if folder.exists() else []


@pytest.fixture(params=EVERYBODY)
def place(request, layerrun, folder, user_folder):
    who = whose(request.param)
    return Place(layerrun, user_folder(who) if who else folder, who)


@pytest.fixture
def root(layerrun, folder):
    return Place(layerrun, folder, None)


def test_kept_and_no_part_of_the_layer(place):
    place.write(
        "cd /var/cache/deep/x; ls /etc/kept . >/first; echo 1 >/etc/kept/f; mkdir -m 700 d; echo 2 >d/g",
        "cat /etc/kept/f /var/cache/deep/x/d/g >/second; rm -r /etc/kept; rm -r /var/cache/deep/x/d",
    )
    place.build()
    assert place.layers() == [["first"], ["second"]]
    shown = place("app", "web", "--", "sh", "-c", "cat /second; ls /etc/kept /var; ls /var/cache", check=None)
    assert shown.out == "1\n2\n/etc/kept:\nbeneath\n\n/var:\n"
    assert place.build().err.count("cached") == 3
    place.write("cat /etc/kept/f /var/cache/deep/x/d/g; echo 3 >/var/cache/deep/beside")
    assert place.build(check=None).rc != 0  # it was removed in the last step that ran
    place.write("ls /var/cache/deep/x /etc/kept >/third; echo 3 >/var/cache/deep/beside")
    place.build()
    assert place.layers() == [["third", "var", "var/cache", "var/cache/deep", "var/cache/deep/beside"]]
    assert len(place.caches()) == 2


@pytest.mark.long
def test_a_step_that_fails_keeps_what_it_has_fetched(root):
    root.write("echo 1 >/etc/kept/f; exit 1")
    root.build(check=None)
    root.write("cat /etc/kept/f >/f")
    root.build()
    assert root("app", "web", "--", "cat", "/f", check=0).out == "1\n"


@pytest.mark.long
def test_two_builds_wait_for_each_other(root):
    root.write("echo x >>/etc/kept/n; sleep 0.3; echo x >>/etc/kept/n; cat /etc/kept/n >/n", name="one.toml")
    root.write(
        "echo x >>/etc/kept/n; sleep 0.3; echo x >>/etc/kept/n; cat /etc/kept/n >/n; true", name="two.toml"
    )
    jobs = [
        subprocess.Popen(
            root.layerrun.argv("build", name, "-f", f"{root.top}/{name}.toml"),
            env=root.layerrun.env(),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in ("one", "two")
    ]
    assert [job.wait() for job in jobs] == [0, 0]
    counts = sorted(root("app", name, "--", "cat", "/n", check=0).out.count("x") for name in ("one", "two"))
    assert counts == [2, 4]


@pytest.mark.long
def test_killed_it_begins_empty(root):
    root.write("echo 1 >/etc/kept/f")
    root.build()
    root.write("echo $$ >/going; exec sleep 1000")
    words = root.layerrun.argv("build", "-y", "-f", f"{root.top}/build.toml")
    build = subprocess.Popen(
        words, env=root.layerrun.env(), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    store = pathlib.Path(root.layerrun.store())
    wait_for(lambda: list(store.glob("apps/*/data/upper/going")))
    build.send_signal(signal.SIGKILL)
    build.wait()
    wait_for(lambda: "build-" not in root("list", check=0).out)
    check_whole(str(store))
    root.write("ls /etc/kept >/kept")
    root.build()
    assert root("app", "web", "--", "cat", "/kept", check=0).out == ""


@pytest.mark.long
def test_gc_takes_what_nobody_wants(root):
    root.write("echo 1 >/etc/kept/f")
    root.build()
    found = json.loads(root("du", "--json", check=0).out)["caches"]
    assert [(one["base"], one["path"]) for one in found] in (
        [("small", "/etc/kept"), ("small", "/var/cache/deep/x")],
        [("small", "/var/cache/deep/x"), ("small", "/etc/kept")],
    )
    assert "small:/etc/kept" in root("du", check=0).out
    assert "keep at" not in root("gc", "--dry-run", check=0).out
    for key in root.caches():
        os.utime(f"{root.layerrun.store()}/caches/{key}/lock", (1e9, 1e9))
    assert "what steps of builds over small keep at /etc/kept" in root("gc", "--dry-run", check=0).out
    root("gc", "-y", check=0)
    assert root.caches() == []
    root.build("--no-cache")
    assert len(root.caches()) == 2

    # A build that was killed before a step had the folder: it says nothing of itself.
    folder = f"{root.layerrun.store()}/caches/{'a' * 32}"
    os.mkdir(folder)
    with open(f"{folder}/lock", "w"):
        pass
    assert "never began" not in root("gc", "--dry-run", check=0).out
    os.utime(folder, (1e9, 1e9))
    assert "never began" in root("gc", "--dry-run", check=0).out
    root("gc", "-y", check=0)
    assert len(root.caches()) == 2


def test_gc_may_take_a_folder_that_is_just_being_opened(layerrun):
    opened, taken = step_caches.open_dir, []

    def gone(dir_fd, path):
        if path != "caches" and not taken:
            taken.append(path)
            os.rmdir(path, dir_fd=dir_fd)
        return opened(dir_fd, path)

    with (
        Store.open(layerrun.store()) as store,
        mock.patch.object(step_caches, "open_dir", gone),
        step_caches.locked(store, "small", IdMode.NONE, "/etc/kept") as folder,
    ):
        assert os.listdir(folder)
    assert len(taken) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("step", "why"),
    [
        ('run = "true"\ncache = ["/etc/base"]', "'/etc/base'"),
        ('run = "true"\ncache = ["/etc/base/x"]', "leads through"),
    ],
)
def test_what_is_no_cache(root, step, why):
    pathlib.Path(f"{root.top}/build.toml").write_text(f'base = "small"\nname = "web"\n[[step]]\n{step}\n')
    failed = root.build(check=None)
    assert failed.rc == 2
    assert why in failed.err


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ('run = "true"\ncache = ["relative"]', "relative"),
        ('run = "true"\ncache = ["/"]', "cannot be a cache"),
        ('run = "true"\ncache = ["/proc/x"]', "cannot be a cache"),
        ('run = "true"\ncache = ["/a", "/a/b"]', "lies in the cache"),
        ('write = "/x"\ntext = ""\ncache = ["/a"]', "unknown keys: cache"),
    ],
)
def test_what_a_recipe_cannot_say_of_caches(step, why):
    with pytest.raises(UsageError, match=re.escape(why)):
        recipe_from(f'base = "small"\n[[step]]\n{step}\n')
