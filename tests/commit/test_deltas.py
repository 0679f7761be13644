"""What the wide records of a diff say of both sides."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile

import pytest

MAKE = """
mkdir lower lower/d lower/gone lower/hidden; cd lower; echo f > f; echo g > d/g; echo h > hidden/h; echo a > pair
ln pair pair2; echo same > same; echo moved > moved; echo cap > cap; touch -d 2001-01-01 f same d hidden; cd ..
mkdir upper work merged; sleep 0.02
options=index=off,metacopy=off,xino=off,redirect_dir=nofollow
mount -t overlay o merged -o lowerdir=lower,upperdir=upper,workdir=work,$options
cd merged; echo ff >> f; rm -r gone; rm -r hidden; mkdir hidden; echo n > hidden/n; echo x >> pair
mkdir new; echo i > new/i; mkdir new/deeper; mv moved to
chmod 600 same; chmod 644 same; echo c > d/c; rm d/c; rm cap; echo 1 > cap
setcap cap_net_raw+ep cap; setfattr -n trusted.overlay.mine -v 1 d/g; cd ..; umount merged; rm -r lower/d
mkdir lower/d; echo g2 > lower/d/g
"""
SHOW = """
import json, os
from layerrun.layers.diff import deltas
upper, lower = os.open("upper", os.O_PATH), os.open("lower", os.O_PATH)
for d in deltas(upper, [lower], userxattr=False, roots=["/", "/d"]):
    print(json.dumps([d._replace(path=d.path.decode())._asdict(), d.new, d.old]))
"""


@pytest.fixture(scope="module")
def found():
    folder = tempfile.mkdtemp(prefix="layerrun-deltas-", dir="/var/tmp")
    try:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-ec", f'{MAKE}\nexec "$0" -c "$1"', sys.executable, SHOW],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        records = [json.loads(line) for line in done.stdout.splitlines()]
        statuses = {path: os.lstat(f"{folder}/upper/{path}") for path in ("f", "hidden", "new/i", "pair")}
        beneath = {"f": os.lstat(f"{folder}/lower/f")}
        yield {record[0]["path"]: record for record in records}, statuses, beneath
    finally:
        subprocess.run(["rm", "-rf", folder], check=True)


pytestmark = pytest.mark.root


def test_letters_and_order(found):
    letters = [(record["letter"], path) for path, (record, _, _) in found[0].items()]
    assert letters == [
        ("=", ""),
        ("M", "cap"),
        ("=", "d"),
        ("M", "d/g"),
        ("M", "f"),
        ("D", "gone"),
        ("=", "hidden"),
        ("D", "hidden/h"),
        ("A", "hidden/n"),
        ("D", "moved"),
        ("A", "new"),
        ("A", "new/deeper"),
        ("A", "new/i"),
        ("M", "pair"),
        ("=", "same"),
        ("A", "to"),
    ]


def test_both_sides(found):
    records, upper, lower = found
    record, new, old = records["f"]
    for side, status in ((new, upper["f"]), (old, lower["f"])):
        mode, uid, gid, rdev, ino, dev, mount, nlink, size, mtime, ctime, btime = side[:12]
        assert (mode, uid, gid, rdev) == (status.st_mode, status.st_uid, status.st_gid, 0)
        assert (ino, dev, nlink, size) == (status.st_ino, status.st_dev, status.st_nlink, status.st_size)
        assert (mtime, ctime) == (status.st_mtime_ns, status.st_ctime_ns)
        assert 0 < btime <= ctime
        assert mount
    # A copy keeps the time of access of its origin, that was before it was born.
    assert new[12] < new[11]
    assert record["since_ns"] == new[11]
    assert record["lower"] == 0
    assert records["gone"][1] is None
    assert records["new"][2] is None
    assert records["new"][0]["lower"] == -1


def test_whence(found):
    records = {path: record for path, (record, _, _) in found[0].items()}
    assert {path for path, record in records.items() if record["origin"]} == {"d", "d/g", "f", "same", "to"}
    # Of the folder and the file that were replaced beneath, another inode lies there now.
    assert {path for path, record in records.items() if record["origin_other"]} >= {"d/g"}
    assert records["to"]["origin_ino"] == found[0]["moved"][2][4]
    assert records["f"]["origin_ino"] == found[0]["f"][2][4]
    # overlayfs notes nothing of a file with several names.
    assert records["pair"]["origin_ino"] == 0
    assert stat.S_ISREG(found[0]["pair"][1][0])


def test_marks(found):
    records = {path: record for path, (record, _, _) in found[0].items()}
    assert {path for path, record in records.items() if record["capable"]} == {"cap"}
    assert {path for path, record in records.items() if record["root"]} == {"", "d"}
    assert {path for path, record in records.items() if record["within"]} == {"new/deeper", "new/i"}
    assert {"d", "d/g", "f", "hidden", "same", "to"} <= {p for p, r in records.items() if r["marked"]}
    assert not records["new/i"]["marked"]


def test_what_a_folder_hides_is_gone_since_that_was_made(found):
    records, upper, _ = found
    assert records["hidden/h"][0]["since_ns"] == records["hidden"][1][11]
    assert records["hidden"][1][4] == upper["hidden"].st_ino
    assert records["gone"][0]["since_ns"] > records["f"][2][10]
