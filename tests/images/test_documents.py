"""The JSON of images: what is read, what is refused, and which image of an index it is."""

import hashlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerrun.errors import ArchiveError, LayerrunError, NotFoundError, UsageError
from layerrun.images.config import parse_config
from layerrun.images.documents import Index, Manifest, parse_document
from layerrun.images.local import open_layout
from layerrun.images.platform import Platform, choose, machine, parse_platform

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker.distribution.manifest."
DIGEST = "sha256:" + "a" * 64


def described(**more):
    return {"digest": DIGEST, "size": 3, **more}


def parsed(media_type="", **document):
    return parse_document(json.dumps(document).encode(), media_type)


def test_media_types_are_those_of_oci_and_docker_and_may_be_left_out():
    assert isinstance(parsed(manifests=[described()]), Index)
    assert isinstance(parsed(config=described(), layers=[described()]), Manifest)
    assert isinstance(parsed(config=described(), layers=None), Manifest)
    for kind in (DOCKER + "v2+json", OCI + "manifest.v1+json"):
        assert isinstance(parsed(kind, config=described(), layers=[]), Manifest)
        assert isinstance(parsed(mediaType=kind, config=described(), layers=[]), Manifest)
    for kind in (DOCKER + "list.v2+json", OCI + "index.v1+json"):
        assert isinstance(parsed(kind, manifests=[]), Index)


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({"manifests": [], "layers": []}, "at the same time"),
        ({"manifests": [], "config": described()}, "at the same time"),
        ({"mediaType": OCI + "manifest.v1+json", "manifests": []}, "neither"),
        ({"mediaType": OCI + "index.v1+json", "config": described(), "layers": []}, "neither"),
        ({}, "neither"),
        ({"mediaType": 7}, "text"),
        ({"manifests": {}}, "where manifests should be"),
        ({"manifests": [described(digest="sha256:../../etc/passwd")]}, "no sha256"),
        ({"manifests": [described(digest="md5:" + "a" * 32)]}, "no sha256"),
        ({"manifests": [described(size=-1)]}, "size"),
        ({"manifests": [described(size=True)]}, "size"),
        ({"manifests": [described(platform=[])]}, "platform"),
        ({"manifests": [described(annotations={"a": 1})]}, "annotations"),
        ({"manifests": ["x"]}, "descriptor"),
        ({"config": described(), "layers": [described()] * 129}, "no more than 128"),
        (
            {"config": described(mediaType="application/vnd.wasm.config.v1+json"), "layers": []},
            "none of a file",
        ),
        ({"config": described(), "layers": [described(mediaType="text/plain")]}, "unknown kind"),
        (
            {"config": described(), "layers": [described(mediaType=OCI + "layer.v1.tar+gzip+encrypted")]},
            "encrypted",
        ),
        ({"fsLayers": [], "schemaVersion": 1}, "schema 1"),
    ],
)
def test_refused(document, match):
    with pytest.raises(ArchiveError, match=match):
        parsed(**document)


def test_what_says_two_things_of_itself_is_refused():
    with pytest.raises(ArchiveError, match="announced"):
        parsed(OCI + "manifest.v1+json", mediaType=OCI + "index.v1+json", manifests=[])


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"[" * 100_000, b'{"a":' * 100_000, b" " * (5 << 20)])
def test_what_is_no_json_object_is_refused(data):
    with pytest.raises(ArchiveError):
        parse_document(data)


LEAVES = st.sampled_from(
    [None, True, 0, 7, -1, 1.5, "", "a", "\0", "\ud800", "layers", "a/b", DIGEST, [], {}]
)
KEYS = st.sampled_from(
    "mediaType manifests layers config digest size platform annotations os architecture variant rootfs type "
    "diff_ids Env Cmd Entrypoint User WorkingDir".split()
)
DOCUMENT = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)


@given(st.dictionaries(KEYS, DOCUMENT))
def test_nothing_but_our_own_errors(document):
    data = json.dumps(document).encode()
    for read in (parse_document, lambda d: parse_config(d, 0)):
        try:
            read(data)
        except LayerrunError:
            pass


def config(**more):
    return {
        "os": "linux",
        "architecture": machine().architecture,
        "rootfs": {"type": "layers", "diff_ids": []},
        **more,
    }


def test_settings():
    found = parse_config(
        json.dumps(
            config(
                config={
                    "Env": ["A=1", "=x", "A=2", "HOME", "*"],
                    "Cmd": ["sh"],
                    "WorkingDir": "srv/../a",
                    "User": "x",
                }
            )
        ).encode(),
        0,
    )
    assert found.to_json() == {"env": ["A=2"], "entrypoint": [], "cmd": ["sh"], "workdir": "/a", "user": "x"}


@pytest.mark.parametrize(
    ("more", "match"),
    [
        ({"rootfs": None}, "what its layers are"),
        ({"rootfs": {"type": "layers", "diff_ids": [DIGEST]}}, "has 0 layers"),
        ({"config": {"Cmd": "sh"}}, "Cmd"),
        ({"config": {"Cmd": ["a\0b"]}}, "Cmd"),
        ({"config": {"User": "\ud800"}}, "User"),
        ({"config": {"Env": ["A=" + "x" * (1 << 20)]}}, "settings"),
        ({"config": []}, None),
        ({"architecture": "a/b"}, "platform"),
    ],
)
def test_strange_settings(more, match):
    data = json.dumps(config(**more)).encode()
    if match is None:
        parse_config(data, 0)
        return
    with pytest.raises(ArchiveError, match=match):
        parse_config(data, 0)


