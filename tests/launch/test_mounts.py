"""Mounts below the base never break a start, and each has a policy that `show` names."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess

import pytest
from support import probes

pytestmark = pytest.mark.root


@pytest.fixture
def place(folder):
    """A folder that everybody can enter, for mounts of the test's own namespace."""
    os.mkdir(f"{folder}/place")
    return f"{folder}/place"


def policies(mounts, layerrun, who, name="a"):
    shown = mounts.layerrun(layerrun, "show", name, "--json", user=who, check=0)
    found = {}
    for mount in json.loads(shown.stdout)["mounts"]:
        path = os.fsdecode(base64.b64decode(mount["path_b64"])) if "path_b64" in mount else mount["path"]
        found[path] = mount["policy"]
    return found


def sh(mounts, layerrun, who, script, check=0):
    done = mounts.layerrun(layerrun, "app", "a", "--", "sh", "-c", script, user=who, check=check)
    assert "hidden: cannot" not in done.stderr, done.stderr
    return done.stdout


def test_a_tmpfs_is_overlaid(mounts, layerrun, place, who):
    mounts.sh(
        'mount -t tmpfs -o mode=1777 x "$1"; echo host >"$1/file"; chmod 666 "$1/file"; mkdir -m 777 "$1/dir"',
        place,
    )
    out = sh(mounts, layerrun, who, f"cat {place}/file; touch {place}/dir; ls {place}")
    assert out == "host\ndir\nfile\n"
    assert policies(mounts, layerrun, who)[place] == "overlaid"
    if who is None:
        sh(mounts, layerrun, who, f"echo app >{place}/file; rm -r {place}/dir; echo new >{place}/new")
        assert sh(mounts, layerrun, who, f"cat {place}/file; ls {place}") == "app\nfile\nnew\n"
        diff = mounts.layerrun(layerrun, "diff", "a", check=0).stdout
        assert [line.split()[0] for line in diff.splitlines()] == ["D", "M", "A"]
    assert mounts.sh('cat "$1/file"; ls "$1"', place).stdout == b"host\ndir\nfile\n"


def test_a_tmpfs_of_the_users_own(mounts, layerrun, place, any_user):
    mounts.sh(f'mount -t tmpfs -o mode=755,uid={any_user.uid},gid={any_user.gid} x "$1"', place)
    sh(mounts, layerrun, any_user, f"echo app >{place}/file")
    assert sh(mounts, layerrun, any_user, f"cat {place}/file") == "app\n"
    assert mounts.sh('ls "$1"', place).stdout == b""


def test_a_bind_of_a_folder_is_overlaid(mounts, layerrun, place, folder, who):
    os.mkdir(f"{folder}/source", 0o755)
    with open(f"{folder}/source/file", "w") as file:
        file.write("host\n")
    mounts.sh('mount --bind "$1/source" "$2"', folder, place)
    assert sh(mounts, layerrun, who, f"cat {place}/file") == "host\n"
    assert policies(mounts, layerrun, who)[place] == "overlaid"
    if who is None:
        sh(mounts, layerrun, who, f"echo app >{place}/file")
        assert sh(mounts, layerrun, who, f"cat {place}/file {folder}/source/file") == "app\nhost\n"


def test_a_bind_of_a_file_is_read_only(mounts, layerrun, place, folder, who):
    for name in ("source", "place/target"):
        with open(f"{folder}/{name}", "w") as file:
            file.write(f"{name}\n")
    mounts.sh('mount --bind "$1/source" "$2/target"', folder, place)
    out = sh(
        mounts, layerrun, who, f"cat {place}/target; (echo x >{place}/target) 2>/dev/null || echo refused"
    )
    assert out == "source\nrefused\n"
    assert policies(mounts, layerrun, who)[f"{place}/target"] == "read-only"


