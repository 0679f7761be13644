"""`base delta` and what is made by it, from the command line, as root and as plain users."""

import json
import os
import subprocess

import pytest

OWNERS = ["0:0", "33:44", "1000:1000"]


@pytest.fixture
def archives(folder):
    """Tar archives of two versions of a tree with odd owners, a device node and hard links."""
    paths = []
    for version in ("one", "two"):
        root = f"{folder}/{version}"
        os.makedirs(f"{root}/usr/bin")
        os.mkdir(f"{root}/dev")
        os.mknod(f"{root}/dev/null", 0o20666, os.makedev(1, 3))
        for number, owner in enumerate(OWNERS):
            path = f"{root}/usr/file{number}"
            with open(path, "w") as file:
                file.write(f"{owner} of " * 500 + version)
            subprocess.run(["chown", owner, path], check=True)
            os.utime(path, (number, number))
        os.link(f"{root}/usr/file0", f"{root}/usr/{version}")
        os.chmod(f"{root}/usr/file1", 0o2750)
        paths.append(f"{folder}/{version}.tar")
        subprocess.run(["tar", "-C", root, "--sort=name", "-cf", paths[-1], "."], check=True)
        os.chmod(paths[-1], 0o644)
    return paths


def listed(layerrun, user=None):
    found = json.loads(layerrun("base", "list", "--json", user=user, check=0).out)["bases"]
    return {base["name"]: base for base in found}


def test_a_delta_of_roots_fits_the_bases_of_plain_users(layerrun, archives, folder, any_user):
    for name, path in zip(("one", "two"), archives, strict=True):
        layerrun("base", "import", name, path, check=0)
    done = layerrun("base", "delta", "one", "two@1", f"{folder}/delta", "--json", check=0)
    said = json.loads(done.out)
    assert said["bytes"] == os.path.getsize(f"{folder}/delta")
    assert (said["patched"], said["fresh"]) == (3, 0)
    mine = listed(layerrun)
    assert (said["old"], said["new"]) == (mine["one"]["digest"], mine["two"]["digest"])

    layerrun("base", "import", "debian", archives[0], user=any_user, check=0)
    layerrun("base", "import", "next", f"{folder}/delta", user=any_user, check=0)
    theirs = listed(layerrun, any_user)
    assert theirs["debian"]["digest"] == mine["one"]["digest"]
    assert theirs["next"]["digest"] == mine["two"]["digest"]
    layerrun("base", "verify", "next", user=any_user, check=0)
    checked = json.loads(
        layerrun("base", "delta", "--check", f"{folder}/delta", "--json", user=any_user, check=0).out
    )
    assert (checked["old_bases"], checked["new_bases"]) == (["debian@1"], ["next@1"])

    # And one of the user's own is the same file.
    own = os.path.join(os.path.dirname(layerrun.env(any_user)["LAYERRUN_STORE"]), "delta")
    layerrun("base", "delta", "debian", "next", own, user=any_user, check=0)
    with open(own, "rb") as a, open(f"{folder}/delta", "rb") as b:
        assert a.read() == b.read()


def test_what_is_typed_wrong(layerrun, archives, folder):
    layerrun("base", "import", "one", archives[0], check=0)
    assert "OLD and NEW" in layerrun("base", "delta", "one", check=2).err
    assert "no bases" in layerrun("base", "delta", "one", "--check", "x", check=2).err
    assert "noe" in layerrun("base", "delta", "one", "noe", f"{folder}/x", check=6).err
    assert "is no tree in the store" in layerrun("base", "delta", "one", "host", f"{folder}/x", check=2).err
    assert "cannot write" in layerrun("base", "delta", "one", "one", f"{folder}/no/x", check=1).err
    assert "is no delta" in layerrun("base", "delta", "--check", archives[0], check=1).err
    assert "cannot open" in layerrun("base", "delta", "--check", f"{folder}/none", check=1).err
    assert not os.path.exists(f"{folder}/x")
    layerrun("base", "delta", "one", "one", f"{folder}/x", check=0)
    assert "there is a file" in layerrun("base", "delta", "one", "one", f"{folder}/x", check=1).err
    layerrun("base", "delta", "one", "one", f"{folder}/x", "--force", check=0)
    layerrun("base", "remove", "-y", "one", check=0)
    assert "for a base that is not here" in layerrun("base", "import", "two", f"{folder}/x", check=6).err


def test_an_update_from_a_delta(layerrun, archives, folder, any_user):
    """Apps of the base are on the new version afterwards; a delta that fits no version changes nothing."""
    for name, path in zip(("one", "two"), archives, strict=True):
        layerrun("base", "import", name, path, check=0)
    layerrun("base", "delta", "one", "two", f"{folder}/forth", check=0)
    layerrun("base", "delta", "two", "one", f"{folder}/back", check=0)
    two = listed(layerrun)["two"]["digest"]

    layerrun("base", "import", "debian", archives[0], user=any_user, check=0)
    layerrun("create", "web", "--base", "debian", user=any_user, check=0)
    refused = layerrun("base", "update", "debian", "--from", f"{folder}/back", "-y", user=any_user, check=6)
    assert "for a base that is not here" in refused.err
    assert "debian@1 is sha256:" in refused.err
    layerrun("base", "update", "debian", "--from", f"{folder}/forth", "-y", user=any_user, check=0)
    assert listed(layerrun, any_user)["debian"]["digest"] == two
    layerrun("base", "verify", "debian", user=any_user, check=0)
    # The way back is a version that is there already.
    layerrun("base", "update", "debian", "--from", f"{folder}/back", "-y", user=any_user, check=0)
    assert listed(layerrun, any_user)["debian"]["digest"] == listed(layerrun)["one"]["digest"]


@pytest.mark.root
def test_a_full_disk_leaves_nothing(layerrun, archives, folder):
    for name, path in zip(("one", "two"), archives, strict=True):
        layerrun("base", "import", name, path, check=0)
    os.mkdir(f"{folder}/full")
    full = f"{folder}/full"
    script = 'mount -t tmpfs -o size=4k tmpfs "$0" || exit; "$@"; echo $?; ls -A "$0"'
    words = layerrun.argv("base", "delta", "one", "two", f"{full}/delta")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, full, *words],
        env=layerrun.env(),
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["1"], done
    assert "No space left" in done.stderr
