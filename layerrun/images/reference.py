"""Names of images in registries: ``oci://HOST[:PORT]/NAME[:TAG][@DIGEST]``."""

from __future__ import annotations

import re

import attrs

from layerrun.errors import UsageError

__all__ = ["SCHEME", "Reference", "is_digest", "is_loopback"]

SCHEME = "oci://"

# The grammar of the OCI distribution specification, "Pulling manifests".
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_HUB = {"docker.io", "index.docker.io", "registry-1.docker.io"}
_MOST = 255


def is_digest(text: str) -> bool:
    """Say whether a text is a digest that layerrun can verify: SHA-256, in lowercase."""
    return bool(_DIGEST.fullmatch(text))


def is_loopback(host: str) -> bool:
    """Say whether a host (with or without a port) is this machine by its very name."""
    bare = host.rpartition("]")[0][1:] if host.startswith("[") else host.partition(":")[0]
    return bare in ("localhost", "::1") or bool(re.fullmatch(r"127(?:\.[0-9]{1,3}){3}", bare))


@attrs.frozen
class Reference:
    """An image in a registry: ``host`` with its port, ``name`` of the repository, and a tag, a digest or both.

    With both the digest decides.
    """

    host: str
    name: str
    tag: str | None = None
    digest: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Read ``oci://HOST/NAME[:TAG][@DIGEST]``; without tag and digest it is the tag ``latest``."""

        def bad(why: str) -> UsageError:
            return UsageError(f"bad reference {text!r}: {why}", hint="write oci://HOST/NAME[:TAG][@sha256:…]")

        if not text.startswith(SCHEME):
            raise bad(f"it does not begin with {SCHEME}")
        host, slash, rest = text[len(SCHEME) :].partition("/")
        if not slash or not _HOST.fullmatch(host):
            raise bad("a host is missing, or is none")
        rest, at, digest = rest.partition("@")
        if at and not is_digest(digest):
            raise bad("its digest is not sha256: and 64 lowercase hexadecimal digits")
        name, colon, tag = rest.partition(":")
        if not _NAME.fullmatch(name) or len(host) + len(name) > _MOST:
            raise bad(f"{name!r} is not the name of a repository")
        if colon and not _TAG.fullmatch(tag):
            raise bad(f"{tag!r} is not a tag")
        if host in _HUB:
            host, name = "docker.io", name if "/" in name else f"library/{name}"
        return cls(host.lower(), name, tag or (None if digest else "latest"), digest or None)

    @property
    def repository(self) -> str:
        """HOST/NAME."""
        return f"{self.host}/{self.name}"

    @property
    def wanted(self) -> str:
        """What to ask the registry for: the digest, else the tag."""
        return self.digest or self.tag or "latest"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{SCHEME}{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")
