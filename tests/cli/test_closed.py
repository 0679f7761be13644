"""What an app closes, names and leaves lying about does not stop the verbs on it, whoever runs it."""

import os
import subprocess

import pytest
from support.sandbox import small_tree

from layerrun.native.subids import subids
from layerrun.runtime.uppers import Uppers, read_roots

CLOSED = r"""
mkdir -p "$1/a/b" "$1/shut" "$1/nl"; echo x > "$1/a/b/f"
chmod 000 "$1/a/b/f" "$1/a/b" "$1/a"; chmod 555 "$1/shut"
echo z > "$1/nl/$(printf 'a\nb\033[31m')"
"""


@pytest.mark.parametrize("who", ["root", pytest.param("plain_user", marks=pytest.mark.long), "single_user"])
@pytest.mark.parametrize("base", ["host", "tree"])
def test_closed_folders(layerrun, request, folder, who, base):
    user = None if who == "root" else request.getfixturevalue(who)
    more = []
    if base == "tree":
        layerrun("base", "import", "b", small_tree(f"{folder}/tree"), user=user, check=0)
        more = ["--base", "b"]
    layerrun("create", "x", *more, user=user, check=0)
    top = "/var/tmp/closed" if base == "host" else "/root/closed"

    def sh(script):
        layerrun("app", "x", "--", "/bin/sh", "-ec", script, "sh", top, user=user, check=0)

    for door in ("1", "0"):
        sh(CLOSED)
        said = layerrun("diff", "x", user=user, check=0).out
        assert f"{top}/a/b/f" in said
        assert "\033" not in said
        assert layerrun("du", "x", user=user, check=0).out
        assert layerrun("reset", "-y", "x", "--path", top, user=user, check=0).out == f"{top}\n"
        assert top not in layerrun("diff", "x", user=user, check=0).out
        # Its own root, too.
        sh(f"{CLOSED}\nchmod 000 /")
        layerrun("diff", "x", user=user, check=0)
        layerrun("du", "x", user=user, check=0)
        layerrun("clear-cache", "-y", "x", user=user, check=0)
        layerrun(
            "app", "x", "--", "/bin/sh", "-c", "true", user=user, check=0, env={"LAYERRUN_FRONT_DOOR": door}
        )
        layerrun("reset", "-y", "x", user=user, check=0)
    layerrun("remove", "-y", "x", user=user, check=0)
    store = layerrun.store(user)
    assert [os.listdir(f"{store}/{name}") for name in ("apps", "trash", "staging")] == [[], [], []]


def test_which_goes_where_only_subordinate_ids_may(layerrun, plain_user, user_folder):
    tree = small_tree(f"{user_folder(plain_user)}/tree")
    subprocess.run(["chown", "-hR", f"{plain_user.uid}:{plain_user.gid}", tree], check=True)
    layerrun("base", "import", "b", tree, user=plain_user, check=0)
    layerrun("create", "x", "--base", "b", user=plain_user, check=0)
    layerrun("app", "x", "--", "/bin/sh", "-ec", "mkdir /a; echo > /a/f", user=plain_user, check=0)
    (app,) = os.listdir(f"{layerrun.store(plain_user)}/apps")
    made = f"{layerrun.store(plain_user)}/apps/{app}/data/upper/a"
    inside = subids(plain_user.name)
    assert inside is not None
    os.chown(made, inside[0], inside[1])
    os.chmod(made, 0o700)
    assert layerrun("which", "x", "/a/f", user=plain_user, check=0).out.startswith("upper")
    layerrun("which", "x", "/a/g", user=plain_user, check=6)


@pytest.mark.root
def test_nothing_shows_through_deep_in_an_opaque_folder(layerrun, folder):
    tree = small_tree(f"{folder}/tree")
    os.makedirs(f"{tree}/a/b")
    with open(f"{tree}/a/b/c", "w"):
        pass
    layerrun("base", "import", "b", tree, check=0)
    layerrun("create", "x", "--base", "b", check=0)
    assert layerrun("which", "x", "/a/b/c", check=0).out.startswith("base")
    layerrun("app", "x", "--", "/bin/sh", "-ec", "rm -r /a; mkdir -p /a/b; test ! -e /a/b/c", check=0)
    layerrun("which", "x", "/a/b/c", check=6)
    layerrun("which", "x", "/a/b", check=0)


@pytest.mark.parametrize("name", [b"a\\nb", b"a\nb", b"a\\\\n", b"\\", b"\xff\\n\n"])
def test_roots_come_back_as_they_were(folder, name):
    os.makedirs(os.fsencode(folder) + b"/host/" + name)
    for sub in ("upper", "work"):
        os.makedirs(f"{folder}/data/{sub}")
    fd = os.open(f"{folder}/data", os.O_RDONLY)
    try:
        for _ in range(2):
            uppers = Uppers(fd, unprivileged=False, make=True)
            assert uppers.prepare(f"{folder}/host/" + os.fsdecode(name))
        roots = read_roots(fd)
    finally:
        os.close(fd)
    assert roots[-1] == os.fsencode(folder).strip(b"/") + b"/host/" + name
    assert len(roots) == len(set(roots))
