"""The client alone against Debian's docker-registry: who we are, TLS, faults on the way, uploads that go on."""

import hashlib
import io
import json
import os
import subprocess

import pytest
from support import registries
from support.registries import Fault, auth_json, proxy, registry
from urllib3 import HTTPResponse

from layerrun.errors import ArchiveError, NotFoundError, RegistryError
from layerrun.images.blobstore import BlobFolder
from layerrun.images.documents import Descriptor
from layerrun.images.pulling import RegistryBlobs
from layerrun.images.reference import Reference
from layerrun.images.registry import Repository
from layerrun.images.session import Session
from layerrun.images.transport import Access, Transport, let_go, read_all
from layerrun.images.upload import put_blob, put_manifest

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A registry that asks nothing, without TLS."""
    with registry(str(tmp_path_factory.mktemp("plain"))) as host:
        yield host


def access(**options):
    return Access(insecure=True, **{"wait": lambda _seconds: None, **options})


def repo(host, name="a/b", *, push=True, **options):
    return Repository(access(**options), Reference.parse(f"oci://{host}/{name}"), push=push)


def sha(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


@pytest.fixture
def put(tmp_path):
    """Push bytes as a blob."""

    def do(repository, data, **options):
        path = tmp_path / "blob"
        path.write_bytes(data)
        return put_blob(repository, sha(data), len(data), lambda: open(path, "rb"), **options)

    return do


@pytest.fixture
def get(tmp_path):
    """Read a blob, of which the file may have something already."""

    def do(repository, data, begun=b""):
        with open(tmp_path / "got", "w+b") as file:
            file.write(begun)
            repository.fetch(sha(data), len(data), file)
            file.seek(0)
            return file.read()

    return do


def image(repository, put, data, tag="latest"):
    """Push a manifest with one blob as its configuration and as its only layer."""
    put(repository, data)
    part = {"mediaType": "application/octet-stream", "digest": sha(data), "size": len(data)}
    manifest = json.dumps(
        {"schemaVersion": 2, "mediaType": MANIFEST, "config": part, "layers": [part]}
    ).encode()
    return manifest, put_manifest(repository, manifest, MANIFEST, tag)


def test_blobs_and_manifests(plain, put, get):
    data = os.urandom(300_000)
    repository = repo(plain)
    assert not repository.has_blob(sha(data))
    assert put(repository, data)
    assert not put(repository, data), "what is there is not sent again"
    assert get(repository, data) == data
    assert get(repository, data, data[:1000]) == data
    assert get(repository, data, b"wrong" * 100) == data, "a wrong beginning is read anew"
    manifest, digest = image(repository, put, b"{}")
    assert repository.manifest("latest").data == manifest
    assert repository.manifest(digest).media_type == MANIFEST
    assert repository.digest_of("latest") == digest
    assert repository.digest_of("none") is None
    with pytest.raises(NotFoundError):
        repository.manifest("none")
    with pytest.raises(NotFoundError):
        get(repository, b"not there")


def test_an_empty_and_a_single_byte_blob(plain, put, get):
    for data in (b"", b"x"):
        repository = repo(plain, f"small{len(data)}")
        put(repository, data)
        assert repository.has_blob(sha(data))
        assert get(repository, data) == data


def test_mounted_from_another_repository(plain, put):
    data = os.urandom(1000)
    assert put(repo(plain, "one"), data)
    with proxy(plain) as (host, seen):
        assert not put(repo(host, "two"), data, elsewhere="one")
        assert not [line for line, _ in seen if line.startswith("PATCH")]
        assert repo(host, "two").has_blob(sha(data))
        other = os.urandom(1000)
        assert put(repo(host, "two"), other, elsewhere="one"), "sent where it is not"


def test_a_download_goes_on_where_it_was_cut(plain, put, get):
    data = os.urandom(500_000)
    put(repo(plain), data)
    cuts = [Fault("GET .*/blobs/", cut=count) for count in (100_000, 1, 0, 200_000)]
    with proxy(plain, *cuts) as (host, seen):
        assert get(repo(host, push=False), data) == data
    ranges = [headers.get("Range") for line, headers in seen if "/blobs/" in line]
    assert ranges == [None, "bytes=100000-", "bytes=100001-", "bytes=100001-", "bytes=300001-"]


def test_a_download_that_brings_nothing_ends(plain, put, get):
    data = os.urandom(5000)
    put(repo(plain), data)
    with proxy(plain, Fault("GET .*/blobs/", cut=0, times=1000)) as (host, seen):
        with pytest.raises(RegistryError, match="cut short at 0 of 5000"):
            get(repo(host), data)
        assert len(seen) < 20


def test_what_is_corrupted_once_is_read_again_and_twice_is_refused(plain, put, get):
    data = os.urandom(5000)
    put(repo(plain), data)
    with proxy(plain, Fault("GET .*/blobs/", corrupt=77)) as (host, _):
        assert get(repo(host), data) == data
    twice = Fault("GET .*/blobs/", corrupt=77, times=5)
    with proxy(plain, twice) as (host, _), pytest.raises(RegistryError, match="something else than"):
        get(repo(host), data)
    _, digest = image(repo(plain), put, b"{}")
    with proxy(plain, Fault("GET .*/manifests/", corrupt=9, times=5)) as (host, _):
        for wanted in ("latest", digest):
            with pytest.raises(RegistryError, match="instead of"):
                repo(host).manifest(wanted)


def test_more_than_announced_is_refused(plain, put):
    data = os.urandom(5000)
    put(repo(plain), data)
    with pytest.raises(RegistryError, match="more than the 4000"):
        repo(plain).fetch(sha(data), 4000, io.BytesIO())


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_registry_is_asked_again_when_it_says(plain, put, get, status):
    data = os.urandom(5000)
    waits = []
    faults = [
        Fault("GET .*/blobs/", status=status, headers={"Retry-After": "7"}),
        Fault("PATCH", status=status),
    ]
    with proxy(plain, *faults) as (host, _):
        repository = repo(host, wait=waits.append)
        put(repository, data)
        assert get(repository, data) == data
    assert any(7 <= seconds < 9 for seconds in waits)
    with proxy(plain, Fault("GET", status=status, times=1000)) as (host, seen):
        with pytest.raises(RegistryError, match=f"answers {status}: 'on purpose'"):
            get(repo(host), data)
        assert len(seen) < 10


@pytest.mark.parametrize("line", ["PATCH", "POST", "PUT .*blobs"])
def test_an_upload_that_was_cut_is_done(plain, put, get, line):
    data = os.urandom(400_000)
    fault = Fault(line, cut_request=150_000) if line == "PATCH" else Fault(line, status=503)
    with proxy(plain, fault) as (host, _):
        repository = repo(host, "cut")
        assert put(repository, data)
        assert get(repository, data) == data


def test_an_upload_goes_on_where_the_registry_has_it(put):
    data = os.urandom(400_000)
    with registries.keeping([150_000, 100_000, 0]) as (host, blobs, seen):
        assert put(repo(host), data)
        assert blobs == {sha(data): data}
    assert [line for line, _ in seen].count("POST") == 1
    ranges = [part for line, part in seen if line == "PATCH"]
    assert ranges == [None, "150000-399999", "250000-399999", "250000-399999"]


def test_an_answer_that_got_lost_counts(plain, put, get):
    data = os.urandom(1000)
    with proxy(plain, Fault("PUT .*/blobs/", cut=0)) as (host, _):
        assert put(repo(host, "lost"), data)
    assert get(repo(plain, "lost"), data) == data


def test_authorization_stays_with_its_host(plain, put, get, tmp_path):
    data = os.urandom(1000)
    section = registries.htpasswd(tmp_path)
    with registry(str(tmp_path / "auth"), auth=section) as upstream, proxy(plain) as (other, elsewhere):
        put(repo(plain, "a/b"), data)
        with proxy(upstream, Fault("GET .*/blobs/", redirect=other, times=9)) as (host, seen):
            auth_file = auth_json(tmp_path / "auth.json", host)
            # Knocks first, is asked who it is, and is sent on then.
            assert repo(host, auth_file=auth_file).has_blob(sha(data)) is False
            assert get(repo(host, auth_file=auth_file), data) == data
    assert any("Authorization" in headers for _, headers in seen)
    assert elsewhere
    assert not any("Authorization" in headers for _, headers in elsewhere)


def test_a_redirect_without_an_end(plain, put, get):
    fault = Fault("GET", redirect="itself", times=99)
    with proxy(plain, fault) as (fault.redirect, seen):
        with pytest.raises(RegistryError, match="without an end"):
            get(repo(fault.redirect), b"x")
        assert len(seen) < 10


def test_basic_auth(tmp_path, put, get, monkeypatch):
    data = os.urandom(1000)
    with registry(str(tmp_path / "auth"), auth=registries.htpasswd(tmp_path)) as host:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
        with pytest.raises(RegistryError, match="401") as caught:
            put(repo(host), data)
        assert "podman login" in caught.value.hint
        (tmp_path / "run/containers").mkdir(parents=True)
        auth_json(tmp_path / "run/containers/auth.json", host, password="wrong")
        with pytest.raises(RegistryError, match="401"):
            put(repo(host), data)
        # As podman itself writes it.
        done = subprocess.run(
            ["podman", "login", "--tls-verify=false", "-u", registries.USER, "-p", registries.PASSWORD, host],
            env={**os.environ, "REGISTRY_AUTH_FILE": str(tmp_path / "run/containers/auth.json")},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert put(repo(host), data)
        assert get(repo(host, push=False), data) == data
        # docker's place, with a scheme before the host, and the most specific first
        (tmp_path / ".docker").mkdir()
        os.rename(tmp_path / "run/containers/auth.json", tmp_path / ".docker/config.json")
        text = json.loads((tmp_path / ".docker/config.json").read_text())
        text["auths"] = {f"https://{host}/v1/": text["auths"][host], f"{host}/other": {"auth": "broken"}}
        (tmp_path / ".docker/config.json").write_text(json.dumps(text))
        assert get(repo(host), data) == data
        with pytest.raises(RegistryError, match="base64"):
            get(repo(host, "other/x"), data)


def test_a_credential_helper(tmp_path, put, monkeypatch):
    with registry(str(tmp_path / "auth"), auth=registries.htpasswd(tmp_path)) as host:
        helper = tmp_path / "docker-credential-made-up"
        answer = json.dumps({"Username": registries.USER, "Secret": registries.PASSWORD})
        helper.write_text(f"#!/bin/sh\n[ $1 = get ] && [ $(cat) = {host} ] && echo '{answer}'\n")
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        for content in ({"credHelpers": {host: "made-up"}}, {"credsStore": "made-up"}):
            (tmp_path / "auth.json").write_text(json.dumps(content))
            assert put(repo(host, auth_file=str(tmp_path / "auth.json")), os.urandom(10))


def test_tokens(tmp_path, put, get):
    data = os.urandom(1000)
    _, cert, key = registries.certificates(tmp_path)
    with registries.token_server(tmp_path, key) as (realm, seen):
        section = {
            "token": {"realm": realm, "service": "service", "issuer": "issuer", "rootcertbundle": cert}
        }
        with registry(str(tmp_path / "auth"), auth=section) as host:
            with pytest.raises(RegistryError, match="401"):
                put(repo(host, auth_file=nothing(tmp_path)), data)
            assert set(map(str, seen)) == {str((["repository:a/b:pull,push"], ""))}
            known = auth_json(tmp_path / "auth.json", host)
            assert put(repo(host, auth_file=known), data)
            assert get(repo(host, push=False, auth_file=nothing(tmp_path)), data) == data, "anybody may pull"
            assert not put(repo(host, "two", auth_file=known), data, elsewhere="a/b"), "mounted"
            assert (["repository:two:pull,push", "repository:a/b:pull"], registries.USER) in seen
            bad = auth_json(tmp_path / "bad.json", host, password="wrong")
            with pytest.raises(RegistryError, match="gives no token"):
                put(repo(host, auth_file=bad), data)
            # What `docker login` keeps where a token server gives refresh tokens.
            (tmp_path / "identity.json").write_text(
                json.dumps({"auths": {host: {"identitytoken": "identity"}}})
            )
            assert put(repo(host, "three", auth_file=str(tmp_path / "identity.json")), data)


def nothing(folder):
    (folder / "nothing.json").write_text("{}")
    return str(folder / "nothing.json")


def test_tls(tmp_path, put, get):
    data = os.urandom(1000)
    ca, cert, key = registries.certificates(tmp_path)
    with registry(str(tmp_path / "tls"), http={"tls": {"certificate": cert, "key": key}}) as host:
        reference = Reference.parse(f"oci://{host}/a/b")
        with pytest.raises(RegistryError, match="has not shown") as caught:
            Repository(Access(), reference).has_blob(sha(data))
        assert "--cert-dir" in caught.value.hint
        secure = Repository(Access(cert_dir=os.path.dirname(ca)), reference, push=True)
        assert put(secure, data)
        assert get(secure, data) == data
        assert get(repo(host), data) == data, "insecure takes TLS where there is some"
        with pytest.raises(RegistryError, match="no folder"):
            Repository(Access(cert_dir="/nowhere"), reference).has_blob(sha(data))


def test_certificates_of_a_client(tmp_path, put):
    ca, cert, key = registries.certificates(tmp_path)
    tls = {"certificate": cert, "key": key, "clientcas": [ca]}
    with registry(str(tmp_path / "tls"), http={"tls": tls}) as host:
        reference = Reference.parse(f"oci://{host}/a/b")
        options = {"cert_dir": os.path.dirname(ca), "wait": lambda _: None}
        with pytest.raises(RegistryError):
            put(Repository(Access(**options), reference, push=True), b"data")
        os.rename(cert, f"{tmp_path}/certs/own.cert")
        os.rename(key, f"{tmp_path}/certs/own.key")
        assert put(Repository(Access(**options), reference, push=True), b"data")


def test_plain_http_only_if_wished(plain):
    with pytest.raises(RegistryError) as caught:
        Repository(Access(wait=lambda _: None), Reference.parse(f"oci://{plain}/a")).has_blob(sha(b""))
    assert "--insecure" in caught.value.hint or "--cert-dir" in caught.value.hint


def test_nobody_there():
    with pytest.raises(RegistryError, match=r"cannot be reached: .*refused"):
        Repository(Access(wait=lambda _: None), Reference.parse("oci://127.0.0.1:1/a")).has_blob(sha(b""))


def test_an_answer_that_nobody_wants_is_not_read_to_its_end():
    class Endless(io.RawIOBase):
        count = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            self.count += len(buffer)
            assert self.count < 1 << 20
            return len(buffer)

    endless = Endless()
    let_go(HTTPResponse(endless, preload_content=False))
    assert endless.closed
    read_all(HTTPResponse(io.BytesIO(b"x" * 9), preload_content=False), 9, "it")
    with pytest.raises(RegistryError, match="too long"):
        read_all(HTTPResponse(io.BytesIO(b"x" * 10), preload_content=False), 9, "it")


def test_more_than_could_be_unpacked_is_not_read(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        blobs = RegistryBlobs([], BlobFolder(fd))
        layers = [Descriptor("sha256:" + digit * 64, 600, "a.layer.b") for digit in "ab"]
        with pytest.raises(ArchiveError, match="more than 1000"):
            blobs.fetch_all(layers, 1000)
    finally:
        os.close(fd)


@pytest.mark.parametrize("target", ["https://h:99999/", "http://[", "ftp://h/", "http://h/"])
def test_where_nobody_goes(target):
    with pytest.raises(RegistryError, match="redirects"):
        Transport(Access()).follow("https://registry/v2/", target)


@pytest.mark.parametrize(
    ("realm", "taken"),
    [
        ("https://tokens/", True),
        ("http://127.0.0.1:1/token", True),
        ("/token", True),
        ("http://[::1]:1/token", True),
        ("http://127.0.0.1:1@elsewhere/", False),
        ("http://elsewhere/", False),
        ("http://registry:81/", False),
        ("https://elsewhere:99999/", False),
    ],
)
def test_whom_we_ask_for_tokens(monkeypatch, realm, taken):
    monkeypatch.setattr(Transport, "_scheme", lambda *_: "http")
    session = Session(Transport(Access(insecure=True)), "registry", "a")
    if taken:
        assert session._realm(realm)
    else:
        with pytest.raises(RegistryError, match="for a token"):
            session._realm(realm)
