"""Commits by a program: what a layer changed, on the machine; taken back, done again, refused."""

import pytest


def test_commit_undo_redo(story):
    def commits(store):
        import os
        import pathlib

        import layerrun

        here = pathlib.Path("tree")
        here.mkdir()
        (here / "old").write_text("old\n")
        assert store.commits() == []
        with pytest.raises(layerrun.errors.NotFoundError):
            store.undo()

        with store.throwaway() as layer:
            assert layer.commit() is None
            layer.run(
                ["sh", "-c", "echo new >new; echo changed >old"], cwd=os.path.abspath("tree"), check=True
            )
            done = layer.commit()
            assert store.throwaways() == []
            with pytest.raises(layerrun.errors.NotFoundError):
                layer.diff()
        assert sorted(path.read_text() for path in here.iterdir()) == ["changed\n", "new\n"]
        assert store.commits() == [done]
        assert (done.number, done.counts, done.command[:2]) == (1, {"A": 1, "M": 1}, ("sh", "-c"))

        undone = store.undo()
        assert undone.number == 1
        assert [path.read_text() for path in here.iterdir()] == ["old\n"]
        with pytest.raises(layerrun.errors.UsageError):
            store.undo(1)
        store.redo(undone)
        assert sorted(path.read_text() for path in here.iterdir()) == ["changed\n", "new\n"]
        (here / "old").write_text("changed since\n")
        with pytest.raises(layerrun.errors.ChangedError) as caught:
            store.undo()
        assert caught.value.paths == (os.path.abspath("tree/old"),)
        store.undo(1, force=True)
        assert [path.read_text() for path in here.iterdir()] == ["old\n"]

    story(commits)


def test_a_part(story):
    def part(store):
        import os
        import pathlib

        with store.throwaway() as layer:
            layer.run(["sh", "-c", "mkdir a b; touch a/1 a/2.bak b/3 c"], check=True)
            layer.commit(paths=["a", pathlib.Path("b")], exclude=["*.bak"])
            assert sorted(os.listdir("a")) == ["1"]
            assert os.listdir("b") == ["3"]
            assert not os.path.exists("c")
            left = {os.path.relpath(change.path): change.change for change in layer.diff()}
            assert left == {"a/2.bak": "A", "c": "A"}
            layer.commit(include=["c"], keep=True)
            assert os.path.exists("c")
        assert not os.path.exists("a/2.bak")
        assert store.throwaways() == []

    story(part)


def test_conflicts(story):
    def conflicts(store):
        import os
        import pathlib

        import layerrun

        pathlib.Path("one").write_bytes(b"\0 before")
        with store.throwaway() as layer:
            layer.run(["sh", "-c", "echo layer >one; echo layer >two"], check=True)
            pathlib.Path("one").write_bytes(b"\0 meanwhile")
            pathlib.Path("two").write_bytes(b"\0 meanwhile")
            with pytest.raises(layerrun.errors.CommitConflictError) as caught:
                layer.commit()
            assert [path for path, _ in caught.value.conflicts] == [
                os.path.abspath("one"),
                os.path.abspath("two"),
            ]
            assert isinstance(caught.value, layerrun.errors.ConflictError)
            assert caught.value.exit_status == 3
            assert pathlib.Path("one").read_bytes() == b"\0 meanwhile"
            layer.commit(["one"], force=True)
            assert pathlib.Path("one").read_text() == "layer\n"
            assert pathlib.Path("two").read_bytes() == b"\0 meanwhile"
            with layer.popen(["sleep", "60"]):
                with pytest.raises(layerrun.errors.BusyError):
                    layer.commit()
                layer.commit(force=True, kill=True)
        assert pathlib.Path("two").read_text() == "layer\n"

    story(conflicts)


def test_after_checkpoints(story):
    def checkpoints(store):
        import os
        import pathlib

        os.mkdir("tree")
        os.chdir("tree")
        pathlib.Path("gone").touch()
        with store.throwaway() as layer:
            layer.run(["sh", "-c", "echo 1 >one; rm gone"], check=True)
            layer.checkpoint()
            layer.run(["sh", "-c", "echo 2 >two; echo 1 >>one"], check=True)
            second = layer.checkpoint()
            layer.run(["sh", "-c", "rm one; mkdir one"], check=True)
            layer.rollback(second)
            done = layer.commit()
        assert sorted(os.listdir()) == ["one", "two"]
        assert pathlib.Path("one").read_text() == "1\n1\n"
        assert done.counts == {"A": 2, "D": 1}
        store.undo()
        assert os.listdir() == ["gone"]

    story(checkpoints)


def test_branches_are_judged(story):
    def judged(store):
        import os
        import pathlib

        with store.throwaway() as prepared:
            prepared.run(["sh", "-c", "mkdir work; echo prepared >work/base"], check=True)
            best = None
            for number in range(3):
                layer = prepared.branch()
                layer.run(["sh", "-c", f"echo {number} >work/result"], check=True)
                if number == 1:
                    best = layer
                else:
                    layer.discard()
            best.commit()
        assert sorted(os.listdir("work")) == ["base", "result"]
        assert pathlib.Path("work/result").read_text() == "1\n"
        assert store.throwaways() == []

    story(judged)
