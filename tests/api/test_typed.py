"""Its types, as a program that uses it sees them."""

import subprocess
import sys
import textwrap

SOURCE = """
import asyncio
import subprocess
from typing import assert_type

import layerrun
from layerrun.errors import BusyError
from layerrun.changes import Commit
from layerrun.model import Snapshot


def program(store: layerrun.Store) -> None:
    app = store.app("x")
    assert_type(app, layerrun.App)
    assert_type(app.run(["true"]), subprocess.CompletedProcess[bytes])
    assert_type(app.run("true", text=True, input="x", cwd="/", env={"A": "b"}), subprocess.CompletedProcess[str])
    assert_type(app.run(encoding="utf-8", check=True, timeout=1.5), subprocess.CompletedProcess[str])
    assert_type(app.popen(["true", b"x"], stdin=subprocess.PIPE), layerrun.Popen[bytes])
    with app.popen(["true"], text=True, stdout=subprocess.PIPE) as process:
        assert_type(process, layerrun.Popen[str])
        assert_type(process.wait(), int)
    try:
        app.reset("/etc/**", kill=True)
    except BusyError as error:
        assert_type(error.hint, str | None)
    for change in app.diff():
        assert_type(change.path, str)
    with store.throwaway(base="host", hides=["/srv"]) as layer:
        assert_type(layer, layerrun.Throwaway)
        assert_type(layer.run(["true"], text=True), subprocess.CompletedProcess[str])
        snapshot = layer.checkpoint("one")
        assert_type(layer.rollback(snapshot), Snapshot)
        with layer.branch(snapshot=snapshot) as other:
            assert_type(other, layerrun.Throwaway)
        assert_type(layer.commit(paths=["/etc"], exclude=["*.bak"]), Commit | None)
        assert_type(layer.keep(), str)
        layer.commit("etc", 1)  # no
        layer.reset()  # no
    assert_type(store.undo(store.commits()[0], force=True), Commit)
    assert_type(store.undo(1).number, int)
    base = store.import_base("debian", "/tmp/tree", max_size="4G")
    assert_type(base, layerrun.Base)
    assert_type(store.bases(), list[layerrun.Base])
    assert_type([one.path for one in base.verify()], list[str])
    assert_type(base.update(checks=["true"], agree=lambda found: found.changed > 0).found.new.version, int)
    assert_type(base.rollback().apps, tuple[str, ...])
    assert_type(base.switch(base.versions()[0]).is_new, bool)
    assert_type(store.build("build.toml").app, layerrun.App)
    assert_type(store.build({"base": "debian"}, "web", fresh=True).digest, str)
    base.update(7)  # no
    app.checkpoint()  # no
    app.run(["true"], shell=True)  # no
    app.run(["true"], input="text")  # no
    app.run(["true"], text=True, input=b"bytes")  # no
    app.run(7)  # no
    app.popen(["true"], check=True)  # no
    store.app(1)  # no


async def concurrent(app: layerrun.App) -> None:
    assert_type(await app.run_async(["true"], text=True), subprocess.CompletedProcess[str])
    assert_type(await app.popen_async(["true"]), asyncio.subprocess.Process)
"""


def test_mypy_strict(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(textwrap.dedent(SOURCE))
    argv = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--cache-dir",
        str(tmp_path / "cache"),
        "--no-error-summary",
    ]
    done = subprocess.run([*argv, str(program)], capture_output=True, text=True, cwd=tmp_path)
    wrong = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    wanted = {number for number, line in enumerate(SOURCE.splitlines(), 1) if line.endswith("# no")}
    assert wrong == wanted, done.stdout + done.stderr
