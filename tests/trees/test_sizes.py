"""Deep, wide and odd trees, with few descriptors and a small stack."""

import os
import subprocess
import sys

import pytest

from layerrun.layers.diff import diff_upper
from layerrun.native import trees

NAME = "d" * 100

# What a child does in a folder with "tree" in it: everything, with nofile=64 and a stack of 256 KiB.
WORK = """
import os, resource, sys
from layerrun.layers import diff, restore
from layerrun.native import trees
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
os.chdir(sys.argv[1])
def opened(name):
    return os.open(name, os.O_PATH | os.O_DIRECTORY)
top, tree = opened("."), opened("tree")
count, longest = 0, 0
for entry in trees.list_tree(tree):
    count += 1
    longest = max(longest, len(entry.path))
print(count, longest)
print(trees.usage(tree).entries)
os.mkdir("copy")
copy = opened("copy")
print(trees.copy_tree(tree, copy, owners=True).entries)
os.mkdir("empty")
empty = opened("empty")
print(sum(1 for _ in diff.diff_upper(tree, [copy], userxattr=False)))
print(sum(c.change == "A" for c in diff.diff_upper(tree, [empty], userxattr=False, roots=["/"])))
for entry in trees.list_tree(copy, xattrs=False):
    if entry.type == "file":
        os.close(fd := trees.open_beneath(copy, entry.path, os.O_WRONLY | os.O_TRUNC))
        break
print([c.change for c in diff.diff_upper(tree, [copy], userxattr=False)])
if sys.argv[2] == "deep":
    trash = os.mkdir("trash") or opened("trash")
    print(len(restore.restore_paths(tree, [copy], ["/**/bottom"], trash, userxattr=False)))
    print([c.change for c in diff.diff_upper(tree, [copy], userxattr=False)])
print(len(os.listdir("/proc/self/fd")))
for name in (b"tree", b"copy"):
    trees.remove_tree(top, name)
print(sorted(os.listdir()))
"""


def work(folder, kind):
    done = subprocess.run(
        ["prlimit", "--stack=262144", sys.executable, "-c", WORK, folder, kind],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture
def memory(folder):
    """A folder on a tmpfs: a million files cost a disk minutes."""
    path = os.path.join("/dev/shm", os.path.basename(folder))
    os.mkdir(path)
    yield path
    subprocess.run(["rm", "-rf", path], check=True)


def make_deep(folder, levels):
    here = os.getcwd()
    os.makedirs(f"{folder}/tree")
    os.chdir(f"{folder}/tree")
    for _ in range(levels):
        os.mkdir(NAME)
        os.chdir(NAME)
    with open("bottom", "w") as file:
        file.write("text")
    os.chdir(here)


def test_three_thousand_levels(folder):
    make_deep(folder, 3000)
    length = 3000 * 101 + len("bottom")
    said = work(folder, "deep")
    assert said == [
        *(f"3001 {length}", "3001", "3001", "0", "3001", "['M']"),
        *("1", "[]", "9", "['empty', 'trash']"),
    ]


def test_open_at_three_thousand_levels(folder):
    make_deep(folder, 3000)
    top = os.open(folder, os.O_PATH)
    fd = trees.open_beneath(top, b"tree/" + b"/".join([NAME.encode()] * 3000 + [b"bottom"]), os.O_RDONLY)
    assert os.read(fd, 9) == b"text"
    os.close(fd)
    trees.remove_tree(top, b"tree")
    os.close(top)


@pytest.mark.parametrize(
    "count",
    [
        100_000,
        pytest.param(1_000_000, marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
def test_a_folder_with_many_entries(memory, count):
    os.mkdir(f"{memory}/tree")
    fd = os.open(f"{memory}/tree", os.O_RDONLY)
    with open(f"{memory}/tree/0", "w") as file:
        file.write("text")
    for number in range(1, count):
        os.mknod(str(number), dir_fd=fd)
    os.close(fd)
    said = work(memory, "wide")
    assert said == [
        *(f"{count} {len(str(count - 1))}", str(count), str(count), "0", str(count), "['M']"),
        *("8", "['empty']"),
    ]


def test_every_byte_in_names(folder):
    names = [bytes([byte]) for byte in range(1, 256) if bytes([byte]) not in (b".", b"/")]
    os.mkdir(f"{folder}/tree")
    for name in names:
        with open(os.fsencode(folder) + b"/tree/" + name, "wb"):
            pass
    fd = os.open(f"{folder}/tree", os.O_PATH)
    top = os.open(folder, os.O_PATH)
    assert [entry.path for entry in trees.list_tree(fd)] == names
    empty = os.open(os.mkdir(f"{folder}/empty") or f"{folder}/empty", os.O_PATH)
    assert [os.fsencode(c.path[1:]) for c in diff_upper(fd, [empty], userxattr=False, roots=["/"])] == names
    trees.remove_tree(top, b"tree")
    assert os.listdir(folder) == ["empty"]
    for each in (fd, top, empty):
        os.close(each)