def test_a_fuse_mount_is_read_only(mounts, layerrun, place, folder, who):
    os.mkdir(f"{folder}/source", 0o755)
    with open(f"{folder}/source/file", "w") as file:
        file.write("host\n")
    mounts.fuse(f"{folder}/source", place)
    out = sh(mounts, layerrun, who, f"cat {place}/file; touch {place}/x 2>/dev/null || echo refused")
    assert out == "host\nrefused\n"
    assert policies(mounts, layerrun, who)[place] == "read-only"


@pytest.mark.timeout(120)
def test_a_fuse_mount_whose_server_hangs(mounts, layerrun, place, folder, who):
    """Nothing of a start asks the server anything: an access would never return."""
    os.mkdir(f"{folder}/source")
    server = mounts.fuse(f"{folder}/source", place)
    os.kill(server, signal.SIGSTOP)
    assert sh(mounts, layerrun, who, "echo ran") == "ran\n"
    assert policies(mounts, layerrun, who)[place] == "read-only"
    mounts.layerrun(layerrun, "diff", "a", user=who, check=0)
    mounts.layerrun(layerrun, "du", user=who, check=0)


@pytest.mark.timeout(120)
def test_a_fuse_mount_whose_server_died(mounts, layerrun, place, folder, who):
    os.mkdir(f"{folder}/source")
    server = mounts.fuse(f"{folder}/source", place)
    os.kill(server, signal.SIGKILL)
    assert sh(mounts, layerrun, who, "echo ran") == "ran\n"
    policies(mounts, layerrun, who)


def loop(mounts, folder, place, make, options):
    subprocess.run(["truncate", "-s", "16M", f"{folder}/image"], check=True)
    subprocess.run([*make, f"{folder}/image"], check=True, capture_output=True)
    mounts.sh(f'mount -o loop,{options} "$1/image" "$2"', folder, place)


def test_a_read_only_ext4(mounts, layerrun, place, folder, who):
    loop(mounts, folder, place, ["mkfs.ext4", "-q"], "ro")
    assert "lost+found" in sh(mounts, layerrun, who, f"ls {place}")
    assert policies(mounts, layerrun, who)[place] == "overlaid"
    if who is None:
        sh(mounts, layerrun, who, f"touch {place}/x")
        assert "x" in sh(mounts, layerrun, who, f"ls {place}").split()


def test_a_writable_ext4(mounts, layerrun, place, folder):
    loop(mounts, folder, place, ["mkfs.ext4", "-q"], "rw")
    mounts.sh('echo host >"$1/file"', place)
    sh(mounts, layerrun, None, f"echo app >{place}/file")
    assert sh(mounts, layerrun, None, f"cat {place}/file") == "app\n"
    assert mounts.sh('cat "$1/file"', place).stdout == b"host\n"


# Many kernels have none.
@pytest.mark.long
def test_a_vfat_is_read_only(mounts, layerrun, place, folder, who):
    probes.need("vfat")
    loop(mounts, folder, place, ["mkfs.vfat"], "rw")
    mounts.sh('echo host >"$1/file"', place)
    assert (
        sh(mounts, layerrun, who, f"cat {place}/file; touch {place}/x 2>/dev/null || echo no") == "host\nno\n"
    )
    assert policies(mounts, layerrun, who)[place] == "read-only"


def test_pseudo_file_systems_are_hidden(mounts, layerrun, place, who):
    mounts.sh('mkdir "$1/p" "$1/s"; mount -t proc x "$1/p"; mount -t sysfs x "$1/s"', place)
    assert sh(mounts, layerrun, who, f"ls {place}/p {place}/s | grep -v : | tr -d '\\n'") == ""
    found = policies(mounts, layerrun, who)
    assert found[f"{place}/p"] == found[f"{place}/s"] == "hidden"


