"""Layers that are not any more what they were built as: found by path, put right by another build."""

import json
import os
import pathlib
import shutil

import pytest
from support import users
from support.sandbox import small_tree
from support.whose import whose

RECIPE = """
base = "small"
name = "web"
[[step]]
run = "mkdir -p /srv/d /opt; echo one >/srv/f; echo two >/srv/g; echo x >/srv/d/deep; rm /etc/base; ln -s f /srv/l"
[[step]]
write = "/etc/new"
text = "new"
"""


@pytest.fixture(
    params=["root", *(pytest.param(user, marks=pytest.mark.long) for user in (users.PLAIN, users.SINGLE))]
)
def place(request, layerrun, folder, user_folder):
    who = whose(request.param)
    top = user_folder(who) if who else folder
    small_tree(f"{top}/tree")
    pathlib.Path(top, "build.toml").write_text(RECIPE)
    if who:
        for path, folders, files in os.walk(top):
            for name in (".", *folders, *files):
                os.chown(f"{path}/{name}", who.uid, who.gid, follow_symlinks=False)

    def run(*words, check=0):
        return layerrun(*words, user=who, check=check)

    run("base", "import", "small", f"{top}/tree")
    run("build", "-f", f"{top}/build.toml")
    return run, pathlib.Path(layerrun.store(who)), top


def verified(run, check):
    return json.loads(run("verify", "web", "--json", check=check).out)


def test_what_is_wrong_is_named_and_built_again(place):
    run, store, top = place
    assert run("verify", "web").out == ""
    run("app", "web", "--", "sh", "-c", "echo mine >/srv/f")  # the upper is nobody's promise
    found = verified(run, 0)
    assert (found["intact"], [one["intact"] for one in found["layers"]]) == (True, [True, True])
    first, second = (one["layer"] for one in found["layers"])
    tree = store / "layers" / first / "tree"
    with open(tree / "srv" / "f", "r+b") as file:  # in its place, and so in the object that it shares
        file.write(b"bad")
    (tree / "srv" / "g").unlink()
    (tree / "srv" / "more").write_text("")
    (tree / "etc" / "base").unlink()  # the whiteout
    (tree / "opt").chmod(0o700)
    os.unlink(store / "layers" / second / "manifest")
    found = verified(run, 1)
    assert [(one["kind"], one["path"]) for one in found["layers"][0]["problems"]] == [
        ("missing", "/etc/base"), ("changed", "/opt"), ("changed", "/srv/f"), ("missing", "/srv/g"),
        ("added", "/srv/more"),
    ]  # fmt: skip
    assert [(one["kind"], one["path"]) for one in found["layers"][1]["problems"]] == [("missing", None)]
    assert found["layers"][0]["what"].startswith("run mkdir")
    said = run("verify", "web", check=1)
    assert "changed  /srv/f\n" in said.out
    assert "layerrun build web --no-cache" in said.err

    run("reset", "web", "-y")
    assert "is as it was" in run("build", "-f", f"{top}/build.toml").err  # of itself a build reads no layer
    run("build", "-f", f"{top}/build.toml", "--no-cache", "-y")
    assert verified(run, 0)["intact"]
    assert run("app", "web", "--", "cat", "/srv/f", "/srv/g").out == "one\ntwo\n"
    assert run("build", "other", "-f", f"{top}/build.toml").err.count("cached") == 3
    assert run("app", "other", "--", "cat", "/srv/f").out == "one\n"

    shutil.rmtree(store / "layers" / verified(run, 0)["layers"][1]["layer"])
    found = verified(run, 1)["layers"][1]
    assert (found["intact"], found["problems"]) == (False, [{"kind": "missing", "path": "/"}])
    assert "layerrun doctor" in run("verify", "web", check=1).err


@pytest.mark.long
@pytest.mark.parametrize("place", ["root"], indirect=True)
def test_what_has_no_listing_is_said(place):
    run, _, _ = place
    run("create", "bare")
    assert "bare has no layers" in run("verify", "bare").err
    run("app", "web", "--", "touch", "/srv/x")
    run("snapshot", "web")
    assert "not looked at: 1 layer" in run("verify", "web").err
    assert run("verify", "nobody", check=6).out == ""
