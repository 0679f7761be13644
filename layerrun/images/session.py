"""Requests to one repository with what its registry wants to know of us: Basic, or tokens of a token server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urljoin, urlsplit

from layerrun.errors import RegistryError
from layerrun.images.auth import Challenge, Credentials, find_credentials, parse_challenges
from layerrun.images.reference import is_loopback
from layerrun.images.transport import ATTEMPTS, Body, Transport, let_go, origin_of, read_all

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

__all__ = ["Session", "refusal"]

_MOST_TOKEN = 1 << 20
_MOST_ERROR = 1 << 16


class Session:
    """Sends requests for the repository ``name`` of ``host``.

    Args:
        transport: what sends them.
        push: whether the rights to write are wanted, beside those to read.
        others: names of repositories of that host that are to be read as well.
    """

    def __init__(
        self, transport: Transport, host: str, name: str, *, push: bool = False, others: Iterable[str] = ()
    ) -> None:
        self.transport, self.host, self.name = transport, host, name
        self._scopes = [f"repository:{name}:pull,push" if push else f"repository:{name}:pull"]
        self._scopes += [f"repository:{other}:pull" for other in others]
        self._authorization: str | None = None

    def url(self, path: str) -> str:
        """Return the URL of a path of the repository, such as ``manifests/latest``."""
        return f"{self.transport.base(self.host)}/v2/{self.name}/{path}"

    def send(
        self,
        method: str,
        place: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        attempts: int = ATTEMPTS,
    ) -> BaseHTTPResponse:
        """Send a request to a path of the repository, or to a URL that the registry gave; see `Transport.send`.

        What the registry asks of us is answered once. Our credentials go to its own origin alone.
        """
        url = place if "://" in place else self.url(place)
        ours = origin_of(url) == origin_of(self.transport.base(self.host))

        def once() -> BaseHTTPResponse:
            sent = dict(headers or {})
            if ours and self._authorization:
                sent["Authorization"] = self._authorization
            return self.transport.send(method, url, headers=sent, body=body, attempts=attempts)

        response = once()
        if response.status != 401 or not ours:
            return response
        asked = parse_challenges(", ".join(response.headers.getlist("WWW-Authenticate")))
        let_go(response)
        self._authorization = self._answer(asked)
        return once()

    def _answer(self, asked: list[Challenge]) -> str | None:
        """Return the header Authorization that answers a challenge; ``None`` where we have nothing to say."""
        known = find_credentials(self.host, self.name, self.transport.access.auth_file)
        for challenge in asked:
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                return "Bearer " + self._token(challenge, known)
            if challenge.scheme == "basic" and known and known.user:
                return known.basic
        return None

    def _realm(self, said: str) -> str:
        """Return where tokens are given: by HTTPS, but for this machine and an insecure registry's own origin.

        That nobody has to prove to be the registry says nothing of other hosts, which may be given a password here.
        """
        base = self.transport.base(self.host)
        try:
            realm = urljoin(base, said)
            parts, origin = urlsplit(realm), origin_of(realm)
        except ValueError as error:
            raise RegistryError(f"{self.host} sends us for a token to {said!r}: {error}") from None
        trusted = parts.scheme == "https" or (
            parts.scheme == "http"
            and self.transport.insecure(self.host)
            and (is_loopback(parts.netloc.rpartition("@")[2]) or origin == origin_of(base))
        )
        if not trusted:
            raise RegistryError(f"{self.host} sends us for a token to {realm!r}, which is not HTTPS: refused")
        return realm

    def _token(self, challenge: Challenge, known: Credentials | None) -> str:
        realm = self._realm(challenge.parameters["realm"])
        fields = [("service", s) for s in [challenge.parameters.get("service")] if s]
        headers: dict[str, str] = {}
        if known and known.identity:
            self.transport.check_private(realm)
            form = [*fields, ("scope", " ".join(self._scopes)), ("client_id", "layerrun")]
            form += [("grant_type", "refresh_token"), ("refresh_token", known.identity)]
            headers["Content-Type"] = "application/x-www-form-urlencoded"
            response = self.transport.send("POST", realm, headers=headers, body=urlencode(form).encode())
        else:
            if known:
                headers["Authorization"] = known.basic
                fields.append(("account", known.user))
            query = urlencode([*fields, *(("scope", scope) for scope in self._scopes)])
            response = self.transport.send(
                "GET", realm + ("&" if "?" in realm else "?") + query, headers=headers
            )
        what = f"the token of {origin_of(realm)[1]}"
        if response.status != 200:
            raise refusal(response, self.host, self.name, f"{origin_of(realm)[1]} gives no token")
        try:
            answer: Any = json.loads(read_all(response, _MOST_TOKEN, what))
            token = answer.get("token") or answer["access_token"]
        except (ValueError, KeyError, TypeError, AttributeError):
            token = None
        # A token goes into a header: nothing in it may end that.
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise RegistryError(f"{what} is none")
        return token


def refusal(response: BaseHTTPResponse, host: str, name: str, what: str) -> RegistryError:
    """Make an error of an answer that is a refusal, with the registry's own words where it has any."""
    words = ""
    try:
        error = json.loads(read_all(response, _MOST_ERROR, "an answer"))["errors"][0]
        words = str(error.get("message") or error.get("code") or "")[:200]
    except (RegistryError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        pass
    hint = None
    if response.status in (401, 403):
        hint = f"does `podman login {host}` know the user, and may that one? The files are in containers-auth.json(5)"
    elif response.status == 429:
        hint = "it wants fewer requests: try again later"
    elif response.status >= 500:
        hint = "the trouble is the registry's: try again later"
    said = f": {words!r}" if words else ""
    return RegistryError(f"{what}: {host}/{name} answers {response.status}{said}", hint=hint)
