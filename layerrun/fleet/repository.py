"""A channel's repository on the publisher's disk: TUF metadata, and the folder that a web server hands out.

    metadata/N.root.json, timestamp.json, N.snapshot.json, N.targets.json, N.CHANNEL.json
    targets/CHANNEL/HASH.ARCH.json    what a channel says of an architecture (`layerrun.fleet.release`)
    files/                            archives and deltas, by digest
    draft/N.root.json                 a root that still lacks signatures

What a reader sees changes when timestamp.json does, which is written last, by a rename: all else has a number in its
name. So a change cut short is not seen, and the next one writes over it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import attrs
from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Role, Root, Snapshot, TargetFile, Targets, Timestamp

from layerrun.errors import BusyError, DamagedError, LayerrunError, NotFoundError, UsageError
from layerrun.store.fs import DIR_FLAGS, explain, fsync_dir, present, write_file

__all__ = ["DAYS", "FOLDERS", "Repository", "opened"]

FOLDERS = ("metadata", "targets", "files", "draft")
# How long metadata is good for. The short ones bound for how long a follower can be kept from news unnoticed.
DAYS = {"root": 365, "targets": 365, "snapshot": 7, "timestamp": 7}
CHANNEL_DAYS = 180

# What a file is stored with at the end of its name, as readers may want it.
_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz", ".tar.bz2", ".delta", ".erofs", ".squashfs")
_ROOT = re.compile(r"([1-9][0-9]{0,8})\.root\.json")


@contextmanager
def opened(path: str, *, create: bool = False) -> Iterator[Repository]:
    """Open the repository in the folder ``path`` for a change; nobody else changes it meanwhile."""
    with explain("open the channel's folder", path):
        if create:
            os.makedirs(path, exist_ok=True)
        try:
            fd = os.open(path, DIR_FLAGS)
        except FileNotFoundError:
            raise NotFoundError(
                f"there is no folder {path!r}", hint="make a channel with `layerrun channel init`"
            ) from None
        except NotADirectoryError:
            raise UsageError(f"{path!r} is not a folder") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(f"{path!r} is being changed by another process", hint="try again") from None
        if create:
            if set(os.listdir(fd)) - set(FOLDERS):
                raise UsageError(f"{path!r} holds something else", hint="name an empty or a new folder")
            for name in FOLDERS:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=fd)
        elif not present(fd, "metadata"):
            raise NotFoundError(
                f"{path!r} is no channel's folder", hint="make one with `layerrun channel init`"
            )
        yield Repository(path, fd)
    finally:
        os.close(fd)


@attrs.define
class Repository:
    """A repository at ``path``; ``fd`` is its folder. `opened` makes it."""

    path: str
    fd: int
    days: Mapping[str, int] = attrs.field(factory=dict)

    # Reading

    def root_versions(self, folder: str = "metadata") -> list[int]:
        """Return the numbers of the roots that are there, in order."""
        names = os.listdir(os.path.join(self.path, folder))
        return sorted(int(found[1]) for name in names if (found := _ROOT.fullmatch(name)))

    def root(self) -> Metadata[Root]:
        """Return the root in force; raises `NotFoundError` when there is none yet."""
        versions = self.root_versions()
        if not versions:
            raise NotFoundError(
                f"the root of {self.path!r} lacks signatures",
                hint=f"layerrun channel sign {self.path} --key FILE",
            )
        return cast("Metadata[Root]", self._read(f"metadata/{versions[-1]}.root.json"))

    def draft(self) -> Metadata[Root] | None:
        """Return the root that lacks signatures, if there is one."""
        versions = self.root_versions("draft")
        return cast("Metadata[Root]", self._read(f"draft/{versions[-1]}.root.json")) if versions else None

    def timestamp(self) -> Metadata[Timestamp]:
        """Return timestamp.json."""
        return cast("Metadata[Timestamp]", self._read("metadata/timestamp.json"))

    def snapshot(self) -> Metadata[Snapshot]:
        """Return the snapshot that timestamp.json names."""
        number = self.timestamp().signed.snapshot_meta.version
        return cast("Metadata[Snapshot]", self._read(f"metadata/{number}.snapshot.json"))

    def targets(self, role: str = "targets") -> Metadata[Targets] | None:
        """Return the targets of a role that the snapshot names, or ``None`` if it names none."""
        known = self.snapshot().signed.meta.get(f"{role}.json")
        if known is None:
            return None
        return cast("Metadata[Targets]", self._read(f"metadata/{known.version}.{role}.json"))

    def _read(self, name: str) -> Metadata[Any]:
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return Metadata.from_bytes(file.read())
        except OSError as error:
            raise DamagedError(
                f"the channel in {self.path!r} is damaged: {name!r}: {error.strerror}"
            ) from error
        except RepositoryError as error:
            raise DamagedError(f"the channel in {self.path!r} is damaged: {name!r}: {error}") from error

    # Writing

    def write(self, folder: str, name: str, data: bytes) -> None:
        """Write a file of the repository, durably and at once."""
        with explain("write the channel in", self.path):
            above = os.path.join(self.path, folder)
            os.makedirs(above, exist_ok=True)
            fd = os.open(above, DIR_FLAGS)
            try:
                write_file(fd, name, data.decode("utf-8"))
                os.chmod(name, 0o644, dir_fd=fd)  # a web server reads it
                os.fsync(fd)
            finally:
                os.close(fd)
            if folder not in FOLDERS:
                fsync_dir(self.fd, folder.split("/", maxsplit=1)[0])

    def until(self, role: str) -> datetime:
        """Return when metadata of a role that is signed now expires."""
        days = self.days.get(role, DAYS.get(role, CHANNEL_DAYS))
        return datetime.now(UTC).replace(microsecond=0) + timedelta(days=days)

    def holders(self, role: str, top: Metadata[Targets] | None = None) -> Role:
        """Return the keys of a role but the root, by the root or by ``top``, the targets that delegate to it."""
        if role in DAYS:
            return self.root().signed.roles[role]
        delegations = None if (top := top or self.targets()) is None else top.signed.delegations
        if delegations is None or not delegations.roles or role not in delegations.roles:
            raise NotFoundError(f"there is no channel {role!r} in {self.path!r}")
        return delegations.roles[role]

    def publish(
        self, by: Mapping[str, CryptoSigner], changed: Mapping[str, Metadata[Targets]] | None = None
    ) -> None:
        """Sign a new snapshot and a new timestamp, with ``changed`` targets by role, and let them be seen."""
        changed = changed or {}
        timestamp, snapshot = self.timestamp(), self.snapshot()
        for role, targets in changed.items():
            _sign(role, self.holders(role, changed.get("targets")), targets, by)
            self.write("metadata", f"{targets.signed.version}.{role}.json", targets.to_bytes())
            snapshot.signed.meta[f"{role}.json"] = MetaFile(version=targets.signed.version)
        snapshot.signed.version += 1
        snapshot.signed.expires = self.until("snapshot")
        _sign("snapshot", self.holders("snapshot"), snapshot, by)
        data = snapshot.to_bytes()
        timestamp.signed.version += 1
        timestamp.signed.expires = self.until("timestamp")
        timestamp.signed.snapshot_meta = MetaFile.from_data(snapshot.signed.version, data, ["sha256"])
        _sign("timestamp", self.holders("timestamp"), timestamp, by)
        self.write("metadata", f"{snapshot.signed.version}.snapshot.json", data)
        self.write("metadata", "timestamp.json", timestamp.to_bytes())

    def write_target(self, path: str, data: bytes) -> TargetFile:
        """Write a document under the name that readers look for; return how targets name it."""
        target = TargetFile.from_data(path, data, ["sha256"])
        folder, _, name = path.rpartition("/")
        self.write(f"targets/{folder}", f"{target.hashes['sha256']}.{name}", data)
        return target

    def take_file(self, path: str) -> tuple[str, str, int]:
        """Copy a file to files/, under its digest; return the digest, the name and the size."""
        ending = next((one for one in sorted(_ENDINGS, key=len, reverse=True) if path.endswith(one)), "")
        folder = os.path.join(self.path, "files")
        for left in os.listdir(folder):
            if left.startswith(".new-"):  # of an earlier call that was killed; this one alone is at work
                os.unlink(os.path.join(folder, left))
        with (
            explain("read", path),
            open(path, "rb") as source,
            tempfile.NamedTemporaryFile(dir=folder, prefix=".new-") as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
            file.flush()
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = os.fstat(file.fileno()).st_size
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(file.name, os.path.join(folder, digest + ending))
        fsync_dir(self.fd, "files")
        return f"sha256:{digest}", f"files/{digest}{ending}", size


def _sign(role: str, keys: Role, data: Metadata[Any], by: Mapping[str, CryptoSigner]) -> None:
    """Sign metadata with the keys of its role; raises `LayerrunError` when too few of them are there."""
    there = [by[keyid] for keyid in keys.keyids if keyid in by]
    if len(there) < keys.threshold:
        short = ", ".join(keyid[:12] for keyid in keys.keyids)
        raise LayerrunError(
            f"{role} needs {keys.threshold} of the keys {short}, and {len(there)} are there",
            hint="name the folder they are in with --keys, or the file with --key",
        )
    data.signatures.clear()
    for signer in there:
        data.sign(signer, append=True)
