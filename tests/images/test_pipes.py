"""Images that come from a pipe, or are compressed as a whole: they are kept in a file of the store without a name."""

import bz2
import contextlib
import fcntl
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
import threading

import pytest
from support.layers import layout_of, tar_of
from support.stores import check_whole

from layerrun.bases import opening, spooling, tree
from layerrun.bases.sources import bring, source_of
from layerrun.errors import ArchiveError, NotFoundError, SystemError, UsageError
from layerrun.images.limits import Limits
from layerrun.images.zstandard import library
from layerrun.store.store import Store

LAYERS = [tar_of([("usr", "d", ""), ("usr/a", "f", "a")]), tar_of([("usr/b", "f", "b" * 300_000)])]
PACKED = {
    "plain": lambda data: data,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": lambda data: library().compress(data),
    # A frame that says nothing, then two members.
    "frames": lambda data: (
        b"\x50\x2a\x4d\x18\4\0\0\0none" + library().compress(data[:700]) + library().compress(data[700:])
    ),
}


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """A layout in a tar and a docker archive, as bytes; and what skopeo made them of."""
    top = str(tmp_path_factory.mktemp("archives"))
    layout = layout_of(f"{top}/layout", LAYERS)
    for kind, name in (("oci-archive", "o"), ("docker-archive", "d")):
        argv = ["skopeo", "copy", "-q", f"oci:{layout}:x", f"{kind}:{top}/{name}.tar:localhost/web:1"]
        subprocess.run(argv, check=True, capture_output=True, timeout=100)
    with open(f"{top}/o.tar", "rb") as first, open(f"{top}/d.tar", "rb") as second:
        return {"layout": first.read(), "docker": second.read(), "path": layout}


@pytest.fixture
def piped():
    """A function that lets some bytes come from standard input, the first few apart."""
    threads = []
    kept = os.dup(0)

    def write(fd, data, cut):
        with contextlib.suppress(BrokenPipeError), os.fdopen(fd, "wb", buffering=0) as file:
            file.write(data[:cut])
            for at in range(cut, len(data), 1 << 20):
                file.write(data[at : at + (1 << 20)])

    def pipe(data, cut=1000):
        reader, writer = os.pipe()
        os.dup2(reader, 0)
        os.close(reader)
        threads.append(threading.Thread(target=write, args=(writer, data, cut)))
        threads[-1].start()
        return "-"

    yield pipe
    os.dup2(kept, 0)
    os.close(kept)
    for thread in threads:
        thread.join()


@pytest.mark.parametrize(
    "packed",
    [
        "plain",
        "frames",
        *(pytest.param(kind, marks=pytest.mark.long) for kind in ("gzip", "xz", "bzip2", "zstd")),
    ],
)
def test_an_image_from_a_pipe(store, archives, piped, packed):
    """docker archives and layouts in a tar, whatever they are compressed by."""
    kind = "docker" if packed in ("plain", "gzip", "frames") else "layout"
    base = bring(store, "web", piped(PACKED[packed](archives[kind])))
    assert base.digest == bring(store, "same", archives["path"]).digest
    assert base.source.startswith("docker-archive:-")
    with pytest.raises(UsageError, match="a pipe"):
        source_of(store, "web")
    assert os.listdir(f"{store.path}/staging") == []
    check_whole(store.path)


def test_an_image_that_is_compressed_as_a_whole(store, archives, folder):
    with open(f"{folder}/image.tar.zst", "wb") as file:
        file.write(PACKED["zstd"](archives["docker"]))
    base = bring(store, "web", f"{folder}/image.tar.zst")
    assert base.source == f"{folder}/image.tar.zst:localhost/web:1"
    assert tree.verify(store, base) == []


def test_which_image_of_a_pipe(store, archives, piped):
    bring(store, "web", "docker-archive:" + piped(archives["docker"]) + ":localhost/web:1")
    with pytest.raises(NotFoundError, match="docker-archive:-"):
        bring(store, "other", "docker-archive:" + piped(archives["docker"]) + ":none")


def test_an_archive_from_a_pipe_is_not_kept(store, piped, monkeypatch):
    """A tree, plain or compressed, is read as it comes."""
    monkeypatch.setattr(spooling, "spool", None)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name in ("usr/" + "n" * size for size in (1, 90)):
            info = tarfile.TarInfo(name)
            info.size = 100_000
            tar.addfile(info, io.BytesIO(os.urandom(info.size)))
    digests = {bring(store, kind, piped(PACKED[kind](data.getvalue()))).digest for kind in ("plain", "gzip")}
    assert len(digests) == 1


