"""The keys that sign a channel: PEM files in a folder that nobody else can read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from contextlib import suppress

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from securesystemslib.signer import CryptoSigner, SSlibKey

from layerrun.errors import ExistsError, NotFoundError, UsageError
from layerrun.store.fs import DIR_FLAGS, explain

__all__ = ["find", "has_private", "load_public", "make_key", "open_folder", "signers"]

_LIMIT = 64 << 10
_NAME = re.compile(r"[A-Za-z0-9._-]+\.pem")


def open_folder(path: str, *, create: bool = False) -> int:
    """Open the folder of keys, made with mode 0700 if ``create``; the caller closes it.

    Raises `UsageError` when others can read it: a key that others had is no key.
    """
    with explain("open the folder of keys", path):
        if create:
            os.makedirs(path, mode=0o700, exist_ok=True)
        try:
            fd = os.open(path, DIR_FLAGS)
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no folder of keys {path!r}", hint="name the right one with --keys"
            ) from None
    status = os.fstat(fd)
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        os.close(fd)
        raise UsageError(
            f"others can get at the keys in {path!r}", hint=f"chmod 700 {path}, and make it your own"
        )
    return fd


def make_key(folder: int, name: str) -> SSlibKey:
    """Make an Ed25519 key in ``NAME.pem`` and its public half in ``NAME.pub``; raises `ExistsError`."""
    signer = CryptoSigner.generate_ed25519()
    public = signer._private_key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    for suffix, data, mode in ((".pem", signer.private_bytes, 0o400), (".pub", public, 0o444)):
        _write_new(folder, name + suffix, data, mode)
    os.fsync(folder)
    return signer.public_key


def _write_new(folder: int, name: str, data: bytes, mode: int) -> None:
    """Make a file that is whole as soon as it is there; raises `ExistsError`."""
    temporary = f".new-{os.getpid()}"
    with suppress(FileNotFoundError):
        os.unlink(temporary, dir_fd=folder)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            os.fchmod(fd, mode)
            file.flush()
            os.fsync(fd)
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError:
        raise ExistsError(f"there is a key {name!r} already", hint="keep it, or move it away") from None
    finally:
        os.unlink(temporary, dir_fd=folder)


def has_private(path: str) -> bool:
    """Say whether a PEM file holds a private key."""
    return b"PRIVATE KEY" in _read(path)


def load_public(path: str) -> SSlibKey:
    """Read the public key of a PEM file, which may hold the private one as well."""
    data = _read(path)
    try:
        if b"PRIVATE KEY" in data:
            return _signer(path, data).public_key
        return SSlibKey.from_crypto(serialization.load_pem_public_key(data))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path!r} holds no key: {error}", hint="name a file in PEM form") from error


def signers(folder: str | None, files: Iterable[str] = ()) -> dict[str, CryptoSigner]:
    """Return who can sign, by key id: the private keys in a folder and in single files."""
    paths = list(files)
    if folder is not None:
        fd = open_folder(folder)
        try:
            paths += [os.path.join(folder, name) for name in sorted(os.listdir(fd)) if _NAME.fullmatch(name)]
        finally:
            os.close(fd)
    found = [_signer(path, _read(path)) for path in paths]
    return {one.public_key.keyid: one for one in found}


def find(text: str, among: Iterable[str]) -> str:
    """Return the key id that ``text`` means: its first digits, eight at least, or a file that holds the key."""
    known = sorted(among)
    near = [keyid for keyid in known if len(text) >= 8 and keyid.startswith(text)]
    if not near and os.path.exists(text):
        near = [keyid for keyid in known if keyid == load_public(text).keyid]
    if len(near) != 1:
        raise NotFoundError(
            f"no key {text!r} signs that", hint="there is " + (", ".join(k[:12] for k in known) or "none")
        )
    return near[0]


def _signer(path: str, data: bytes) -> CryptoSigner:
    try:
        try:
            key = serialization.load_pem_private_key(data, password=None)
        except TypeError:  # it is encrypted
            passphrase = os.environ.get("LAYERRUN_CHANNEL_PASSPHRASE")
            if not passphrase:
                raise UsageError(
                    f"the key in {path!r} needs a passphrase", hint="put it into LAYERRUN_CHANNEL_PASSPHRASE"
                ) from None
            key = serialization.load_pem_private_key(data, password=os.fsencode(passphrase))
        return CryptoSigner(key)
    except UsageError:
        raise
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path!r} holds no private key that can be used: {error}") from error


def _read(path: str) -> bytes:
    with explain("read the key", path), open(path, "rb") as file:
        return file.read(_LIMIT)