def test_platforms():
    assert str(parse_platform("arm64")) == "linux/arm64"
    assert parse_platform("linux/x86_64") == Platform("linux", "amd64")
    for text in ("", "a//b", "a/b/c/d", "linux/a b"):
        with pytest.raises(UsageError):
            parse_platform(text)


@pytest.mark.parametrize(
    ("wanted", "offered", "place"),
    [
        ("amd64", "arm64 amd64", 1),
        ("amd64", "linux/amd64/v3 linux/amd64", 1),
        ("amd64", "linux/amd64/v3", None),
        ("linux/amd64/v3", "linux/amd64/v1 linux/amd64/v2 linux/amd64/v4", 1),
        ("arm64", "linux/arm64/v8", 0),
        ("linux/arm64/v8", "linux/arm64", 0),
        ("linux/arm/v7", "linux/arm/v5 linux/arm/v6 arm64", 1),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("386", "amd64", None),
        ("amd64", "windows/amd64", None),
    ],
)
def test_the_best_that_fits(wanted, offered, place):
    assert choose(parse_platform(wanted), [parse_platform(text) for text in offered.split()]) == place


class Layout:
    """A layout made by hand, so that it can be wrong."""

    def __init__(self, path):
        self.path = path
        os.makedirs(f"{path}/blobs/sha256")
        self.write("oci-layout", {"imageLayoutVersion": "1.0.0"})

    def write(self, name, document):
        with open(f"{self.path}/{name}", "w") as file:
            json.dump(document, file)

    def blob(self, document, **more):
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{self.path}/blobs/sha256/{digest}", "wb") as file:
            file.write(data)
        return {"digest": f"sha256:{digest}", "size": len(data), **more}

    def image(self, platform=None, name=None, **settings):
        os_, _, architecture = (platform or str(machine())).partition("/")
        made = config(os=os_, architecture=architecture.partition("/")[0], config=settings)
        more = {"platform": {"os": os_, "architecture": architecture}} if platform else {}
        if name:
            more["annotations"] = {"org.opencontainers.image.ref.name": name}
        return self.blob({"config": self.blob(made), "layers": []}, **more)

    def index(self, *manifests):
        self.write("index.json", {"schemaVersion": 2, "manifests": list(manifests)})


@pytest.fixture
def layout(folder):
    return Layout(f"{folder}/layout")


def test_the_image_of_this_machine_and_of_another(layout):
    mine, other = layout.image(str(machine()), Cmd=["mine"]), layout.image("linux/s390x", Cmd=["other"])
    nothing = layout.blob({}, platform={"os": "unknown", "architecture": "unknown"}) | {
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"}
    }
    nested = layout.blob({"manifests": [nothing, other, mine]}, mediaType=OCI + "index.v1+json")
    for manifests in ([other, mine, nothing], [nested]):
        layout.index(*manifests)
        assert open_layout(layout.path).config.cmd == ("mine",)
        assert open_layout(layout.path, platform=parse_platform("s390x")).config.cmd == ("other",)
        with pytest.raises(NotFoundError, match="not for linux/riscv64"):
            open_layout(layout.path, platform=parse_platform("riscv64"))
        assert open_layout(layout.path, other["digest"], parse_platform("s390x")).digest == other["digest"]


def test_names(layout):
    layout.index(layout.image(name="a", Cmd=["a"]), layout.image(name="b", Cmd=["b"]))
    assert open_layout(layout.path, "b").config.cmd == ("b",)
    with pytest.raises(UsageError, match="several images: a, b") as caught:
        open_layout(layout.path)
    assert caught.value.hint.endswith(":b")
    with pytest.raises(NotFoundError) as caught:
        open_layout(layout.path, "c")
    assert caught.value.hint == "there is a, b"


def test_another_platform_only_if_asked_for(layout):
    layout.index(layout.image("linux/s390x") | {"platform": None})
    with pytest.raises(NotFoundError, match="this machine is") as caught:
        open_layout(layout.path)
    assert caught.value.hint.startswith("--platform linux/s390x")
    assert str(open_layout(layout.path, platform=parse_platform("s390x")).config.platform) == "linux/s390x"


def test_damage(layout):
    image = layout.image()
    layout.index(image)
    path = f"{layout.path}/blobs/{image['digest'].replace(':', '/')}"
    with open(path, "r+b") as file:
        file.write(b" ")
    with pytest.raises(ArchiveError, match="damaged"):
        open_layout(layout.path)
    os.truncate(path, 10)
    with pytest.raises(ArchiveError, match="10 bytes"):
        open_layout(layout.path)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(ArchiveError, match="no regular file"):
        open_layout(layout.path)
    os.unlink(path)
    with pytest.raises(ArchiveError, match="missing"):
        open_layout(layout.path)
    layout.write("oci-layout", {"imageLayoutVersion": "2.0.0"})
    with pytest.raises(ArchiveError, match="version"):
        open_layout(layout.path)


def test_indexes_without_end(layout):
    inner = layout.image()
    for _ in range(6):
        inner = layout.blob({"manifests": [inner]}, mediaType=OCI + "index.v1+json")
    layout.index(inner)
    with pytest.raises(ArchiveError, match="behind more than"):
        open_layout(layout.path)
