"""`layerrun.Store`: what a program does without the command line."""

import subprocess
import sys

import pytest


def test_another_configuration(story):
    def changes(store):
        import attrs

        import layerrun
        from layerrun.policy import Policy

        app = store.create("a", policy={"preset": "service", "limits": ["pids=100"]})
        assert ("limit", "--limit pids=100") in [(one.kind, one.origin) for one in app.reach()]
        app.configure(attrs.evolve(app.config, policy=Policy(network="none"), env=("A=b",)))
        done = app.run(["sh", "-c", "echo $A; cat /proc/net/dev"], capture_output=True, text=True)
        assert len(done.stdout.splitlines()) == 4
        assert done.stdout.startswith("b\n")
        with app.popen(["sleep", "60"]) as process:
            with pytest.raises(layerrun.errors.BusyError):
                app.configure(attrs.evolve(app.config, env=()))
            app.configure(attrs.evolve(app.config, env=()), kill=True)
            assert process.wait() == -9
        with pytest.raises(layerrun.errors.UsageError):
            app.configure(attrs.evolve(app.config, base="other"))
        with pytest.raises(layerrun.errors.UsageError):
            store.create("b", policy={"presets": "service"})

    story(changes)


def test_an_apps_life(story):
    def lives(store):
        import os

        import layerrun
        from layerrun.model import AppConfig, Share
        from layerrun.policy import Policy

        os.mkdir("shared")
        here = os.path.realpath("shared")
        assert store.apps() == []
        assert [base.name for base in store.bases()] == ["host"]
        app = store.create(
            "a",
            command=["sh", "-c", "exit 4"],
            shares=[f"{here}:/mnt:ro"],
            hides=["/srv"],
            home="fresh",
            caches=["/var/tmp/cache"],
            env={"A": "b c"},
            network="none",
        )
        assert app.config == AppConfig(
            command=("sh", "-c", "exit 4"),
            shares=(Share(here, "/mnt", True),),
            hides=("/srv",),
            home="fresh",
            caches=("/var/tmp/cache",),
            env=("A=b c",),
            policy=Policy(network="none"),
        )
        assert app.run().returncode == 4
        assert store.apps() == [app] == [store.app("a")]
        assert {app: 1}[store.app("a")] == 1
        assert repr(app) == f"<layerrun app 'a' in {store.path!r}>"
        app.rename("b")
        assert (app.name, app.run().returncode) == ("b", 4)
        app.rename("b")
        for wrong in (
            lambda: store.create("b"),
            lambda: store.create("B"),
            lambda: store.create("c", base="none"),
            lambda: store.create("c", home="nowhere"),
            lambda: store.create("c", command="true"),
            lambda: store.create("c", env={"": ""}),
            lambda: store.create("c", shares=["/not/there"]),
            lambda: store.app("a"),
        ):
            with pytest.raises(layerrun.errors.LayerrunError):
                wrong()
        assert [one.name for one in store.apps()] == ["b"]
        assert app.remove() == []
        assert store.apps() == []

    story(lives)


def test_its_data(story):
    def data(store):
        app = store.create("a")
        app.run(["sh", "-c", "mkdir -p ~/new ~/.cache; echo 1 >~/new/file; echo 2 >~/.cache/x"], check=True)
        home = app.run(["sh", "-c", "echo ~"], capture_output=True, text=True).stdout.strip()
        changed = {change.path: change.change for change in app.diff()}
        assert changed[f"{home}/new/file"] == "A"
        assert app.which(f"{home}/new/file").layer == "upper"
        assert app.usage().entries >= 4
        assert app.clear_cache() == [f"{home}/.cache"]
        assert app.reset(f"{home}/new/*") == [f"{home}/new/file"]
        assert f"{home}/new" in {change.path for change in app.diff()}
        generation = app.record.generation
        assert app.reset() == []
        assert app.record.generation > generation
        assert app.diff() == []
        app.run(["sh", "-c", "echo 1 >~/file"], check=True)
        (kept,) = app.remove(keep_data=True)
        assert kept.startswith(store.path)

    story(data)


def test_what_runs_is_not_changed(story):
    def busy(store):
        import layerrun

        app = store.create("a")
        with app.popen(["sleep", "60"]):
            for change in (app.reset, app.remove, app.clear_cache):
                with pytest.raises(layerrun.errors.BusyError):
                    change()
            assert app.remove(kill=True) == []
        assert store.apps() == []

    story(busy)


def test_closing(story):
    def closes(store):
        import layerrun

        with layerrun.Store(store.path) as other:
            app = other.create("a")
            process = app.popen(["cat"], stdin=-1)
        assert other.closed
        for call in (
            other.apps,
            lambda: other.app("a"),
            app.reset,
            lambda: app.run(["true"]),
            lambda: app.config,
        ):
            with pytest.raises(ValueError) as caught:
                call()
            assert str(caught.value) == "the store is closed"
        other.close()
        process.communicate()
        assert process.returncode == 0
        assert store.app("a").run(["true"]).returncode == 0

    story(closes)


def test_a_store_by_path(programs):
    code = """
import os, pathlib, layerrun, pytest
del os.environ["LAYERRUN_STORE"]
store = layerrun.Store("one")
assert store.path == os.path.abspath("one")
store.create("a").run(["true"], check=True)
os.chdir("/")
assert layerrun.Store(pathlib.Path(store.path)).app("a").run(["true"]).returncode == 0
with pytest.raises(layerrun.errors.StoreError) as caught:
    layerrun.Store("/etc").apps()
assert caught.value.hint
"""
    programs.run(code)


def test_the_front_door_is_missing(story):
    def missing(store):
        import layerrun
        from layerrun.runtime import door

        app = store.create("a")
        door.locate = lambda: None
        with pytest.raises(layerrun.errors.LaunchError) as caught:
            app.run(["true"])
        assert "bin/layerrun" in str(caught.value)

    story(missing)


def test_importing_it_costs_nothing():
    code = "import sys, layerrun; print(*sorted(m for m in sys.modules if m.startswith('layerrun')))"
    done = subprocess.run([sys.executable, "-Ic", code], capture_output=True, text=True, check=True)
    assert done.stdout == "layerrun\n"


def test_names():
    import layerrun

    assert set(layerrun.__all__) <= set(dir(layerrun))
    for name in layerrun.__all__:
        assert getattr(layerrun, name)
    with pytest.raises(AttributeError, match="nonsense"):
        layerrun.nonsense  # noqa: B018
