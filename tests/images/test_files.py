"""Images in files, made by others' tools, become bases; compared with what `umoci unpack` makes of them."""

import json
import os
import shutil
import subprocess

import pytest
from support.stores import check_whole

from layerrun.bases import tree
from layerrun.bases.sources import bring
from layerrun.errors import ArchiveError, NotFoundError, UsageError
from layerrun.images.platform import machine
from layerrun.model import BaseKind
from layerrun.store.store import Store


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


def run(*argv):
    subprocess.run(argv, check=True, capture_output=True, timeout=100)


def write(path, text="x", mode=0o644):
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)


def first(root):
    for name in ("usr/bin", "etc/gone", "etc/filled", "srv/old"):
        os.makedirs(f"{root}/{name}")
    for name in (
        "usr/bin/tool",
        "etc/gone/a",
        "etc/filled/a",
        "etc/filled/b",
        "srv/old/a",
        "etc/file",
        "etc/twin",
    ):
        write(f"{root}/{name}", name)
    os.chmod(f"{root}/usr/bin/tool", 0o4755)
    os.link(f"{root}/usr/bin/tool", f"{root}/usr/bin/same")
    os.symlink("usr/bin", f"{root}/bin")
    os.symlink("/etc/file", f"{root}/etc/link")
    os.chown(f"{root}/etc/twin", 33, 34)


def second(root):
    shutil.rmtree(f"{root}/etc/gone")
    os.unlink(f"{root}/etc/filled/a")
    shutil.rmtree(f"{root}/srv/old")
    write(f"{root}/srv/old", "a file in a folder's place")
    os.unlink(f"{root}/etc/link")
    os.mkdir(f"{root}/etc/link")
    os.link(f"{root}/etc/twin", f"{root}/usr/other")  # of a file that the layer below has
    os.setxattr(f"{root}/etc/file", "user.mark", b"a\0b")
    os.setxattr(
        f"{root}/usr/bin/tool", "security.capability", b"\1\0\0\2" + b"\0\x20\0\0" + b"\0" * 12
    )  # cap_net_raw


def third(root):
    os.rename(f"{root}/etc/filled", f"{root}/etc/renamed")
    os.mkdir(f"{root}/etc/filled")
    write(f"{root}/etc/filled/c")
    os.mkfifo(f"{root}/srv/fifo")
    os.chmod(f"{root}/usr", 0o711)


@pytest.fixture(scope="module")
def layout(tmp_path_factory):
    """An image of three layers in an OCI image layout; and what `umoci unpack` makes of it."""
    top = tmp_path_factory.mktemp("image")
    made, bundle = f"{top}/layout", f"{top}/bundle"
    run("umoci", "init", "--layout", made)
    run("umoci", "new", "--image", f"{made}:web")
    run("umoci", "unpack", "--image", f"{made}:web", bundle)
    for change in (first, second, third):
        change(f"{bundle}/rootfs")
        run("umoci", "repack", "--refresh-bundle", "--image", f"{made}:web", bundle)
    words = ("--config.env=GREETING=hello", "--config.cmd=/bin/tool", "--config.workingdir=/srv")
    run("umoci", "config", "--image", f"{made}:web", *words)
    shutil.rmtree(bundle)
    run("umoci", "unpack", "--image", f"{made}:web", bundle)
    yield made
    shutil.rmtree(top)


@pytest.fixture(scope="module")
def unpacked(layout):
    return f"{os.path.dirname(layout)}/bundle/rootfs"


def copied(layout, target):
    run("skopeo", "copy", "-q", f"oci:{layout}:web", target)


def zstd(layout, folder):
    run("skopeo", "copy", "-q", "--dest-compress-format", "zstd", f"oci:{layout}:web", f"oci:{folder}/z:web")
    return f"{folder}/z"


def docker_tar(layout, folder):
    copied(layout, f"docker-archive:{folder}/d.tar:web:1")
    return f"{folder}/d.tar"


