"""Requests to registries over HTTP(S): TLS with one's own authorities, retries, redirects.

What a registry answers is not believed here or anywhere: who asked for bytes verifies them by their digest.
"""

from __future__ import annotations

import email.utils
import glob
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from http.client import HTTPException
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import attrs

from layerrun.errors import RegistryError
from layerrun.images.proxies import make_pool, proxy_of

if TYPE_CHECKING:
    import ssl

    from urllib3 import BaseHTTPResponse, PoolManager

__all__ = ["Access", "Transport", "let_go", "origin_of", "read_all"]

ATTEMPTS = 6
_FIRST_WAIT = 0.25  # seconds before the second attempt; it doubles with each
_LONGEST_WAIT = 30.0
_MOST_ASKED = 120.0  # seconds that a registry may ask us to wait
_HOPS = 5
_MOST_LEFT = 1 << 16  # bytes of an answer that nobody wants, read for the sake of the connection
_CONNECT, _READ = 20.0, 60.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)

Body = bytes | Callable[[], IO[bytes]] | None


@attrs.frozen
class Access:
    """How to reach registries.

    ``cert_dir``: a folder with ``*.crt`` (authorities) and ``*.cert`` with ``*.key`` (our own), instead of those in
    /etc/containers/certs.d. ``auth_file``: instead of the usual ones. ``insecure``: no proof of who answers is
    wanted, and HTTP will do. ``wait`` sleeps; tests have another.
    """

    insecure: bool = False
    cert_dir: str | None = None
    auth_file: str | None = None
    wait: Callable[[float], None] = time.sleep


