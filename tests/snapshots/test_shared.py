"""Files that the store has once, as one inode, are files of their own where they can be written to."""

import os

import pytest

from layerrun.layers.putback import Stack, put_back
from layerrun.layers.squash import squash_trees


@pytest.fixture
def layer(tmp_path):
    """A layer with two files that are one for the store's sake, and two that are one by themselves."""
    top = tmp_path / "layer"
    (top / "d").mkdir(parents=True)
    (tmp_path / "object").write_text("")
    for name in ("a", "b"):
        os.link(tmp_path / "object", top / "d" / name)
    (top / "d/x").write_text("one")
    os.link(top / "d/x", top / "y")
    os.utime(top / "d", (1, 1))
    os.chmod(top / "d", 0o555)
    return top


@pytest.mark.parametrize("way", ["put back", "squash"])
def test_copies_are_files_of_their_own(layer, tmp_path, way):
    upper = tmp_path / "upper"
    empty = tmp_path / "empty"
    upper.mkdir()
    empty.mkdir()
    source, target, beneath = (os.open(path, os.O_RDONLY) for path in (layer, upper, empty))
    try:
        if way == "squash":
            squash_trees([source], target, userxattr=False, copies=True)
        else:
            stacks = (Stack((fd,), False, False) for fd in (beneath, source))
            assert put_back(target, *stacks, [b"d", b"y"]) == ([], [])
    finally:
        for fd in (source, target, beneath):
            os.close(fd)
    assert not os.path.samefile(upper / "d/a", upper / "d/b")
    assert os.path.samefile(upper / "d/x", upper / "y")
    assert os.stat(upper / "d").st_mode & 0o777 == 0o555
    assert os.stat(upper / "d").st_mtime == 1
