"""Who we are to a registry: credentials as podman, skopeo and docker keep them, and what a registry asks for.

The files are those of containers-auth.json(5); the challenges those of RFC 7235, of which registries use Basic and
Bearer (the token protocol of the distribution project).
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import attrs

from layerrun.errors import RegistryError

__all__ = ["Challenge", "Credentials", "find_credentials", "parse_challenges"]

_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_PATIENCE = 30  # seconds for a helper, which may have to ask a key ring
_MOST = 1 << 20
_CHALLENGE = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*(=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*))?')


@attrs.frozen
class Credentials:
    """A user and a password, or a token that a token server takes for another (``identity``)."""

    user: str = ""
    password: str = attrs.field(default="", repr=False)
    identity: str = attrs.field(default="", repr=False)

    @property
    def basic(self) -> str:
        """The value of the header Authorization."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


@attrs.frozen
class Challenge:
    """What a registry asks for: ``scheme`` in lowercase, and its parameters."""

    scheme: str
    parameters: dict[str, str]


def parse_challenges(text: str) -> list[Challenge]:
    """Read a header WWW-Authenticate, which may hold several; what is no challenge is passed over."""
    found: list[Challenge] = []
    at = 0
    while at < len(text) and (match := _CHALLENGE.match(text, at)) and match.end() > at:
        at = match.end()
        name, value = match[1].lower(), match[3]
        if match[2] is None:
            found.append(Challenge(name, {}))
        elif found:
            if value.startswith('"'):
                value = re.sub(r"\\(.)", r"\1", value[1:-1])
            found[-1].parameters[name] = value
    return found


def find_credentials(host: str, name: str, auth_file: str | None = None) -> Credentials | None:
    """Return what is kept for a repository, the most specific first; ``None`` if there is nothing.

    ``auth_file`` stands for all the usual ones. Raises `RegistryError` for a file that is no JSON.
    """
    for path in _paths(auth_file):
        data = _read(path, must=path in (auth_file, os.environ.get("REGISTRY_AUTH_FILE")))
        if data and (found := _in_file(data, path, host, name)):
            return found
    return None


def _paths(auth_file: str | None) -> Iterator[str]:
    if explicit := auth_file or os.environ.get("REGISTRY_AUTH_FILE"):
        yield explicit
        return
    home = os.path.expanduser("~")
    config = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    yield (
        os.path.join(runtime, "containers/auth.json")
        if runtime
        else f"/run/containers/{os.geteuid()}/auth.json"
    )
    yield os.path.join(config, "containers/auth.json")
    yield os.path.join(os.environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker"), "config.json")


def _read(path: str, *, must: bool) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            data = json.loads(file.read(_MOST))
    except FileNotFoundError:
        if must:
            raise RegistryError(f"there is no file {path!r} with credentials") from None
        return None
    except (OSError, ValueError) as error:
        raise RegistryError(
            f"the credentials in {path!r} cannot be read: {error}", hint="repair or remove the file"
        ) from None
    return data if isinstance(data, dict) else None


def _in_file(data: dict[str, Any], path: str, host: str, name: str) -> Credentials | None:
    """Look for HOST/NAME, then for each of its parents, then for the host in the ways docker writes it."""
    keys = [host]
    for part in name.split("/"):
        keys.insert(0, f"{keys[0]}/{part}")
    hub = ["index.docker.io", "registry-1.docker.io"] if host == "docker.io" else []
    auths = _table(data.get("auths"))
    spelled = {_bare(key): value for key, value in reversed(auths.items()) if "://" in key or "/v1" in key}
    helpers = _table(data.get("credHelpers"))
    for key in [*keys, *hub]:
        if helper := helpers.get(key):
            if found := _ask_helper(str(helper), key):
                return found
            continue
        entry = auths.get(key) or (spelled.get(key) if key in (host, *hub) else None)
        if isinstance(entry, dict) and (found := _decode(entry, path, key)):
            return found
    store = data.get("credsStore")
    return _ask_helper(str(store), "https://index.docker.io/v1/" if hub else host) if store else None


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _bare(key: str) -> str:
    """Return the host of a key such as ``https://index.docker.io/v1/``."""
    return re.sub(r"^https?://", "", key).partition("/")[0]


def _decode(entry: dict[str, Any], path: str, key: str) -> Credentials | None:
    identity = entry.get("identitytoken")
    if isinstance(identity, str) and identity:
        return Credentials(identity=identity)
    if not (text := entry.get("auth")):
        return None
    try:
        user, colon, password = base64.b64decode(text, validate=True).decode().partition(":")
    except (binascii.Error, ValueError, TypeError):
        colon = ""
    if not colon:
        raise RegistryError(
            f"the entry of {key!r} in {path!r} is no user and password in base64", hint=f"podman login {key}"
        )
    return Credentials(user, password.rstrip("\0"))


def _ask_helper(helper: str, key: str) -> Credentials | None:
    """Ask a program ``docker-credential-HELPER``; what it does not know is nothing, not an error."""
    if not _HELPER.fullmatch(helper):
        return None
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            input=key.encode(),
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
        )
        answer = json.loads(done.stdout)
        user, secret = str(answer["Username"]), str(answer["Secret"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
    return Credentials(identity=secret) if user == "<token>" else Credentials(user, secret)