@pytest.mark.parametrize("kind", ["plain", "gzip"])
def test_no_room_for_an_image_of_a_pipe(folder, archives, piped, kind):
    where = f"{folder}/small"
    os.mkdir(where)
    layers = [*LAYERS, tar_of([("usr/large", "f", os.urandom(3 << 20).hex())])]
    layout = layout_of(f"{folder}/layout", layers, compress=False)
    subprocess.run(["tar", "-C", layout, "-cf", f"{folder}/t.tar", "."], check=True)
    with open(f"{folder}/t.tar", "rb") as file:
        data = file.read()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m,mode=700", "tmpfs", where], check=True)
    try:
        with Store.open(f"{where}/store") as store:
            with pytest.raises(SystemError, match="No space left") as caught:
                bring(store, "web", piped(PACKED[kind](data)))
            assert "LAYERRUN_STORE" in caught.value.hint
            assert os.listdir(f"{store.path}/staging") == []
            assert store.catalog.bases() == []
            room = os.statvfs(where)
            assert room.f_bfree * room.f_frsize > 2 << 20
    finally:
        subprocess.run(["umount", "-l", where], check=True)


def test_an_image_that_is_too_much(store, archives, piped):
    zeros = tar_of([("usr/zeros", "f", "\0" * (30 << 20))])
    for packed in ("plain", "zstd"):
        data = archives["layout"][:512] + zeros
        with pytest.raises(ArchiveError, match=r"larger than|neither an OCI"):
            bring(store, "web", "docker-archive:" + piped(PACKED[packed](data)), max_size="1M")
    assert store.catalog.bases() == []


def test_a_damaged_one(store, archives, piped):
    for data in (gzip.compress(archives["docker"])[:-300], lzma.compress(archives["layout"])[:900]):
        with pytest.raises(ArchiveError, match="damaged"):
            bring(store, "web", piped(data, cut=5))
    assert store.catalog.bases() == []
    check_whole(store.path)


def test_what_may_be_said_of_standard_input(store):
    assert opening.path_of("docker-archive:-:a:b") == opening.path_of("-:x") == opening.path_of("-") == "-"


def test_a_pipe_with_a_name(store, archives, folder):
    """It is opened once: who writes would else take the first look for its only reader."""
    path = f"{folder}/named"
    os.mkfifo(path)
    writer = subprocess.Popen(["sh", "-c", 'exec cat >"$0"', path], stdin=subprocess.PIPE)
    thread = threading.Thread(target=writer.communicate, args=(archives["docker"],))
    thread.start()
    base = bring(store, "web", path)
    thread.join()
    assert writer.returncode == 0
    assert base.digest == bring(store, "same", archives["path"]).digest


@pytest.mark.parametrize(("kind", "source"), [("docker", "docker-archive:-:localhost/web:1"), ("tar", "-")])
def test_a_pipe_of_a_shell_is_remembered_as_one(store, archives, kind, source):
    """Of a path such as /dev/fd/63 nothing is there afterwards."""
    data = archives["docker"] if kind == "docker" else LAYERS[0]
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        thread = threading.Thread(target=writer.communicate, args=(data,))
        fd = os.dup(writer.stdout.fileno())
        writer.stdout.close()
        writer.stdout = None
        thread.start()
        base = bring(store, "web", f"/dev/fd/{fd}")
        thread.join()
        os.close(fd)
    assert base.source == source
    with pytest.raises(UsageError, match="came from a pipe"):
        source_of(store, "web")


@pytest.mark.parametrize("packed", ["plain", "gzip"])
def test_a_file_that_is_read_from_its_middle(layerrun, folder, packed):
    """What a shell has read of its input is not ours."""
    data = PACKED[packed](tar_of([("usr", "d", ""), ("usr/a", "f", "a" * 3_000_000)]))
    for name, before in (("whole", b""), ("behind", bytes(512))):
        with open(f"{folder}/{name}", "wb") as file:
            file.write(before + data)
        with open(f"{folder}/{name}", "rb") as file:
            os.lseek(file.fileno(), len(before), os.SEEK_SET)
            subprocess.run(
                layerrun.argv("base", "import", name, "-"),
                env=layerrun.env(),
                stdin=file,
                check=True,
                timeout=60,
            )
    shown = json.loads(layerrun("base", "list", "--json").out)["bases"]
    assert len({base["digest"] for base in shown if base["kind"] == "tree"}) == 1


def test_what_is_kept_for_a_while_cannot_be_written_to(store, archives):
    """A jail that reads one layer could else change what the next one reads."""
    reader, writer = os.pipe()
    os.write(writer, archives["docker"][:4096])
    os.close(writer)
    with contextlib.ExitStack() as stack:
        fd = spooling.spool(store, stack, spooling.look(stack, reader), Limits())
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
        assert os.pread(fd, 4096, 0) == archives["docker"][:4096]
    os.close(reader)
