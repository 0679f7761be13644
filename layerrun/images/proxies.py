"""Proxies: which one a request goes through, as the environment says it to every client.

``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``, those in small letters first, as curl(1) and Go's
clients read them. What TLS protects passes a proxy by CONNECT, unread.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from layerrun.errors import UsageError
from layerrun.images.reference import is_loopback

if TYPE_CHECKING:
    from urllib3 import PoolManager

__all__ = ["make_pool", "proxy_of"]

_PORTS = {"http": 80, "https": 443}


def proxy_of(scheme: str, host: str) -> str | None:
    """Return the URL of the proxy for requests by ``http`` or ``https`` to HOST[:PORT], ``None`` if there is none.

    This machine itself is never asked through one. Raises `UsageError` for one that speaks no HTTP.
    """
    found = _said(f"{scheme}_proxy") or _said("all_proxy")
    if not found or is_loopback(host) or _is_direct(scheme, host):
        return None
    url = found if "://" in found else f"http://{found}"
    try:
        parts = urlsplit(url)
        known = parts.scheme in _PORTS and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise UsageError(
            f"the proxy for {scheme} is no HTTP proxy: {_public(found)!r}", hint="write http://HOST:PORT"
        )
    return url


def make_pool(scheme: str, host: str, **options: Any) -> PoolManager:
    """Return what sends requests to HOST[:PORT], through its proxy if it has one; ``options`` are urllib3's."""
    from urllib3 import PoolManager, ProxyManager, make_headers

    proxy = proxy_of(scheme, host)
    if proxy is None:
        return PoolManager(**options)
    parts = urlsplit(proxy)
    headers = {}
    if parts.username:
        # Its own name and password, which no one else is told: with CONNECT they are not part of the request.
        words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers = make_headers(proxy_basic_auth=words)
    place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return ProxyManager(place, proxy_headers=headers, **options)


def _said(name: str) -> str:
    """Return a variable; a web server sets HTTP_PROXY for what it starts to a header of whoever asks it."""
    if name == "http_proxy" and "REQUEST_METHOD" in os.environ:
        return os.environ.get(name, "")
    return os.environ.get(name) or os.environ.get(name.upper(), "")


def _public(url: str) -> str:
    """Return a URL without its name and password."""
    before, mark, rest = url.rpartition("://")
    return before + mark + rest.rpartition("@")[2]


def _is_direct(scheme: str, netloc: str) -> bool:
    """Say whether NO_PROXY names a host: it, one above it, its address or its network, also with a port."""
    try:
        parts = urlsplit(f"//{netloc}")
        host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS[scheme]
    except ValueError:
        return False
    return any(_matches(word, host, port) for word in re.split(r"[,\s]+", _said("no_proxy").lower()) if word)


def _matches(word: str, host: str, port: int) -> bool:
    if word == "*":
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(word, strict=False)
    except ValueError:
        pass  # a name on one side or the other
    if found := re.fullmatch(r"\[?([^\]]*)\]?:([0-9]+)", word):
        word = found[1]
        if int(found[2]) != port:
            return False
    name = word.removeprefix("*").strip(".")
    return host.endswith(f".{name}") or (host == name and not word.startswith((".", "*")))
