"""What apps hide of what an update changes, and taking the base's files instead."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerrun.bases.manifest import escape
from layerrun.layers.shadows import hidden
from layerrun.updates import shadows

NEW = {"etc/shared": "2\n", "etc/new": "new\n", "etc/old": None, "var/dir/a": "b\n", "etc/same": "same\n"}


@pytest.fixture
def web(place):
    """An app that has changed a file, has one as the base had it, one as it will have it, and hides a folder."""
    place("create", "web", "--base", "small", check=0)
    place.sh(
        "echo mine >/etc/shared; chmod 600 /etc/old; chmod 644 /etc/old; echo same >/etc/same;"
        " rm -r /var/dir; mkdir /var/dir; chmod 755 /var/dir"
    )
    return place


def states(seen):
    return {one["path"]: (one["change"], one["state"], one["where"]) for one in seen["hidden"]}


ALL = {
    "/etc/shared": ("M", "changed", "upper"),
    "/etc/old": ("D", "copy", "upper"),
    "/etc/same": ("A", "same", "upper"),
    "/var/dir/a": ("M", "changed", "upper"),
}


def test_what_is_hidden_is_told(web):
    two = web.version("two", NEW)
    seen = web.json("base", "update", "small", "--from", two, "--dry-run")
    assert states(seen) == ALL
    said = web("base", "update", "small", "--from", two, "--dry-run", "--shadows", "web", check=0)
    assert "4 files in web hide files that changed" in said.err
    assert "M changed upper /etc/shared" in said.out
    web.update(two)
    assert states(web.json("base", "shadows", "small", "web")) == ALL
    assert web.sh("cat /etc/shared; ls /etc/new /var/dir") == "mine\n/etc/new\n\n/var/dir:\n"


def test_taking_the_bases_files(web):
    web.update(web.version("two", NEW))
    taken = web.json("base", "shadows", "small", "web", "--take", "/etc/shared", "-y")["taken"]
    assert taken == ["/etc/shared"]
    assert web.sh("cat /etc/shared") == "2\n"
    web("rollback", "web", "1", check=0)  # what it had there became a snapshot
    assert web.sh("cat /etc/shared") == "mine\n"


def test_layers_hide_too(root):
    root("create", "web", "--base", "small", check=0)
    root.sh("echo mine >/etc/shared")
    root("commit", "-y", "web", check=0)
    root.sh("echo x >/etc/x")
    seen = root.json("base", "update", "small", "--from", root.version("two", NEW), "--dry-run")
    assert states(seen) == {"/etc/shared": ("M", "changed", "layer")}


def test_taking_what_a_layer_of_the_factory_state_hides(place):
    place("create", "web", "--base", "small", check=0)
    place.sh(
        "echo mine >/etc/shared; chmod 600 /etc/old; rm -r /var/dir; mkdir /var/dir; echo own >/var/dir/own"
    )
    place("commit", "-y", "web", check=0)
    place("create", "other", "--base", "small", check=0)
    place.update(place.version("two", NEW))
    assert {one[2] for one in states(place.json("base", "shadows", "small", "web")).values()} == {"layer"}
    look = "stat -c %a /etc/shared; cat /etc/shared; ls /etc /var/dir"
    before = place.sh(look)
    taken = place.json("base", "shadows", "small", "web", "--take", "/etc/*", "--take", "/var/dir/a", "-y")
    assert taken["taken"] == ["/etc/old", "/etc/shared", "/var/dir/a"]
    assert taken["kept"] == place.json("history", "web")["snapshots"][-1]["number"]
    shown = place.sh(look)
    assert shown.splitlines()[:2] == ["644", "2"]
    assert "old" not in shown.split()
    assert shown.split()[-2:] == [
        "a",
        "own",
    ]  # in an opaque folder of the layer what was not taken stays as it was
    assert place.sh("cat /var/dir/a") == "b\n"
    assert [
        one["taken"] for one in [place.json("base", "shadows", "small", "web", "--take", "/srv", "-y")]
    ] == [[]]
    place("rollback", "web", "1", check=0)
    assert place.sh(look) == before
    assert place("reset", "web", "-y", check=0).rc == 0
    assert place.sh("cat /etc/shared") == "mine\n"


names = st.lists(st.sampled_from([b"a", b"a-b", b"b", b"a b", b"\xff"]), min_size=1, max_size=3).map(
    b"/".join
)


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(names, st.binary(max_size=1)), st.dictionaries(names, st.binary(max_size=1)))
def test_pairs_of_sorted_listings(old, new):
    def entries(tree):
        for path in sorted(tree, key=lambda path: path.split(b"/")):
            yield path.split(b"/"), [b"f", b"0644", b"0", b"0", escape(tree[path]) + b".", escape(path)]

    found = {
        shadows._path(pair): shadows._letter(*pair) for pair in shadows._pairs(entries(old), entries(new))
    }
    wanted = {os.fsdecode(path): "D" for path in old.keys() - new.keys()}
    wanted |= {os.fsdecode(path): "A" for path in new.keys() - old.keys()}
    wanted |= {os.fsdecode(path): "M" for path in old.keys() & new.keys() if old[path] != new[path]}
    assert found == wanted


def test_what_a_layer_hides(folder):
    os.makedirs(f"{folder}/d/opaque/in")
    os.setxattr(f"{folder}/d/opaque", "user.overlay.opaque", b"y")
    os.makedirs(f"{folder}/merged/deep")
    os.mknod(f"{folder}/gone", 0o20000, 0)
    os.symlink("/etc", f"{folder}/link")
    paths = [
        (b"d", True), (b"d/opaque", True), (b"d/opaque/x", False), (b"d/opaque/in/x", False), (b"d/other", False),
        (b"merged", True), (b"merged/deep", False), (b"merged/f", False), (b"gone", False), (b"gone/in", False),
        (b"link/passwd", False),
    ]  # fmt: skip
    fd = os.open(folder, os.O_RDONLY)
    try:
        found = hidden(fd, paths, userxattr=True)
    finally:
        os.close(fd)
    assert found == [
        b"d/opaque/in/x",
        b"d/opaque/x",
        b"gone",
        b"gone/in",
        b"link/passwd",
        b"merged/deep",
    ]


def test_an_app_that_went_back_gives_nothing_up_for_a_version_that_it_is_not_on(root):
    root("create", "web", "--base", "small", "--", "cat", "/etc/shared", check=0)
    root.sh("echo mine >/etc/shared")
    root.update(root.version("bad", {"etc/shared": "2\n", "usr/bin/cat": None}), "--tries", "1")
    root("app", "web", check=127)
    assert root.json("base", "shadows", "small")["hidden"] == []
    said = root("base", "shadows", "small", "web", "--take", "/etc/shared", "-y", check=2).err
    assert "stands on small@1" in said
    assert root.sh("cat /etc/shared") == "mine\n"