def test_mounts_within_mounts(mounts, layerrun, place, who):
    mounts.sh(
        'mount -t tmpfs x "$1"; mkdir "$1/p" "$1/t" "$1/empty"; mount -t proc x "$1/p"; mount -t tmpfs x "$1/t";'
        'mkdir "$1/t/deeper" "$1/t/s"; mount -t tmpfs x "$1/t/deeper"; echo deep >"$1/t/deeper/file";'
        'mount -t sysfs x "$1/t/s"; echo host >"$1/t/file"',
        place,
    )
    out = sh(
        mounts,
        layerrun,
        who,
        f"ls {place} {place}/t; cat {place}/t/file {place}/t/deeper/file; ls {place}/p {place}/t/s",
    )
    assert f"{place}:\nempty\np\nt\n\n{place}/t:\ndeeper\nfile\ns\nhost\ndeep\n" in out
    found = policies(mounts, layerrun, who)
    assert found[f"{place}/p"] == found[f"{place}/t/s"] == "hidden"
    assert found[f"{place}/t/deeper"] == "overlaid"
    if who is None:
        sh(mounts, layerrun, who, f"echo app >{place}/t/deeper/file; echo app >{place}/empty/new")
        assert sh(mounts, layerrun, who, f"cat {place}/t/deeper/file {place}/empty/new") == "app\napp\n"


def test_an_overlaid_mount_within_a_hidden_one(mounts, layerrun, place, who):
    mounts.sh('mount -t proc x "$1"; mount -t tmpfs x "$1/driver"; echo secret >"$1/driver/file"', place)
    assert sh(mounts, layerrun, who, f"cat {place}/driver/file 2>/dev/null || echo gone") == "gone\n"


def test_a_mount_within_a_fuse_mount(mounts, layerrun, place, folder, who):
    os.makedirs(f"{folder}/source/inner")
    mounts.fuse(f"{folder}/source", place)
    mounts.sh('mount -t tmpfs x "$1/inner"; echo inner >"$1/inner/file"', place)
    assert (
        sh(mounts, layerrun, who, f"cat {place}/inner/file; touch {place}/inner/x 2>/dev/null || echo no")
        == "inner\nno\n"
    )


def test_a_mount_over_a_mount(mounts, layerrun, place, who):
    mounts.sh(
        'mount -t tmpfs x "$1"; echo below >"$1/file"; mount -t tmpfs x "$1"; echo above >"$1/file"', place
    )
    assert sh(mounts, layerrun, who, f"cat {place}/file") == "above\n"


def test_a_mount_hidden_beneath_another(mounts, layerrun, place, who):
    mounts.sh(
        'mkdir -p "$1/a/b"; mount -t tmpfs x "$1/a/b"; mount -t tmpfs x "$1/a"; echo above >"$1/a/file"',
        place,
    )
    assert sh(mounts, layerrun, who, f"cat {place}/a/file; ls {place}/a") == "above\nfile\n"


NAMES = [
    b"two words",
    b"new\nline",
    b"tab\tand\\back",
    b"\xff\xfe",
    b"next\xc2\x85line \xe2\x80\xa8 \x0b\x0c\x1c\r",
    b"a,b:c=d",
    b"#octal\\040",
    b"-x",
    "näher".encode(),
    b"x" * 255,
]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_mounts_with_odd_names(mounts, layerrun, place, who, name):
    path = os.fsencode(place) + b"/" + name
    os.mkdir(path)
    mounts.sh(
        'mount -t tmpfs x "$1"; mkdir "$1/inner" "$1/p"; echo host >"$1/file"; mount -t proc x "$1/p"',
        os.fsdecode(path),
    )
    assert sh(mounts, layerrun, who, f"cat {place}/*/file; ls {place}/*/p") == "host\n"
    assert policies(mounts, layerrun, who)[os.fsdecode(path)] == "overlaid"


def test_many_mounts(mounts, layerrun, place, who):
    mounts.sh(
        'for i in $(seq 150); do mkdir "$1/$i"; mount -t tmpfs x "$1/$i"; echo $i >"$1/$i/file"; done', place
    )
    assert sh(mounts, layerrun, who, f"cat {place}/*/file | wc -l") == "150\n"


