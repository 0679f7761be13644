"""The power is cut while an app's stack changes; run by tests/commit/test_power.py within a mount namespace.

power_snapshots.py FOLDER CUTS
"""

from __future__ import annotations

import os
import random
import sys
import time

from layerrun.model import AppConfig, IdMode
from layerrun.runtime import snapshots, squash
from layerrun.store.store import Store
from support import power
from support.stores import check_whole


def files(folder):
    """Return the contents of the files of a layer."""
    found = {}
    for entry in os.scandir(folder):
        if entry.is_file(follow_symlinks=False):
            with open(entry.path) as file:
                found[entry.name] = file.read()
    return found


def below(store, layers):
    found = {}
    for layer in layers:
        found.update(files(f"{store.path}/layers/{layer}/tree"))
    return found


def shown(store, name):
    app = store.app(name)
    return {**below(store, app.stack), **files(f"{store.app_dir(app)}/data/upper")}


class Powered:
    """A store on a disk of its own, with an app whose stack is changed."""

    def __init__(self, folder):
        self.disks = power.Disks(folder, [f"{folder}/disk"])
        self.path = f"{folder}/disk/store"
        os.environ["LAYERRUN_SWEEP"] = "foreground"

    def write(self, store, name, text):
        with open(f"{store.app_dir(store.app('one'))}/data/upper/{name}", "w") as file:
            file.write(text * 2000)

    def begin(self):
        """Make the app anew, with three snapshots and something above them; return what it and they show."""
        with Store.open(self.path) as store:
            for app in store.apps():
                store.remove_app(app.name)
            store.create_app("one", AppConfig(), ids=IdMode.RANGE)
            states = {}
            for number in ("1", "2", "3"):
                self.write(store, f"f{number}", number)
                self.write(store, "all", number)
                snapshots.snapshot(store, store.app("one"), f"s{number}")
                states[f"s{number}"] = shown(store, "one")
            self.write(store, "above", "a")
            states["now"] = shown(store, "one")
        self.disks.flush()
        return states

    def act(self, what):
        with Store.open(self.path) as store:
            app = store.app("one")
            if what == "snapshot":
                snapshots.snapshot(store, app, "new")
            elif what == "rollback":
                snapshots.rollback(store, app, "s2")
            elif what == "branch":
                snapshots.branch(store, app, "other")
            elif what == "squash":
                squash.squash(store, app)
            elif what == "factory":
                snapshots.factory(store, app)
            else:
                store.reset_app("one")

    def cut(self, chance):
        what = chance.choice(["snapshot", "rollback", "branch", "squash", "factory", "reset"])
        states = self.begin()
        working = power.Telling([lambda: self.act(what)])
        logs, caches = chance.random() < 0.6, chance.random() < 0.6
        stirring = power.child(lambda: self.disks.stir(logs=logs, caches=caches))
        working.wait_for(0)
        time.sleep(chance.random() * 0.03 * (2.0 if logs or caches else 1.0))
        self.disks.cut()
        ended = working.kill()
        power.kill(stirring)
        self.disks.restore()
        return what, ended, self.look(what, ended, states)

    def look(self, what, ended, states):
        check_whole(self.path)
        old = states["now"]
        new = {"rollback": states["s2"], "reset": {}}.get(what, old)
        with Store.open(self.path) as store:
            with store.app_lock(store.app("one"), "look"):
                pass  # what is there to finish is finished
            now = shown(store, "one")
            assert now == new if ended else now in (old, new), (what, ended, sorted(now))
            made = [one for one in snapshots.history(store, store.app("one")) if one.number > 3]
            known = {"snapshot", "rollback"}
            assert len(made) == 1 if ended and what in known else len(made) <= (what in known), (what, made)
            done = now == new and (new != old or bool(made))
            if what == "rollback":
                assert bool(made) == (now == new), (what, made)
            for one in made:
                assert below(store, one.stack) == old, (what, one)
            names = [app.name for app in store.apps()]
            assert names in (["one"], ["one", "other"])
            if "other" in names:
                assert what == "branch"
                assert shown(store, "other") == old
                done = True
            assert not ended or what != "branch" or done
            for tag in ("s1", "s3"):
                snapshots.rollback(store, store.app("one"), tag)
                assert shown(store, "one") == states[tag], (what, tag)
        check_whole(self.path)
        return done


def main():
    folder, cuts = sys.argv[1], int(sys.argv[2])
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    stage = Powered(folder)
    seen = {}
    for number in range(cuts):
        try:
            what, ended, done = stage.cut(chance)
        except Exception as error:
            raise AssertionError(f"cut {number}: {error!r}") from error
        key = (what, "ended" if ended else "cut", "new" if done else "old")
        seen[key] = seen.get(key, 0) + 1
    for (what, when, state), count in sorted(seen.items()):
        print(f"{what} {when}: {state}: {count}")
    print("fine")


if __name__ == "__main__":
    main()