def origin_of(url: str) -> tuple[str, str, int]:
    """Return the scheme, the host and the port of a URL: what a credential is for."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def read_all(response: BaseHTTPResponse, most: int, what: str) -> bytes:
    """Read an answer that may have at most ``most`` bytes, and give the connection back."""
    from urllib3.exceptions import HTTPError

    try:
        data = response.read(most + 1)
    except HTTPError as error:
        response.close()
        raise RegistryError(f"{what} was cut short: {error}", hint="try again") from None
    if len(data) > most:
        response.close()
        raise RegistryError(f"{what} is too long: more than {most} bytes")
    response.release_conn()
    return data


def let_go(response: BaseHTTPResponse) -> None:
    """Have done with an answer: give the connection back, or close it if more is to come than we care to read."""
    from urllib3.exceptions import HTTPError

    with suppress(HTTPError, OSError, HTTPException):
        if len(response.read(_MOST_LEFT)) < _MOST_LEFT:
            response.release_conn()
            return
    response.close()


class Transport:
    """Sends requests; keeps connections. ``insecure_hosts`` are those that registries.conf calls so."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.insecure_hosts: set[str] = set()
        self._pools: dict[tuple[str, bool], PoolManager] = {}
        self._schemes: dict[str, str] = {}

    def insecure(self, host: str) -> bool:
        """Say whether no proof is wanted of who answers for a host."""
        return self.access.insecure or host in self.insecure_hosts

    def base(self, host: str) -> str:
        """Return where a registry's API is: ``https://HOST``; ``http://`` only for an insecure one that has no TLS."""
        place = "registry-1.docker.io" if host == "docker.io" else host
        if host not in self._schemes:
            self._schemes[host] = self._scheme(host) if self.insecure(host) else "https"
        return f"{self._schemes[host]}://{place}"

    def _scheme(self, host: str) -> str:
        from urllib3.exceptions import HTTPError

        try:
            pool = self._pool(host, plain=False)
            let_go(
                pool.request(
                    "GET",
                    f"https://{host}/v2/",
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    timeout=_CONNECT,
                )
            )
        except HTTPError:
            return "http"
        return "https"

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        attempts: int = ATTEMPTS,
    ) -> BaseHTTPResponse:
        """Send a request, again while what fails may pass; follow redirects; return the answer, not read yet.

        ``Authorization`` goes to the origin that was asked and no other. A ``body`` that is no bytes is a function that
        opens it anew for each attempt. Raises `RegistryError` when nobody answers; a status is the caller's to judge.
        """
        asked, sent = origin_of(url), dict(headers or {})
        for _ in range(_HOPS + 1):
            response = self._persist(method, url, sent, body, attempts)
            target = response.headers.get("Location")
            if response.status == 401 and origin_of(url) != asked:
                # Its challenge could ask for credentials that are another's.
                raise RegistryError(
                    f"{origin_of(url)[1]}, where {asked[1]} redirects to, wants to know who we are"
                )
            if response.status not in _REDIRECTS or not target or method not in ("GET", "HEAD"):
                return response
            let_go(response)
            url = self.follow(url, target)
            if origin_of(url) != asked:
                sent.pop("Authorization", None)
        raise RegistryError(f"{url!r} redirects without an end")

    def follow(self, url: str, target: str) -> str:
        """Return the URL that the answer of a URL sends us to; raises `RegistryError` where we do not go."""
        try:
            there = urljoin(url, target)
            parts = urlsplit(there)
            _ = parts.port  # raises, too
        except ValueError as error:
            raise RegistryError(f"{url!r} redirects to {target!r}, which is no URL: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RegistryError(f"{url!r} redirects to {target!r}, which is no place to ask")
        if parts.scheme == "http" and urlsplit(url).scheme == "https" and not self.insecure(parts.netloc):
            raise RegistryError(f"{url!r} redirects from HTTPS to HTTP, to {there!r}: refused")
        return there

    def check_private(self, url: str) -> None:
        """Raise `RegistryError` where a proxy could read what a request says, before it says who we are."""
        parts = urlsplit(url)
        if parts.scheme == "http" and proxy_of("http", parts.netloc) is not None:
            raise RegistryError(
                f"{parts.netloc} wants to know who we are, and has no TLS: the proxy would read it",
                hint=f"name {parts.hostname} in NO_PROXY",
            )

    def _persist(
        self, method: str, url: str, headers: Mapping[str, str], body: Body, attempts: int
    ) -> BaseHTTPResponse:
        from urllib3.exceptions import HTTPError, SSLError

        wait = _FIRST_WAIT
        for left in reversed(range(attempts)):
            try:
                response = self._once(method, url, headers, body)
            except SSLError as error:
                raise self._distrusted(url, error) from None
            except HTTPError as error:
                # That a proxy wants a password, or lets nobody through to that place, does not pass.
                if not left or re.search(r"Tunnel connection failed: 4\d\d", str(error)):
                    raise self._unreached(url, error) from None
                self.pause(wait)
            else:
                if response.status not in _PASSING or not left:
                    return response
                asked = _retry_after(response.headers.get("Retry-After"))
                if asked is not None and asked > _MOST_ASKED:
                    return response
                let_go(response)
                self.pause(wait if asked is None else max(asked, 0.0))
            wait = min(wait * 2, _LONGEST_WAIT)
        raise AssertionError("the last attempt returns or raises")

    def pause(self, seconds: float) -> None:
        """Wait a little longer than that, each time another while: many clients must not come back at once."""
        self.access.wait(seconds * (1 + random.random() / 4))  # noqa: S311  (no secret)

    def _once(self, method: str, url: str, headers: Mapping[str, str], body: Body) -> BaseHTTPResponse:
        from urllib3 import Timeout

        parts = urlsplit(url)
        pool = self._pool(parts.netloc, plain=parts.scheme == "http")
        if "Authorization" in headers:
            self.check_private(url)

        def request(data: bytes | IO[bytes] | None) -> BaseHTTPResponse:
            return pool.request(
                method,
                url,
                headers=dict(headers) | {"User-Agent": "layerrun", "Accept-Encoding": "identity"},
                body=data,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=Timeout(connect=_CONNECT, read=_READ),
            )

        if not callable(body):
            return request(body)
        with closing(body()) as file:
            return request(file)

    @staticmethod
    def _unreached(url: str, error: Exception) -> RegistryError:
        parts = urlsplit(url)
        hint = "check the name, the port and the network; without TLS it takes --insecure"
        proxied = proxy_of(parts.scheme, parts.netloc)
        if proxied:
            hint = f"check {parts.scheme.upper()}_PROXY, its password too, or name the host in NO_PROXY"
        through = " through the proxy" if proxied else ""
        return RegistryError(f"{parts.hostname} cannot be reached{through}: {_reason(error)}", hint=hint)

    def _distrusted(self, url: str, error: Exception) -> RegistryError:
        _, host, port = origin_of(url)
        if "WRONG_VERSION_NUMBER" in str(error):  # what OpenSSL calls it when plain HTTP comes
            return RegistryError(
                f"{host}:{port} does not speak TLS",
                hint="--insecure takes HTTP, or `insecure = true` of that registry in registries.conf(5)",
            )
        return RegistryError(
            f"{host} has not shown that it is {host}: {_reason(error)}",
            hint=f"put its authority into /etc/containers/certs.d/{host}:{port}/ca.crt or name a folder by --cert-dir",
        )

    def _pool(self, host: str, *, plain: bool) -> PoolManager:
        key = host, plain
        if key not in self._pools:
            self._pools[key] = self._make_pool(host, plain=plain)
        return self._pools[key]

    def _make_pool(self, host: str, *, plain: bool) -> PoolManager:
        import urllib3

        options: dict[str, Any] = {} if plain else {"ssl_context": self._context(host)}
        if not plain and self.insecure(host):
            options["assert_hostname"] = False
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        return make_pool("http" if plain else "https", host, maxsize=4, **options)

    def _context(self, host: str) -> ssl.SSLContext:
        import ssl

        context = ssl.create_default_context()
        if self.insecure(host):
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        for folder in self._cert_dirs(host):
            try:
                for path in sorted(glob.glob(glob.escape(folder) + "/*.crt")):
                    context.load_verify_locations(cafile=path)
                for path in sorted(glob.glob(glob.escape(folder) + "/*.cert")):
                    context.load_cert_chain(path, path.removesuffix("cert") + "key")
            except OSError as error:
                raise RegistryError(f"the certificates in {folder!r} cannot be used: {error}") from None
        return context

    def _cert_dirs(self, host: str) -> list[str]:
        """Return the folders of a host's certificates that are there, as containers-certs.d(5) has them."""
        if self.access.cert_dir is not None:
            if not os.path.isdir(self.access.cert_dir):
                raise RegistryError(f"there is no folder {self.access.cert_dir!r} with certificates")
            return [self.access.cert_dir]
        config = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
        places = (f"{config}/containers/certs.d", "/etc/containers/certs.d", "/etc/docker/certs.d")
        return [path for place in places if os.path.isdir(path := os.path.join(place, host))]


def _reason(error: Exception) -> str:
    """Return the innermost words of one of urllib3's errors, without its repr of the connection."""
    reason: Any = getattr(error, "reason", None) or error
    text = str(reason.args[-1] if getattr(reason, "args", ()) else reason)
    return re.sub(r"^.{0,200}?(?:\)|>): ", "", text)[:300]


def _retry_after(text: str | None) -> float | None:
    """Return the seconds that a header Retry-After asks for (RFC 9110, 10.2.3: a number or a date)."""
    if not text:
        return None
    if text.strip().isdigit():
        return float(text)
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None
