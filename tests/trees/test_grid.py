"""The case grid: how the upper holds an entry against what lies beneath it, on real overlay mounts."""

import pytest
from support.overlays import expected

OLD = 1_000_000_000_123_456_789
NEW = 1_500_000_000_987_654_321

LOWER = {
    "file": [["file", "x", "beneath", OLD]],
    "dir": [["dir", "x"], ["file", "x/a", "a", OLD], ["dir", "x/d"], ["file", "x/d/b", "b", OLD]],
    "symlink": [["symlink", "x", "a"], ["touch", "x", OLD]],
    "special": [["fifo", "x"], ["touch", "x", OLD]],
    "absent": [],
}

# From each thing beneath to each row; what is done in the mount, one or several ways. Each must change something.
REPLACE = {
    "file": [["file", "x", "above", NEW]],
    "dir": [["dir", "x"], ["file", "x/n", "n"]],
    "symlink": [["symlink", "x", "b"]],
    "special": [["socket", "x"]],
}


def ways(row, column):
    gone = [] if column == "absent" else [["remove", "x"]]
    if row == "whiteout":
        # Nothing is left of what never was beneath; a whiteout can lie there all the same.
        if column == "absent":
            return [[["planted", [["whiteout", "x"]]]]]
        return [gone]
    if row == "opaque":
        if column == "absent":
            # The kernel marks what takes the place of a whiteout.
            return [[["planted", [["whiteout", "x"]]], ["dir", "x"], ["file", "x/n", "n"]]]
        found = [[*gone, ["dir", "x"]], [*gone, ["dir", "x"], ["file", "x/n", "n"], ["dir", "x/d"]]]
        if column == "dir":
            again = ["file", "x/d/b", "b", OLD]
            found += [
                [*gone, ["dir", "x"], ["dir", "x/d"], again],
                [*gone, ["dir", "x"], ["file", "x/d", "now a file"]],
                [*gone, ["dir", "x"], ["file", "x/a", "a", OLD], ["dir", "x/d", 0o700], again],
                [*gone, ["dir", "x"], ["symlink", "x/a", "z"], ["dir", "x/d"], ["dir", "x/d/b"]],
            ]
        return found
    found = [[*gone, *REPLACE[row]]]
    if row == "dir" and column in ("file", "symlink", "special"):
        return []  # the kernel makes such a folder opaque: the row of that name has it
    if row == column == "dir":
        return [
            [["file", "x/n", "n"]],
            [["chmod", "x", 0o700]],
            [["file", "x/a", "c", OLD], ["remove", "x/d/b"]],
            [["remove", "x/d"], ["xattr", "x", "user.mine", "v"]],
            [["touch", "x", NEW], ["file", "x/d/b", "other"]],
            [["dir", "x/new"], ["dir", "x/new/deep"], ["fifo", "x/new/deep/f"]],
        ]
    if row == column == "file":
        found += [
            [["append", "x", "more"]],
            [["file", "x", "BENEATH", OLD]],  # of the same size and time: only bytes differ
            [["chmod", "x", 0o600]],
            [["touch", "x", NEW]],
            [["xattr", "x", "user.mine", "v"]],
            [*gone, ["file", "x", "beneath", NEW]],
        ]
    if row == column == "symlink":
        found += [[["touch", "x", NEW]], [*gone, ["symlink", "x", "a"]]]
    if row == column == "special":
        found += [[["chmod", "x", 0o600]], [["touch", "x", NEW]], [*gone, ["fifo", "x"]]]
    return found


CELLS = [
    pytest.param(row, column, id=f"{row}-over-{column}")
    for row in ("file", "dir", "symlink", "special", "opaque", "whiteout")
    for column in LOWER
    if ways(row, column)
]


@pytest.mark.parametrize("deep", [False, True], ids=["plain", "beneath-a-layer"])
@pytest.mark.parametrize(("row", "column"), CELLS)
def test_cell(overlay, row, column, deep):
    for operations in ways(row, column):
        around = [["file", "keep", "keep", OLD], ["dir", "other"], ["file", "other/keep", "k"]]
        if deep:
            # A layer makes what is beneath: the base has something else there, which nobody must see.
            first = [["dir", "x"], ["file", "x/hidden", "h"], ["dir", "x/d"], ["file", "x/d/hidden", "h"]]
            answer = overlay.ask(around + first, [["remove", "x"], *LOWER[column]], operations, kinds=["x"])
        else:
            answer = overlay.ask(around + LOWER[column], operations, kinds=["x"])
        assert answer["kinds"]["x"] == row
        wanted = expected(answer["before"], answer["after"])
        assert answer["diff"] == wanted
        assert bool(wanted) == (row != "whiteout" or column != "absent")


def test_every_cell_is_there():
    rows = ("file", "dir", "symlink", "special", "opaque", "whiteout")
    missing = {(r, c) for r in rows for c in LOWER} - {tuple(cell.values) for cell in CELLS}
    assert missing == {("dir", "file"), ("dir", "symlink"), ("dir", "special")}


@pytest.mark.parametrize("column", ["file", "symlink", "special"])
def test_a_plain_folder_over_no_folder(overlay, column):
    """Only an upper made elsewhere has it; the kernel shows it like an opaque one, and so do we."""
    planted = ["planted", [["dir", "x"], ["file", "x/n", "n"]]]
    answer = overlay.ask(LOWER[column], [planted], kinds=["x"])
    assert answer["kinds"]["x"] == "dir"
    # The plant is there before the mount: what is beneath stands for what was before.
    lower = overlay.ask(LOWER[column], [])["after"]
    assert [line[:3] for line in answer["diff"]] == [["T", "/x", "dir"], ["A", "/x/n", "file"]]
    assert [line[:3] for line in expected(lower, answer["after"])] == [line[:3] for line in answer["diff"]]
