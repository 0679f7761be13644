"""What a diff is told to leave out, and what lies beneath in odd ways."""

import os
import subprocess
import sys

import pytest
from support.overlays import expected

from layerrun.changes import Change, FileType
from layerrun.errors import SystemError as LayerrunSystemError
from layerrun.layers.diff import diff_upper

OLD = 1_000_000_000_123_456_789


def test_changes_are_values(overlay):
    answer = overlay.ask([["file", "f", "one"], ["dir", "d"]], [["file", "f", "three"], ["remove", "d"]])
    assert answer["diff"] == [["D", "/d", None, None, "dir", 0], ["M", "/f", "file", 5, "file", 3]]


def test_skip_and_roots(overlay):
    lower = [["dir", "run"], ["file", "run/a", "a"], ["dir", "home"], ["dir", "etc"], ["file", "etc/x", "x"]]
    work = [
        ["file", "run/b", "b"],
        ["remove", "run/a"],
        ["chmod", "home", 0o700],
        ["dir", "made"],
        ["file", "made/new", "n"],
        ["remove", "etc"],
        ["dir", "etc"],
        ["chmod", ".", 0o711],
    ]
    whole = overlay.ask(lower, work)
    assert whole["diff"] == expected(whole["before"], whole["after"])
    assert [line[:2] for line in whole["diff"]] == [
        ["P", "/"],
        ["D", "/etc/x"],
        ["P", "/home"],
        ["A", "/made"],
        ["A", "/made/new"],
        ["D", "/run/a"],
        ["A", "/run/b"],
    ]
    told = overlay.ask(lower, work, skip=["/run", "/etc/x"], roots=["/", "/home", "/made"])
    assert [line[:2] for line in told["diff"]] == [["A", "/made/new"]]


def test_attributes_that_look_like_overlayfs(overlay):
    """An attribute of the user's own is stored escaped, and counts; a private one does not."""
    name = "trusted.overlay.opaque" if overlay.who == "root" else "user.overlay.opaque"
    answer = overlay.ask([["dir", "d"], ["file", "d/f", "f", OLD]], [["xattr", "d", name, "y"]])
    assert answer["after"]["d"][2][4] == {name: b"y".hex()}
    assert answer["diff"] == [["P", "/d", "dir", 0, "dir", 0]]


def test_copied_up_and_as_before_is_no_change(overlay):
    work = [
        ["append", "f", ""],
        ["touch", "f", OLD],
        ["chmod", "d/g", 0o600],
        ["chmod", "d/g", 0o644],
        ["file", "d/n", "n"],
        ["remove", "d/n"],
        ["file", "f", "text", OLD],
    ]
    lower = [["file", "f", "text", OLD], ["dir", "d"], ["file", "d/g", "g", OLD]]
    answer = overlay.ask(lower, work, kinds=["f", "d", "d/g"])
    assert answer["kinds"] == {"f": "file", "d": "dir", "d/g": "file"}
    assert answer["diff"] == []


@pytest.mark.parametrize("at", [0, 5 << 20, (1 << 40) - 3])
def test_one_byte_of_a_sparse_terabyte(overlay, at):
    """Compared without reading the holes; ext4 keeps files of up to 16 TiB."""
    size = 1 << 40
    top = os.path.join(overlay.folder, "sparse")
    os.makedirs(f"{top}/lower")
    os.makedirs(f"{top}/upper")
    for side in ("lower", "upper"):
        with open(f"{top}/{side}/f", "wb") as file:
            file.truncate(size)
            file.seek(9 << 20)
            file.write(b"data")
        os.utime(f"{top}/{side}/f", ns=(OLD, OLD))
    upper, lower = os.open(f"{top}/upper", os.O_PATH), os.open(f"{top}/lower", os.O_PATH)
    assert list(diff_upper(upper, [lower], userxattr=False, roots=["/"])) == []
    with open(f"{top}/upper/f", "r+b") as file:
        file.seek(at)
        file.write(b"x")
    found = list(diff_upper(upper, [lower], userxattr=False, roots=["/"]))
    assert found == [Change("M", "/f", FileType.FILE, size, FileType.FILE, size)]
    os.close(upper)
    os.close(lower)
    subprocess.run(["rm", "-rf", top], check=True)


def test_many_layers(overlay):
    """Each layer hides or brings something; what is beneath is their merge."""
    sessions = [[["file", f"f{number}", "x"], ["dir", f"d{number}"]] for number in range(30)]
    sessions += [
        [["remove", f"d{number}"] for number in range(0, 30, 2)],
        [["file", "last", ""], ["dir", "d0"]],
    ]
    answer = overlay.ask([["dir", "base"]], *sessions)
    assert answer["diff"] == expected(answer["before"], answer["after"])
    assert [line[:2] for line in answer["diff"]] == [["A", "/d0"], ["A", "/last"]]


@pytest.mark.root
def test_mounts_beneath(folder):
    """Only the lowest lower may have mounts in it, and only if that is said."""
    script = f"""
    set -e; cd {folder}; mkdir -p lower/m upper/m other; echo one > other/f; echo two > upper/m/f
    touch -d @1 other/f upper/m/f
    mount --bind other lower/m
    exec {sys.executable} -c '
import os
from layerrun.layers.diff import diff_upper
upper, lower = os.open("upper", os.O_PATH), os.open("lower", os.O_PATH)
for cross in (True, False):
    try: print([(c.change, c.path) for c in diff_upper(upper, [lower], userxattr=False, cross_mounts=cross)])
    except OSError as error: print(error)
'
    """
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[('M', '/m/f')]",
        "cannot look beneath what is mounted on m: Invalid cross-device link",
    ]


def test_an_upper_that_cannot_be_read(folder):
    with pytest.raises(LayerrunSystemError):
        list(diff_upper(-1, [], userxattr=False))