def schema2(layout, folder):
    """A layout whose documents are docker's."""
    copied(layout, f"dir:{folder}/dir")
    run("skopeo", "copy", "-q", "--format", "v2s2", f"dir:{folder}/dir", f"dir:{folder}/v2")
    os.makedirs(f"{folder}/l/blobs/sha256")
    for name in os.listdir(f"{folder}/v2"):
        if len(name) == 64:
            os.rename(f"{folder}/v2/{name}", f"{folder}/l/blobs/sha256/{name}")
    import hashlib

    with open(f"{folder}/v2/manifest.json", "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    os.rename(f"{folder}/v2/manifest.json", f"{folder}/l/blobs/sha256/{digest}")
    assert b"application/vnd.docker.distribution.manifest.v2+json" in data
    entry = {"digest": f"sha256:{digest}", "size": len(data), "mediaType": json.loads(data)["mediaType"]}
    write(f"{folder}/l/index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    write(f"{folder}/l/oci-layout", '{"imageLayoutVersion": "1.0.0"}')
    return f"{folder}/l"


def archive(layout, folder):
    copied(layout, f"oci-archive:{folder}/o.tar:web")
    return f"{folder}/o.tar"


def tarred(layout, folder):
    run("tar", "-C", layout, "-cf", f"{folder}/t.tar", ".")
    return f"{folder}/t.tar:web"


KINDS = {
    "layout": lambda layout, folder: layout,
    "layout, by its tag": lambda layout, folder: f"oci:{layout}:web",
    "zstd": zstd,
    "docker archive": docker_tar,
    "layout in a tar": archive,
    "layout in a tar of tar's": tarred,
    "schema 2": schema2,
}


@pytest.mark.parametrize("kind", KINDS)
def test_as_umoci_unpacks_it(store, folder, layout, unpacked, kind):
    source = KINDS[kind](layout, folder)
    base = bring(store, "web", source)
    assert base.digest == bring(store, "same", unpacked).digest
    assert tree.verify(store, base) == []
    origin = base.origin
    assert origin["config"]["env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    ] * ("PATH" in str(origin)) + ["GREETING=hello"]
    assert (origin["config"]["cmd"], origin["config"]["workdir"]) == (["/bin/tool"], "/srv")
    assert origin["platform"] == str(machine())
    root = f"{store.path}/bases/{base.id}/tree"
    assert os.path.samefile(f"{root}/etc/twin", f"{root}/usr/other")
    check_whole(store.path)


def blobs_of(layout):
    """The layers of a layout's only image, as paths, the lowest first."""
    with open(f"{layout}/index.json") as file:
        digest = json.load(file)["manifests"][0]["digest"]
    with open(f"{layout}/blobs/{digest.replace(':', '/')}") as file:
        manifest = json.load(file)
    return [f"{layout}/blobs/{one['digest'].replace(':', '/')}" for one in manifest["layers"]]


@pytest.mark.parametrize("where", ["first", "last", "cut"])
def test_a_changed_layer_is_found(store, folder, layout, where):
    mine = f"{folder}/mine"
    shutil.copytree(layout, mine)
    path = blobs_of(mine)[0 if where == "first" else -1]
    if where == "cut":
        os.truncate(path, os.stat(path).st_size - 1)
    else:
        with open(path, "r+b") as file:
            file.seek(-12, os.SEEK_END)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ArchiveError, match=r"damaged|bytes"):
        bring(store, "web", mine)
    assert store.catalog.bases() == []
    assert os.listdir(f"{store.path}/bases") == []
    check_whole(store.path)


def test_a_wrong_diff_id_is_found(store, folder, layout):
    """The layer is what the manifest says, and not what the configuration says."""
    archive = docker_tar(layout, folder)
    run("tar", "-C", folder, "-xf", archive)
    with open(f"{folder}/manifest.json") as file:
        found = json.load(file)[0]
    low, *_, high = found["Layers"]
    os.rename(f"{folder}/{low}", f"{folder}/kept")
    shutil.copyfile(f"{folder}/{high}", f"{folder}/{low}")
    names = [name for name in os.listdir(folder) if name.endswith((".tar", ".json")) and name != "d.tar"]
    run("tar", "-C", folder, "-cf", f"{folder}/wrong.tar", *names)
    with pytest.raises(ArchiveError, match="unpacked, and sha256:"):
        bring(store, "web", f"docker-archive:{folder}/wrong.tar")
    assert store.catalog.bases() == []
    check_whole(store.path)


def test_which_image_is_meant(store, folder, layout):
    docker = docker_tar(layout, folder)
    for text, error, match in (
        (f"{layout}:other", NotFoundError, "no image 'other'"),
        (f"{docker}:other", NotFoundError, "no image 'other'"),
        (f"oci:{docker}", UsageError, "no folder"),
        (f"docker-archive:{layout}", UsageError, "no archive"),
        (f"{folder}:x", UsageError, "no OCI image layout"),
        (f"{layout}/index.json:x", UsageError, "holds no image"),
        (f"{folder}/nothing", UsageError, "there is no file"),
        (f"{layout}@sha256:{'0' * 64}", ArchiveError, "missing"),
    ):
        with pytest.raises(error, match=match):
            bring(store, "web", text)
    with pytest.raises(NotFoundError, match="not for linux/s390x"):
        bring(store, "web", layout, platform="s390x")
    made = bring(store, "web", f"{docker}:web:1")
    assert bring(store, "web", f"{layout}@{store_digest(store, layout)}") == made


def store_digest(store, layout):
    return bring(store, "again", layout).origin["digest"]


def test_an_image_of_a_file_system_is_mounted(store, folder, unpacked):
    expected = bring(store, "tree", unpacked)
    run("mkfs.erofs", f"{folder}/a.erofs", unpacked)
    run("mksquashfs", unpacked, f"{folder}/a.sqfs", "-no-progress")
    for name in ("erofs", "sqfs"):
        base = bring(store, name, f"{folder}/a.{name}")
        assert base.kind is BaseKind.IMAGE
        assert base.entries == expected.entries
        assert tree.verify(store, base) == []
        if name == "erofs":  # kernels may be built without attributes in squashfs
            assert base.digest == expected.digest


def test_a_layout_in_a_folder_called_oci(folder, monkeypatch):
    from layerrun.bases.opening import path_of

    monkeypatch.chdir(folder)
    assert path_of("oci:web") == "web"
    os.mkdir("oci")
    assert path_of("oci:web") == "oci"
    os.mkdir("web")
    assert path_of("oci:web") == "web"
