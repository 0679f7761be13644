"""Contents that are read where they lie in an archive, not out of the stream: csrc/stream.h, `at`."""

import io
import os
import struct
import subprocess
import sys
import tarfile

import pytest
from support.streams import Told, folder_of

from layerrun.bases import intake, tree
from layerrun.errors import ArchiveError
from layerrun.images.stream import Record, write_record
from layerrun.store.store import Store

MIB = 1 << 20
LAYERRUN = os.path.join(os.path.dirname(sys.executable), "layerrun")
# Small ones, then one that is larger than all that may wait; holes in what is held in memory and in what is not.
FILES = {
    **{f"small/{number}": b"%d" % number * number for number in range(200)},
    "large": os.urandom(MIB) * 20,
    "held": os.urandom(MIB) + bytes(MIB) + b"end",
    "spilt": bytes(3 * MIB) + os.urandom(3 * MIB) + bytes(3 * MIB),
    "zeros": bytes(5 * MIB),
    "border": b"x" * 65535 + bytes(65537) + b"y",
    # More than may wait to be written, so that what reads writes too; some of it twice.
    **{f"many/{number}": os.urandom(3 * MIB + number) for number in range(8)},
}
FILES |= {"twins/small": FILES["many/3"], "twins/large": FILES["large"], "twins/spilt": FILES["spilt"]}


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


def archive():
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as out:
        for name, content in FILES.items():
            info = tarfile.TarInfo(f"usr/{name}")
            info.size, info.mtime = len(content), 10**9
            info.pax_headers = {"SCHILY.xattr.user.some": "thing"} if name == "held" else {}
            out.addfile(info, io.BytesIO(content))
    return data.getvalue()


def test_a_file_and_a_pipe_become_the_same(store, folder):
    path = f"{folder}/a.tar"
    with open(path, "wb") as file:
        file.write(archive())
    digests = []
    for name, source in (("direct", path), ("piped", "-")):
        with open(path, "rb") as file:
            piped = subprocess.run(["cat"], stdin=file, stdout=subprocess.PIPE, check=True).stdout
        subprocess.run(
            [LAYERRUN, "base", "import", name, source],
            env={**os.environ, "LAYERRUN_STORE": store.path},
            input=piped if source == "-" else b"",
            check=True,
            capture_output=True,
            timeout=60,
        )
        base = store.base(name)
        assert tree.verify(store, base) == []
        digests.append(base.digest)
        top = f"{store.path}/bases/{base.id}/tree/usr"
        for member, content in FILES.items():
            with open(f"{top}/{member}", "rb") as file:
                assert file.read() == content
        assert os.path.samefile(f"{top}/twins/spilt", f"{top}/spilt")
        for member, most in (("held", 2 * MIB), ("spilt", 4 * MIB), ("zeros", 65536)):
            assert os.stat(f"{top}/{member}").st_blocks * 512 <= most
    assert digests[0] == digests[1]


class Placed(Told):
    """Says where the content of a file lies, whatever the place."""

    def __init__(self, at, size, archive=None):
        super().__init__([])
        self.at, self.size = at, size
        if archive is not None:
            self.archive = archive

    def write(self, out):
        write_record(out, folder_of("usr"))
        head = io.BytesIO()
        write_record(head, Record("f", b"usr/a", 0o644, size=self.size, mtime_ns=10**18))
        data = bytearray(head.getvalue())
        data[56:64] = struct.pack("<Q", self.at)
        out.write(data)
        write_record(out, Record("e"))


@pytest.mark.parametrize(
    ("at", "size", "why"),
    [
        (1, 4, None),
        (3, 2, None),
        (3, 3, "ends too soon"),
        (2**62, 1, "ends too soon"),
        (2**63, 1, "no proper record"),
        (2**64 - 1, 1, "no proper record"),
        (2**63 - 1, 2**40, "may come in|no proper record"),
        (1, 0, "no proper record"),
    ],
)
def test_a_place_that_a_jail_made_up(store, at, size, why):
    fd = os.memfd_create("archive")
    try:
        os.write(fd, b"usr!")
        if why is None:
            base = intake.import_base(store, "b", Placed(at, size, fd))
            assert tree.verify(store, base) == []
            with open(f"{store.path}/bases/{base.id}/tree/usr/a", "rb") as file:
                assert file.read() == b"usr!"[at - 1 :]
            return
        with pytest.raises(ArchiveError, match=why):
            intake.import_base(store, "b", Placed(at, size, fd))
    finally:
        os.close(fd)
    assert store.catalog.versions() == []


def test_two_threads_share_a_large_file(store):
    content = b"".join([bytes(MIB), os.urandom(7 * MIB), bytes(MIB // 2), b"end"])
    fd = os.memfd_create("archive")
    try:
        os.write(fd, content)
        base = intake.import_base(store, "b", Placed(1, len(content), fd))
    finally:
        os.close(fd)
    assert tree.verify(store, base) == []
    path = f"{store.path}/bases/{base.id}/tree/usr/a"
    with open(path, "rb") as file:
        assert file.read() == content
    assert os.stat(path).st_blocks * 512 < len(content) - MIB


def test_a_place_where_there_is_no_archive(store):
    """What reads from a pipe has none: nothing of this process's own is read in its stead."""
    with pytest.raises(ArchiveError, match="no proper record"):
        intake.import_base(store, "b", Placed(1, 4))
