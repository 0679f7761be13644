"""Commits by hand: a program that makes a tree, a layer over it, and commits that, killed at any moment if asked.

Run by the tests of commits, as root or as a plain user, with a folder that is theirs. See `support.stages`.

    committing.py FOLDER straight|sweep|full [FIRST STEP]
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from layerrun.changes import CommitState
from layerrun.commit import engine, finishing, marker, steps
from layerrun.model import AppKind
from layerrun.native import settle
from layerrun.store.store import Store
from support.stages import AFTER, BEFORE, Stage, check, picture, shell


class Killer:
    """Kills this process before its Nth change of anything."""

    EVENTS = (
        "os.rename",
        "os.mkdir",
        "os.rmdir",
        "os.remove",
        "os.link",
        "os.chmod",
        "os.chown",
        "os.utime",
        "os.setxattr",
        "os.removexattr",
        "os.truncate",
    )

    def __init__(self, at):
        self.at, self.count = at, 0
        sys.addaudithook(self._hook)
        for module, name in (
            (steps, "renameat2"),
            (settle, "copy_entry"),
            (settle, "refill"),
            (finishing, "syncfs"),
            (marker, "clear"),
            (marker, "write"),
        ):
            self._wrap(module, name)

    def _wrap(self, module, name):
        function = getattr(module, name)

        def wrapped(*args, **kwargs):
            self.tick()
            return function(*args, **kwargs)

        setattr(module, name, wrapped)

    def _hook(self, event, args):
        writing = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if event in self.EVENTS or writing or (event == "sqlite3.connect"):
            self.tick()

    def tick(self):
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def in_child(work, at):
    """Do something in a child that is killed at a moment; return whether it came to its end before."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            Killer(at)
            work()
            status = 0
        except BaseException:  # noqa: BLE001
            import traceback

            traceback.print_exc()
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


def outside(stage):
    """Return what lies about outside the store that should not."""
    found = subprocess.run(
        ["find", stage.tree, "-name", ".layerrun-*"], capture_output=True, text=True, check=False
    )
    return found.stdout.split()


def tidy(stage, number):
    """Forget all commits, as `gc --all` does."""
    from layerrun.commit import aging

    with Store.open(stage.path) as store:
        for one in aging.garbage(store, 0.0):
            one.remove()


def state_of(stage):
    with Store.open(stage.path, create=False) as store:
        engine.recover(store)  # opening it has done so; where it has not, this says why
        assert not os.path.exists(stage.path + "/unfinished"), "left unfinished"
        commits = store.catalog.commits()
        return commits[-1].state if commits else None


def sweep(stage, first, step):
    """Kill commit, undo and redo at their every step; the next command finds it done or not done."""
    kept = None
    at, over = first, False
    while not over:
        stage.again()
        over = in_child(stage.commit, at)
        state = state_of(stage)
        seen = picture(stage.tree)
        if state is CommitState.DONE:
            kept = kept or seen
            check(seen, kept, f"commit killed at {at}: done, but")
            with Store.open(stage.path) as store:
                assert not [a for a in store.apps(AppKind.THROWAWAY) if a.name == "t"], f"layer stays at {at}"
                engine.undo(store, store.catalog.commits()[-1])
            check(picture(stage.tree), stage.before, f"commit killed at {at}, then undone:")
            tidy(stage, 0)
        else:
            assert state is None, (at, state)
            check(seen, stage.before, f"commit killed at {at}: taken back, but")
            check(picture(stage.data + "/upper"), stage.layer, f"commit killed at {at}: the layer")
            left = set(os.listdir(stage.path + "/commits")) - {
                "lock",
                "last",
                ".last",
                "taken-back",
                ".taken-back",
            }
            assert not left, (at, left)
        assert not outside(stage), (at, outside(stage))
        at += step
    print(f"commit: {at - step} moments")
    stage.again()
    stage.commit()
    for verb, other in (("undo", "redo"), ("redo", "undo")):
        at, over = first, False
        while not over:
            over = in_child(lambda verb=verb: run_verb(stage, verb), at)
            state = state_of(stage)
            wanted = kept if state is CommitState.DONE else stage.before
            assert state in (CommitState.DONE, CommitState.UNDONE)
            check(picture(stage.tree), wanted, f"{verb} killed at {at}: {state}, but")
            if (state is CommitState.UNDONE) == (verb == "undo"):
                run_verb(stage, other)
                check(
                    picture(stage.tree),
                    kept if other == "redo" else stage.before,
                    f"{verb} killed at {at}, {other}:",
                )
            at += step
        print(f"{verb}: {at - step} moments")
        run_verb(stage, verb)


def run_verb(stage, verb):
    with Store.open(stage.path) as store:
        commit = store.catalog.commits()[-1]
        return engine.undo(store, commit) if verb == "undo" else engine.redo(store, commit)


def straight(stage):
    """Commit, undo, redo, undo; compared with the same commands run directly."""
    direct = os.path.join(stage.folder, "direct")
    os.mkdir(direct)
    shell(BEFORE, direct)
    shell(AFTER, direct)
    done = stage.commit(command=("sh", "-c"))
    after = picture(stage.tree)

    def timeless(seen):  # what was written just now differs in its times
        year = 1600000000 * 10**9
        return {k: tuple(0 if isinstance(x, int) and x > year else x for x in v) for k, v in seen.items()}

    check(timeless(after), timeless(picture(direct)), "commit against a direct run:")
    with Store.open(stage.path) as store:
        done = engine.undo(store, done)
        check(picture(stage.tree), stage.before, "undo:")
        done = engine.redo(store, done)
        check(picture(stage.tree), after, "redo:")
        done = engine.undo(store, done)
        check(picture(stage.tree), stage.before, "second undo:")
    print("straight: fine")


def main():
    folder, what, *numbers = sys.argv[1:]
    stage = Stage(folder)
    first, step = (int(n) for n in numbers) if numbers else (1, 1)
    if what == "straight":
        straight(stage)
    else:
        sweep(stage, first, step)


if __name__ == "__main__":
    main()
