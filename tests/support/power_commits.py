"""The power is cut during commits, undos and redos; run by tests/commit/test_power.py within a mount namespace.

power_commits.py FOLDER CUTS [VERB...]
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time

from layerrun.changes import CommitState
from layerrun.commit import engine, plan
from layerrun.commit.selection import Selection
from layerrun.store.store import Store
from support import committing, power, stages
from support.stages import check, picture

BEFORE = (
    """
for i in $(seq 30); do head -c $((i * 700)) /dev/zero | tr '\\0' a > rep$i; echo $i > gone$i; done
mkdir many; for i in $(seq 20); do echo $i > many/$i; done; head -c 300000 /dev/urandom > big; ln big big2
"""
    + stages.BEFORE
)
AFTER = (
    stages.AFTER
    + """
for i in $(seq 30); do head -c $((i * 900)) /dev/zero | tr '\\0' b > rep$i; rm gone$i; done
for i in $(seq 30); do head -c 20000 /dev/zero | tr '\\0' n > new$i; done; ln new1 new1b; ln rep1 rep1b
mkdir -p fresh/deep; for i in $(seq 30); do head -c 5000 /dev/zero | tr '\\0' f > fresh/deep/$i; done
for i in $(seq 20); do echo b$i > mnt/many$i; done; head -c 200000 /dev/zero > mnt/big; rm -r many
head -c 250000 /dev/zero | tr '\\0' c > big
"""
)
VERBS = ("commit", "undo", "redo")
ENDS = {"commit": CommitState.DONE, "undo": CommitState.UNDONE, "redo": CommitState.DONE}


class Powered(stages.Stage):
    """A tree on two file systems, a store on one of them, and the verbs."""

    def __init__(self, folder):
        self.disks = power.Disks(folder, [f"{folder}/disk", f"{folder}/disk/tree/mnt"])
        super().__init__(f"{folder}/disk", BEFORE, AFTER)
        self.disks.flush()
        self.program = os.path.join(os.path.dirname(sys.executable), "layerrun")
        self.took = {}
        for verb in VERBS:
            self.do(verb)
            if verb != "undo":
                self.after = picture(self.tree)
        self.do("undo")
        check(picture(self.tree), self.before, "undone:")
        committing.tidy(self, 0)

    def do(self, verb):
        start = time.monotonic()
        if verb == "commit":
            with Store.open(self.path) as store:
                app = store.app("t")
                planned = plan.plan(store, app, Selection())
                assert not planned.conflicts, planned.conflicts
                engine.commit(store, app, planned)
        else:
            committing.run_verb(self, verb)
        self.took[verb] = time.monotonic() - start

    def layerrun(self, *words):
        done = subprocess.run([self.program, *words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (words, done.stderr)
        return done

    def log(self):
        done = self.layerrun("log", "--json")
        commits = json.loads(done.stdout)["commits"]
        assert len(commits) < 2
        return (commits[0]["state"] if commits else None), done.stderr

    def cut(self, chance, verbs):
        """Cut the power once during a verb; look at what the next command makes of it. Return what was seen."""
        verb = chance.choice(verbs)
        number = VERBS.index(verb)
        self.again()
        settled = verb != "commit" or chance.random() < 0.5
        if settled:
            self.disks.flush()
        working = power.Telling([lambda verb=verb: self.do(verb) for verb in VERBS[: number + 1]])
        logs, caches = chance.random() < 0.6, chance.random() < 0.6
        stirring = power.child(lambda: self.disks.stir(logs=logs, caches=caches))
        working.wait_for(number)
        time.sleep(chance.random() * self.took[verb] * (1.6 if logs or caches else 1.1))
        self.disks.cut()
        ended = working.kill()
        power.kill(stirring)
        self.disks.restore()
        if chance.random() < 0.3:  # and once more, while that is recovered from
            recovering = power.Telling([lambda: Store.open(self.path).close()])
            recovering.wait_for(0)
            time.sleep(chance.random() * 0.05)
            self.disks.cut()
            recovering.kill()
            self.disks.restore()
        return self._look(verb, ended, settled)

    def _look(self, verb, ended, settled):
        state, said = self.log()
        what = f"{verb}, {'ended' if ended else 'cut'}, then {state} ({said.strip()!r}):"
        done = state == CommitState.DONE.value
        assert done or state in (None, CommitState.UNDONE.value), what
        assert (state is None) <= (verb == "commit"), what
        if ended:
            assert state == ENDS[verb].value, what
        check(picture(self.tree), self.after if done else self.before, what)
        assert not os.path.exists(f"{self.path}/unfinished"), what
        assert state or not committing.outside(self), what
        with Store.open(self.path) as store:
            names = [app.name for app in store.apps()]
        assert names == ([] if state else ["t"]), (what, names)
        if ended:
            assert not said, what
        if state is None and (settled or "taken back" in said):
            check(picture(f"{self.data}/upper"), self.layer, f"{what} the layer")
            with Store.open(self.path) as store:
                assert not plan.plan(store, store.app("t"), Selection()).conflicts, what
        again = self.log()
        assert again == (state, ""), (what, again)
        check(picture(self.tree), self.after if done else self.before, f"{what} after a further command:")
        for then in {None: (), "undone": ("redo", "undo"), "done": ("undo",)}[state]:
            self.layerrun(then)
            check(
                picture(self.tree), self.before if then == "undo" else self.after, f"{what} {then} after it:"
            )
        committing.tidy(self, 0)
        assert not committing.outside(self), what
        self.disks.flush()
        return verb, ended, done, said


def main():
    folder, cuts, verbs = sys.argv[1], int(sys.argv[2]), sys.argv[3:] or VERBS
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    stage = Powered(folder)
    seen = {}
    for number in range(cuts):
        try:
            found = stage.cut(chance, verbs)
        except AssertionError as error:
            raise AssertionError(f"cut {number}: {error}") from error
        key = (found[0], "ended" if found[1] else "cut", "new" if found[2] else "old", bool(found[3]))
        seen[key] = seen.get(key, 0) + 1
    for (verb, when, state, mended), count in sorted(seen.items()):
        print(f"{verb} {when}: {state}{', by a recovery' if mended else ''}: {count}")
    print("fine")


if __name__ == "__main__":
    main()