def test_a_mount_that_went_between_two_starts(mounts, layerrun, place, who):
    mounts.sh('mount -t tmpfs x "$1"; echo host >"$1/file"', place)
    sh(mounts, layerrun, who, f"cat {place}/file")
    mounts.sh('umount "$1"', place)
    assert sh(mounts, layerrun, who, f"ls {place}") == ""
    mounts.sh('mount -t tmpfs x "$1"; echo again >"$1/file"', place)
    assert sh(mounts, layerrun, who, f"cat {place}/file") == "again\n"


def test_a_mount_point_that_went_is_no_change(mounts, layerrun, place, who):
    """Its folder in the upper is layerrun's own, and stays out of the list unless the app put something there."""
    mounts.sh('mkdir -p "$1/a/b"; mount -t tmpfs -o mode=1777 x "$1/a/b"', place)
    sh(mounts, layerrun, who, "true")
    mounts.sh('umount "$1/a/b"; rmdir "$1/a/b" "$1/a"', place)
    assert mounts.layerrun(layerrun, "diff", "a", user=who, check=0).stdout == ""


def test_an_upper_with_links_where_overlays_have_their_roots(mounts, layerrun, place, folder, who):
    """What an app left in its upper is not followed: nothing outside is touched or shown."""
    mounts.sh('mount -t tmpfs -o mode=1777 x "$1"; echo host >"$1/file"', place)
    os.mkdir(f"{folder}/outside", 0o777)
    os.chmod(f"{folder}/outside", 0o777)
    sh(mounts, layerrun, who, "true")
    app = json.loads(mounts.layerrun(layerrun, "show", "a", "--json", user=who, check=0).stdout)["id"]
    upper = f"{layerrun.store(who)}/apps/{app}/data/upper"
    top = place.strip("/").split("/")[0]
    for at, target in (
        (place, f"{folder}/outside"),
        (os.path.dirname(place), f"{folder}/outside"),
        ("/" + top, "/etc"),
    ):
        subprocess.run(["rm", "-rf", upper + at], check=True)
        os.makedirs(os.path.dirname(upper + at), exist_ok=True)
        os.symlink(target, upper + at)
        if who:
            subprocess.run(["chown", "-Rh", f"{who.uid}:{who.gid}", upper], check=True)
        before = sorted(os.listdir("/etc"))
        done = mounts.layerrun(
            layerrun, "app", "a", "--", "sh", "-c", f"echo x >{place}/file; true", user=who
        )
        assert done.returncode in {0, 125}, done
        if done.returncode:
            assert "layerrun" in done.stderr
        assert os.listdir(f"{folder}/outside") == []
        assert sorted(os.listdir("/etc")) == before
        assert mounts.sh('cat "$1/file"', place).stdout == b"host\n"
        os.unlink(upper + at)


@pytest.mark.parametrize("kind", ["file", "fifo", "whiteout"])
def test_an_upper_with_something_else_where_an_overlay_has_its_root(mounts, layerrun, place, who, kind):
    mounts.sh('mount -t tmpfs x "$1"; echo host >"$1/file"', place)
    sh(mounts, layerrun, who, "true")
    app = json.loads(mounts.layerrun(layerrun, "show", "a", "--json", user=who, check=0).stdout)["id"]
    at = f"{layerrun.store(who)}/apps/{app}/data/upper{place}"
    subprocess.run(["rm", "-rf", at], check=True)
    match kind:
        case "file":
            open(at, "w").close()
        case "fifo":
            os.mkfifo(at)
        case "whiteout":
            os.mknod(at, 0o20000, 0)
    done = mounts.layerrun(layerrun, "app", "a", "--", "sh", "-c", "echo ran", user=who)
    assert done.stdout == "ran\n", done
    assert mounts.sh('cat "$1/file"', place).stdout == b"host\n"
