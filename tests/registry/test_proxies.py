"""Registries and channels behind a proxy: found as by other clients, and never told who we are."""

from __future__ import annotations

import base64
import io
import os

import pytest
from support import registries
from support.channels import Web
from support.proxies import web_proxy
from support.registries import PASSWORD, USER, auth_json, certificates, htpasswd, registry
from support.sandbox import small_tree

from layerrun.errors import RegistryError, UsageError
from layerrun.fleet import trust
from layerrun.images.proxies import make_pool, proxy_of
from layerrun.images.reference import Reference
from layerrun.images.registry import Repository
from layerrun.images.transport import Access
from layerrun.images.upload import put_blob

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD")


@pytest.fixture(autouse=True)
def none_from_outside(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("host", "names", "direct"),
    [
        ("r.example.org", "", False),
        ("r.example.org", "example.org", True),
        ("r.example.org", "other.test, .example.org", True),
        ("r.example.org", "*.example.org", True),
        ("example.org", ".example.org", False),
        ("example.org", "EXAMPLE.org", True),
        ("badexample.org", "example.org", False),
        ("r.example.org:5000", "example.org:5000", True),
        ("r.example.org:5001", "example.org:5000", False),
        ("r.example.org", "example.org:443", True),
        ("r.example.org", "*", True),
        ("10.1.2.3:5000", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3:5000", "10.1.2.3:5000", True),
        ("[fd00::1]:5000", "fd00::/8", True),
        ("[fe80::1]", "fd00::/8", False),
        ("127.0.0.1:5000", "", True),
        ("localhost", "", True),
        ("[::1]:5000", "", True),
    ],
)
def test_what_is_asked_directly(monkeypatch, host, names, direct):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    monkeypatch.setenv("NO_PROXY", names)
    assert proxy_of("https", host) == (None if direct else "http://proxy.test:3128")


def test_which_variable_counts(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "all.test:1")
    assert proxy_of("https", "example.org") == "http://all.test:1"
    monkeypatch.setenv("HTTPS_PROXY", "https://large.test")
    monkeypatch.setenv("https_proxy", "http://small.test:3128/")
    assert proxy_of("https", "example.org") == "http://small.test:3128/"
    assert proxy_of("http", "example.org") == "http://all.test:1"
    monkeypatch.delenv("ALL_PROXY")
    monkeypatch.setenv("HTTP_PROXY", "http://asked-for-by-a-stranger.test")
    monkeypatch.setenv("REQUEST_METHOD", "GET")
    assert proxy_of("http", "example.org") is None
    for wrong in ("socks5://a:secret@proxy.test:1", "http://", "http://proxy.test:x"):
        monkeypatch.setenv("https_proxy", wrong)
        with pytest.raises(UsageError, match="no HTTP proxy") as caught:
            proxy_of("https", "example.org")
        assert "secret" not in str(caught.value)


def test_through_a_tunnel_with_tls(layerrun, folder):
    """The proxy sees to which host, and its own password; neither ours nor what is sent."""
    _, cert, key = certificates(folder, host="registry.test")
    tls = {"http": {"tls": {"certificate": cert, "key": key}}}
    tree = small_tree(f"{folder}/shell")
    with open(f"{tree}/usr/marked", "w") as file:
        file.write("marked")
    with (
        registry(f"{folder}/r", auth=htpasswd(folder), **tls) as upstream,
        web_proxy({"registry.test:443": upstream}, "us:our@password") as (proxy, seen),
    ):
        auth = auth_json(f"{folder}/auth.json", "registry.test")
        words = ("--cert-dir", f"{folder}/certs", "--auth-file", auth)
        layerrun("base", "import", "small", tree, check=0)
        env = {"HTTPS_PROXY": f"http://us:our%40password@{proxy}"}
        layerrun("base", "push", "small", "oci://registry.test/small:1", *words, env=env, check=0)
        layerrun("base", "pull", "back", "oci://registry.test/small:1", *words, env=env, check=0)
        assert set(seen.lines) == {"CONNECT registry.test:443"}
        told = base64.b64encode(b"us:our@password").decode()
        assert {headers["Proxy-Authorization"] for headers in seen.headers} == {f"Basic {told}"}
        assert not [headers for headers in seen.headers if "Authorization" in headers]
        secret = base64.b64encode(f"{USER}:{PASSWORD}".encode())
        assert len(seen.bytes) > 10_000
        for word in (secret, PASSWORD.encode(), told.encode(), b"v2/small"):
            assert word not in seen.bytes
        said = layerrun(
            "base",
            "pull",
            "no",
            "oci://registry.test/small:1",
            *words,
            env={"HTTPS_PROXY": f"http://{proxy}"},
        )
        assert (said.rc, seen.lines[-2:]) == (1, ["CONNECT registry.test:443"] * 2), said.err
        assert "through the proxy" in said.err
        assert "407" in said.err


def test_without_tls_nobody_says_who_we_are(tmp_path, monkeypatch):
    path = auth_json(str(tmp_path / "auth.json"), "registry.test:5000")
    access = Access(insecure=True, auth_file=path, wait=lambda _seconds: None)
    reference = Reference.parse("oci://registry.test:5000/a/b")
    data = os.urandom(100_000)
    digest = registries.sha(data)
    with (
        registry(str(tmp_path / "open")) as upstream,
        registry(str(tmp_path / "closed"), auth=htpasswd(str(tmp_path))) as closed,
    ):
        for place in (upstream, closed):
            with web_proxy({"registry.test:5000": place}) as (proxy, seen):
                monkeypatch.setenv("http_proxy", proxy)
                monkeypatch.setenv("https_proxy", proxy)
                repository = Repository(access, reference, push=True)
                if place is upstream:
                    assert put_blob(repository, digest, len(data), lambda: io.BytesIO(data))
                    assert repository.has_blob(digest)
                    assert any("PATCH http://registry.test:5000/v2/a/b/" in line for line in seen.lines)
                else:
                    with pytest.raises(RegistryError, match="the proxy would read it") as caught:
                        repository.has_blob(digest)
                    assert "NO_PROXY" in caught.value.hint
                assert not [headers for headers in seen.headers if "Authorization" in headers]


def test_a_channel(tmp_path, monkeypatch):
    """Its files come through the proxy, also from where they were cut."""
    (tmp_path / "file").write_bytes(b"0123456789")
    web = Web(str(tmp_path))
    try:
        with web_proxy({"channel.test": web.url.removeprefix("http://")}) as (proxy, seen):
            monkeypatch.setenv("http_proxy", f"http://{proxy}")
            fetcher = trust.Fetcher()
            assert fetcher.download_bytes("http://channel.test/file", 100) == b"0123456789"
            start, chunks = fetcher.fetch_from("http://channel.test/file", 4)
            assert b"".join(chunks)[4 - start :] == b"456789"
            assert seen.lines == ["GET http://channel.test/file"] * 2
            assert seen.headers[1]["Range"] == "bytes=4-"
            monkeypatch.setenv("no_proxy", "channel.test")
            assert make_pool("http", "channel.test").proxy is None
    finally:
        web.close()
