"""`Store.throwaway`: a layer that is judged by a program."""

import pytest


def test_it_is_discarded(story):
    def block(store):
        import os

        import layerrun

        with store.throwaway() as layer:
            assert isinstance(layer, layerrun.Throwaway)
            assert repr(layer) == f"<layerrun throwaway {layer.name!r} in {store.path!r}>"
            done = layer.run(
                ["sh", "-c", "echo hello >here; pwd; cat here"], capture_output=True, text=True, check=True
            )
            assert done.stdout == f"{os.getcwd()}\nhello\n"
            (change,) = layer.diff()
            assert (change.change, change.path, change.size) == ("A", f"{os.getcwd()}/here", 6)
            assert store.throwaways() == [layer]
            assert store.apps() == []
        assert store.throwaways() == []
        assert not os.path.exists("here")
        layer.discard()
        with pytest.raises(layerrun.errors.NotFoundError):
            layer.diff()
        with pytest.raises(layerrun.errors.NotFoundError):
            layer.run(["true"])

    story(block)


def test_an_error_within(story):
    def raises(store):
        def work():
            with store.throwaway() as layer:
                layer.run(["touch", "here"], check=True)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            work()
        assert store.throwaways() == []

    story(raises)


def test_it_is_kept(story):
    def keeps(store):
        with store.throwaway(name="mine", hides=["/srv"], network="none") as layer:
            layer.run(["touch", "here"], check=True)
            assert layer.keep() == "mine"
        (found,) = store.throwaways()
        assert found == layer
        assert found.kept
        assert found.config.hides == ("/srv",)
        with found:
            assert len(found.diff()) == 1
        assert found.run(["test", "-e", "here"]).returncode == 0
        found.discard()
        assert store.throwaways() == []

    story(keeps)


def test_commands_are_in_it_together(story):
    def together(store):
        import subprocess

        with store.throwaway() as layer:
            with layer.popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
                assert layer.running
                beside = layer.run(["pgrep", "-c", "-x", "cat"], capture_output=True, text=True)
                assert beside.stdout == "1\n"
                assert server.communicate("hello") == ("hello", None)
            layer.run(["sh", "-c", "sleep 1000 >/dev/null 2>&1 &"], check=True)
            assert layer.running
            assert layer.instance().processes[0].command == "sleep 1000"
            assert layer.stop(grace=0)
            left = layer.popen(["sleep", "1000"])
        assert left.wait() == -9
        assert store.throwaways() == []

    story(together)


def test_from_a_loop_and_from_threads(story):
    def many(store):
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        async def within():
            with store.throwaway() as layer:
                words = (layer.run_async(["echo", word], capture_output=True, text=True) for word in "ab")
                return [done.stdout for done in await asyncio.gather(*words)]

        assert asyncio.run(within()) == ["a\n", "b\n"]

        def one(number):
            with store.throwaway() as layer:
                layer.run(["sh", "-c", f"test ! -e mark && echo {number} >mark"], check=True)
                return layer.run(["cat", "mark"], capture_output=True, text=True).stdout

        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(one, range(8))) == [f"{number}\n" for number in range(8)]
        assert store.throwaways() == []

    story(many)


def test_what_makes_no_sense(story):
    def wrong(store):
        import layerrun

        store.create("taken")
        for options in (
            {"name": "taken"},
            {"name": "Bad"},
            {"base": "not-there"},
            {"hides": ["relative"]},
            {"network": "everywhere"},
            {"ids": "none at all"},
        ):
            with pytest.raises(layerrun.errors.LayerrunError):
                store.throwaway(**options)
        with store.throwaway() as layer:
            with pytest.raises(layerrun.errors.UsageError):
                layer.run(["true"], profile="work")
            with pytest.raises(layerrun.errors.UsageError):
                layer.run(["true"], ephemeral=True)
            with pytest.raises(layerrun.errors.CommandNotFoundError):
                layer.run(["no-such-command"])
            with pytest.raises(layerrun.errors.NotFoundError):
                store.app(layer.name)
        assert store.throwaways() == []

    story(wrong)
