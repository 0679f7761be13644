"""States of apps and throwaways that a program goes back to, and branches of them."""

import pytest


def test_checkpoints(story):
    def goes_back(store):
        import layerrun

        with store.throwaway() as layer:

            def write(text):
                layer.run(["sh", "-c", f"echo {text} >>notes"], check=True)

            def notes():
                return layer.run(["cat", "notes"], capture_output=True, text=True).stdout.split()

            with pytest.raises(layerrun.errors.NotFoundError):
                layer.rollback()
            write("one")
            first = layer.checkpoint("first")
            assert (first.number, first.tag) == (1, "first")
            write("two")
            second = layer.checkpoint()
            write("three")
            assert layer.rollback() == second
            assert notes() == ["one", "two"]
            assert layer.rollback(first) == first == layer.rollback("first") == layer.rollback(1)
            assert notes() == ["one"]
            kept = next(one for one in layer.snapshots() if one.automatic)
            layer.rollback(kept)  # what the first of them has put aside
            assert notes() == ["one", "two", "three"]
            for wrong in (lambda: layer.rollback("nothing"), lambda: layer.branch(snapshot=99)):
                with pytest.raises(layerrun.errors.NotFoundError):
                    wrong()
            with pytest.raises(layerrun.errors.ExistsError):
                layer.checkpoint("first")
            layer.pin(second)
            with pytest.raises(layerrun.errors.UsageError):
                layer.forget(second)
            layer.pin(second, pinned=False)
            layer.forget(second)
            assert second not in layer.snapshots()
            with layer.popen(["sleep", "60"]) as process:
                for busy in (layer.checkpoint, layer.rollback, layer.branch):
                    with pytest.raises(layerrun.errors.BusyError):
                        busy()
                layer.rollback("first", kill=True)
                assert process.wait() == -9
            assert notes() == ["one"]
        assert store.throwaways() == []

    story(goes_back)


def test_branches_in_parallel(story):
    def branches(store):
        from concurrent.futures import ThreadPoolExecutor
        from contextlib import ExitStack

        with store.throwaway() as prepared, ExitStack() as stack:
            prepared.run(["sh", "-c", "mkdir tree; echo 0 >tree/base"], check=True)
            with ThreadPoolExecutor(6) as pool:
                layers = list(pool.map(lambda _: stack.enter_context(prepared.branch()), range(6)))

            def work(numbered):
                number, layer = numbered
                layer.run(["sh", "-c", f"echo {number} >tree/own; echo {number} >>tree/base"], check=True)
                done = layer.run(["sh", "-c", "cat tree/*"], capture_output=True, text=True, check=True)
                return done.stdout.split()

            with ThreadPoolExecutor(4) as pool:
                found = list(pool.map(work, enumerate(layers)))
            assert found == [["0", str(number), str(number)] for number in range(6)]
            assert prepared.run(["ls", "tree"], capture_output=True, text=True).stdout == "base\n"
            prepared.run(["sh", "-c", "echo later >tree/base"], check=True)
            assert layers[0].run(["cat", "tree/base"], capture_output=True, text=True).stdout == "0\n0\n"
            assert len(store.throwaways()) == 7
        assert store.throwaways() == []

    story(branches)


def test_of_an_app(story):
    def of_app(store):
        app = store.create("web", home="fresh")
        app.run(["sh", "-c", "echo 1 >~/x"], check=True)
        made = app.snapshot("first")
        assert app.snapshots() == [made]
        app.run(["sh", "-c", "echo 2 >~/x"], check=True)

        def content(one):
            return one.run(["sh", "-c", "cat ~/x"], capture_output=True, text=True).stdout

        assert [content(app.branch("b")), content(app.branch("c", "first"))] == ["2\n", "1\n"]
        copy = app.clone("d")
        assert [one.tag for one in copy.snapshots()] == ["first"]
        app.rollback("first")
        assert [content(app), content(copy)] == ["1\n", "2\n"]
        copy.commit()
        copy.run(["sh", "-c", "echo 3 >~/x"], check=True)
        copy.reset()
        assert content(copy) == "2\n"

    story(of_app)
