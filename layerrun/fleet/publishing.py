"""Running a channel: make its repository, add releases, sign again, change keys. Nothing else is needed for it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import cast

import attrs
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Role,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from layerrun.errors import ExistsError, LayerrunError, NotFoundError, UsageError
from layerrun.fleet import keys
from layerrun.fleet.release import Delta, Image, Release, check_channel, target_path
from layerrun.fleet.repository import Repository, opened

__all__ = ["Missing", "add", "init", "rotate", "sign"]


@attrs.frozen
class Missing:
    """A root that is not in force yet: its number, and how many signatures of the old keys and of its own it lacks."""

    version: int
    old: int
    new: int


# Making one


def init(
    path: str,
    key_folder: str,
    *,
    root_keys: int = 3,
    threshold: int = 2,
    given: Sequence[str] = (),
    days: Mapping[str, int] | None = None,
) -> Missing | None:
    """Make a repository in ``path`` and its keys in ``key_folder``.

    ``given`` are files with keys for the root, which then makes none itself: public halves will do, and are what
    should be here of keys that are kept elsewhere. Returns what is missing of the root if it cannot be signed yet.
    """
    if not given and not 1 <= threshold <= root_keys:
        raise UsageError(f"{threshold} of {root_keys} keys makes no sense", hint="such as 2 of 3")
    if given and threshold > len(given):
        raise UsageError(f"{threshold} keys of the root are to sign, and {len(given)} are named")
    if os.path.abspath(key_folder).startswith(os.path.abspath(path) + os.sep):
        raise UsageError(
            f"the keys in {key_folder!r} would be handed out with the channel", hint="put them elsewhere"
        )
    with opened(path, create=True) as repository:
        if repository.root_versions() or repository.root_versions("draft"):
            raise ExistsError(f"there is a channel in {path!r} already")
        repository.days = days or {}
        folder = keys.open_folder(key_folder, create=True)
        try:
            owners = [keys.load_public(one) for one in given]
            owners = owners or [keys.make_key(folder, f"root-{n + 1}") for n in range(root_keys)]
            root = Root(expires=repository.until("root"), consistent_snapshot=True)
            root.roles["root"] = Role([], threshold)
            for key in owners:
                root.add_key(key, "root")
            for role in ("targets", "snapshot", "timestamp"):
                root.add_key(keys.make_key(folder, role), role)
        finally:
            os.close(folder)
        _first(repository, root, keys.signers(key_folder))
        return _settle(repository, Metadata(root), keys.signers(key_folder, _private(given)))


def _private(files: Sequence[str]) -> list[str]:
    return [path for path in files if keys.has_private(path)]


def _first(repository: Repository, root: Root, by: Mapping[str, CryptoSigner]) -> None:
    """Write the first targets, snapshot and timestamp, signed by the keys that ``root`` will name."""
    targets = Metadata(Targets(expires=repository.until("targets"), delegations=Delegations({}, {})))
    snapshot = Metadata(Snapshot(expires=repository.until("snapshot"), meta={"targets.json": MetaFile(1)}))
    for one, role in ((targets, "targets"), (snapshot, "snapshot")):
        for keyid in root.roles[role].keyids:
            one.sign(by[keyid], append=True)
        repository.write("metadata", f"1.{role}.json", one.to_bytes())
    meta = MetaFile.from_data(1, snapshot.to_bytes(), ["sha256"])
    timestamp = Metadata(Timestamp(expires=repository.until("timestamp"), snapshot_meta=meta))
    for keyid in root.roles["timestamp"].keyids:
        timestamp.sign(by[keyid], append=True)
    repository.write("metadata", "timestamp.json", timestamp.to_bytes())


# The root


def _settle(repository: Repository, root: Metadata[Root], by: Mapping[str, CryptoSigner]) -> Missing | None:
    """Sign a new root with what is there; let it be in force if that is enough, else keep it as a draft."""
    versions = repository.root_versions()
    previous = repository.root().signed if versions else None
    for keyid in {*root.signed.roles["root"].keyids, *(previous.roles["root"].keyids if previous else ())}:
        if keyid in by:
            root.sign(by[keyid], append=True)
    found = root.signed.get_root_verification_result(previous, root.signed_bytes, root.signatures)
    name = f"{root.signed.version}.root.json"
    if not found:
        repository.write("draft", name, root.to_bytes())
        return Missing(root.signed.version, found.first.missing if previous else 0, found.second.missing)
    repository.write("metadata", name, root.to_bytes())
    with suppress(FileNotFoundError):
        os.unlink(os.path.join(repository.path, "draft", name))
    return None


def _next_root(repository: Repository) -> Metadata[Root]:
    """Return the root to change: the draft, without its signatures, or the next after the one in force."""
    draft = repository.draft()
    root = draft or repository.root()
    root.signatures.clear()
    if draft is None:
        root.signed.version += 1
    root.signed.expires = repository.until("root")
    return root


def _key_ids(root: Root, role: str) -> tuple[str, ...]:
    return (*sorted(root.roles[role].keyids), str(root.roles[role].threshold))


def rotate(
    path: str,
    role: str,
    key_folder: str,
    *,
    drop: Sequence[str] = (),
    take: Sequence[str] = (),
    threshold: int | None = None,
    files: Sequence[str] = (),
) -> Missing | None:
    """Change the keys that sign for a role: ``drop`` some (ids or files), ``take`` others (files with public keys).

    Without ``take`` a new key is made in ``key_folder``; without ``drop`` a role other than the root loses all the keys
    it had. Returns what is missing of the new root, if it is one and cannot be signed yet.
    """
    with opened(path) as repository:
        by = keys.signers(key_folder, files)
        top = role in ("root", "targets", "snapshot", "timestamp")
        root = _next_root(repository) if top else None
        targets = None if top else _next_targets(repository, "targets")
        owner: Root | Targets = root.signed if root is not None else cast("Metadata[Targets]", targets).signed
        try:
            held = owner.get_delegated_role(role)
        except ValueError:
            raise NotFoundError(f"there is no channel {role!r} in {path!r}") from None
        lost = [keys.find(one, held.keyids) for one in drop]
        if not drop and role != "root":
            lost = list(held.keyids)
        new = [keys.load_public(one) for one in take] or [_new_key(key_folder, role)]
        for keyid in lost:
            owner.revoke_key(keyid, role)
        for key in new:
            owner.add_key(key, role)
        held.threshold = held.threshold if threshold is None else threshold
        if not 1 <= held.threshold <= len(held.keyids):
            raise UsageError(f"{role} would need {held.threshold} of {len(held.keyids)} keys")
        by = keys.signers(key_folder, [*files, *_private(take)])
        if root is None:
            # What the channel says is signed again: with its old keys alone nobody would believe it any more.
            _publish_again(repository, cast("Metadata[Targets]", targets), role, by)
            return None
        return _in_force(repository, root, by)


def _new_key(key_folder: str, role: str) -> SSlibKey:
    folder = keys.open_folder(key_folder)
    try:
        known = set(os.listdir(folder))
        number = next(n for n in range(2, 10000) if not {f"{role}-{n}.pem", f"{role}-{n}.pub"} & known)
        return keys.make_key(folder, f"{role}-{number}")
    finally:
        os.close(folder)


def _in_force(repository: Repository, root: Metadata[Root], by: Mapping[str, CryptoSigner]) -> Missing | None:
    """As `_settle`; what the keys that it changes have signed is signed again."""
    versions = repository.root_versions()
    before = repository.root().signed if versions else root.signed
    missing = _settle(repository, root, by)
    if missing is None and any(
        _key_ids(before, role) != _key_ids(root.signed, role) for role in ("targets", "snapshot", "timestamp")
    ):
        changed = {}
        if _key_ids(before, "targets") != _key_ids(root.signed, "targets"):
            changed["targets"] = _next_targets(repository, "targets")
        repository.publish(by, changed)
    return missing


def _next_targets(repository: Repository, role: str) -> Metadata[Targets]:
    """Return the next version of the targets of a role; the first, if there is none yet."""
    known = repository.targets(role)
    if known is None:
        return Metadata(Targets(expires=repository.until(role)))
    known.signed.version += 1
    known.signed.expires = repository.until(role)
    return known


def _publish_again(
    repository: Repository, targets: Metadata[Targets], role: str, by: Mapping[str, CryptoSigner]
) -> None:
    changed = {"targets": targets}
    if repository.targets(role) is not None:
        changed[role] = _next_targets(repository, role)
    repository.publish(by, changed)


# Releases


def add(
    path: str,
    channel: str,
    source: str,
    key_folder: str,
    *,
    version: str,
    arch: str,
    tree: str | None = None,
    deltas: Sequence[tuple[str, str]] = (),
    files: Sequence[str] = (),
) -> Release:
    """Publish a release: ``source`` is a file, or an oci:// address that ends with a digest.

    A channel that is not there yet is made, with a key of its own. ``deltas`` are pairs of the digest of an older base
    and a file. Its sequence is the one after the last of the channel and the architecture.
    """
    check_channel(channel)
    with opened(path) as repository:
        repository.root()  # it may lack signatures yet
        changed = _delegate(repository, channel, key_folder)
        by = keys.signers(key_folder, files)
        mine = _next_targets(repository, channel)
        known = mine.signed.targets.get(target_path(channel, arch))
        sequence = 1 + (int(known.unrecognized_fields.get("custom", {}).get("sequence", 0)) if known else 0)
        release = Release(
            channel,
            arch,
            version,
            sequence,
            _image(repository, source),
            tree,
            tuple(_delta(repository, old, file) for old, file in deltas),
        )
        data = release.to_bytes()
        Release.from_bytes(data, channel, arch)  # what readers would refuse is not published
        target = repository.write_target(target_path(channel, arch), data)
        # For the next release alone: readers go by what the document itself says.
        target.unrecognized_fields["custom"] = {"sequence": sequence}
        mine.signed.targets[target.path] = target
        repository.publish(by, {channel: mine} if changed is None else {"targets": changed, channel: mine})
        return release


def _delegate(repository: Repository, channel: str, key_folder: str) -> Metadata[Targets] | None:
    """Return new targets that delegate to a channel that is not there yet; ``None`` if it is."""
    targets = _next_targets(repository, "targets")
    delegations = targets.signed.delegations
    if delegations is None or delegations.roles is None:
        raise LayerrunError(f"the targets of {repository.path!r} cannot delegate to a channel")
    if channel in delegations.roles:
        return None
    folder = keys.open_folder(key_folder)
    try:
        try:
            key = keys.make_key(folder, channel)
        except ExistsError:  # an earlier call was cut short
            key = keys.load_public(os.path.join(key_folder, channel + ".pem"))
    finally:
        os.close(folder)
    delegations.roles[channel] = DelegatedRole(channel, [key.keyid], 1, True, paths=[f"{channel}/*"])
    delegations.keys[key.keyid] = key
    return targets


def _image(repository: Repository, source: str) -> Image:
    if source.startswith("oci://"):
        _, _, digest = source.rpartition("@")
        if not digest.startswith("sha256:"):
            raise UsageError(
                f"{source!r} does not say which image exactly",
                hint="name it with its digest: oci://…@sha256:…",
            )
        return Image(digest, reference=source)
    digest, name, size = repository.take_file(source)
    return Image(digest, file=name, size=size)


def _delta(repository: Repository, old: str, path: str) -> Delta:
    digest, name, size = repository.take_file(path)
    return Delta(old, digest, name, size)


# Signing again


def sign(
    path: str,
    key_folder: str | None,
    *,
    files: Sequence[str] = (),
    days: Mapping[str, int] | None = None,
) -> Missing | None:
    """Sign what lacks signatures, and again what is getting old; a timer calls it well before a week is over.

    The snapshot and the timestamp are signed at each call for which their keys are there, the rest once half its time
    has passed. Returns what a new root still lacks.
    """
    with opened(path) as repository:
        repository.days = days or {}
        by = keys.signers(key_folder, files)
        draft = repository.draft()
        if draft is None and repository.root_versions():
            old = repository.root()
            if _old(old, "root", repository) and set(old.signed.roles["root"].keyids) & set(by):
                draft = _next_root(repository)
        missing = None if draft is None else _in_force(repository, draft, by)
        if repository.root_versions() and _can(repository, by):
            repository.publish(by, _due(repository, by))
        elif draft is None:
            raise LayerrunError(
                f"no key that is here signs anything in {path!r}", hint="name the folder with --keys"
            )
        return missing


def _old(data: Metadata[Root] | Metadata[Targets], role: str, repository: Repository) -> bool:
    whole = repository.until(role) - datetime.now(UTC)
    return data.signed.expires - datetime.now(UTC) < whole / 2


def _can(repository: Repository, by: Mapping[str, CryptoSigner]) -> bool:
    """Say whether the keys are there that sign day by day."""
    roles = repository.root().signed.roles
    return all(len(set(roles[r].keyids) & set(by)) >= roles[r].threshold for r in ("snapshot", "timestamp"))


def _due(repository: Repository, by: Mapping[str, CryptoSigner]) -> dict[str, Metadata[Targets]]:
    """Return new versions of the targets that are getting old, of the roles whose keys are there.

    So of those that their keys have not signed: a change of keys was cut short once the new root was there.
    """
    top, root = repository.targets(), repository.root().signed
    assert top is not None
    roles: dict[str, Role] = {"targets": root.roles["targets"]}
    if top.signed.delegations is not None:
        roles.update(top.signed.delegations.roles or {})
    found = {}
    for name, role in roles.items():
        known = repository.targets(name)
        if known is None or len(set(role.keyids) & set(by)) < role.threshold:
            continue
        owner = root if name == "targets" else top.signed
        signed = owner.get_verification_result(name, known.signed_bytes, known.signatures)
        if not signed or _old(known, name, repository):
            found[name] = _next_targets(repository, name)
    return found
