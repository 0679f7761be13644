"""What a channel says is believed only if it is signed, new, of one state, and not too much."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import time

import pytest
from support.channels import ahead, long_ago

from layerrun.errors import TrustError
from layerrun.fleet import keys, release


@pytest.fixture
def follower(layerrun, publisher, web):
    """A base that follows the channel, at its second release; the base is not there yet."""
    layerrun("base", "follow", "debian", web.url, "--root", publisher.root, check=0)
    return layerrun


def refused(follower, offers, *words):
    """Assert that the channel is refused with these words, and that it is remembered."""
    done = offers()
    assert not isinstance(done, dict), done
    assert done.rc == 1, done.err
    for word in words:
        assert word in done.err, done.err
    return done


def test_what_is_refused_is_not_fetched(publisher, follower, offers, web):
    """Not even with the part that is good."""
    publisher.publish("three")
    publisher.lie(lambda said: setattr(said, "expires", long_ago()))
    refused(follower, offers, "has expired")
    assert follower("update", "-y", "debian").rc == 1
    assert [b["name"] for b in json.loads(follower("base", "list", "--json").out)["bases"]] == ["host"]
    assert not any(path.startswith("/files/") for path in web.asked)
    publisher.lie(lambda said: setattr(said, "expires", ahead()))
    assert follower("update", "-y", "debian").rc == 0
    publisher.lie(lambda said: setattr(said, "expires", long_ago()))
    refused(follower, offers, "has expired")
    assert "its channel was not believed" in follower("status").out


def test_what_is_offered(publisher, follower, offers, web):
    found = offers()
    assert (found["version"], found["sequence"], found["state"]) == ("two", 2, "available")
    publisher.publish("three")
    assert offers()["version"] == "three"
    asked = len(web.asked)
    assert offers()["version"] == "three"
    # Nothing new costs two questions: for the next root, and for the timestamp.
    assert [p.rsplit("/", 1)[1] for p in web.asked[asked:]] == ["2.root.json", "timestamp.json"]


def test_rollback_is_refused(publisher, follower, offers):
    old = publisher.copy()
    publisher.publish("three")
    assert offers()["version"] == "three"
    publisher.put_back(old)
    refused(follower, offers, "older than", "timestamp")


def test_rollback_of_the_snapshot_is_refused(publisher, follower, offers):
    publisher.lie(lambda said: setattr(said.snapshot_meta, "version", 1))
    refused(follower, offers, "snapshot")


def test_rollback_of_a_channel_within_a_new_snapshot_is_refused(publisher, follower, offers):
    """Who has the online keys, and no other, cannot take a channel back."""
    snapshot = publisher.read(f"{publisher.last('snapshot')}.snapshot.json")
    snapshot.signed.version += 1
    snapshot.signed.meta["stable.json"].version = 1
    publisher.write(f"{snapshot.signed.version}.snapshot.json", snapshot, "snapshot")
    publisher.lie(lambda said: setattr(said.snapshot_meta, "version", snapshot.signed.version), hashes=False)
    refused(follower, offers, "older than", "stable.json")


def test_lower_sequence_is_refused(publisher, follower, offers):
    """Who has the keys of a channel goes back by a new release, not by an old document."""
    path = f"{publisher.path}/metadata/{publisher.last('stable')}.stable.json"
    with open(path) as file:
        said = json.load(file)
    next(iter(said["signed"]["targets"].values()))["custom"]["sequence"] = 0
    with open(path, "w") as file:
        json.dump(said, file)
    publisher.publish("again")
    refused(follower, offers, "release 1", "had 2")


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "stable", "root"])
def test_freeze_is_noticed(publisher, follower, offers, role):
    """What is kept from a follower shows: what it is given has expired."""
    if role == "timestamp":
        publisher.lie(lambda said: setattr(said, "expires", long_ago()))
    elif role == "root":
        root = publisher.read("1.root.json")
        root.signed.version, root.signed.expires = 2, long_ago()
        publisher.write("2.root.json", root, "root")
    else:
        expire(publisher, role)
    refused(follower, offers, "has expired", role)


def expire(publisher, role):
    """Publish metadata of a role that has expired, signed by its own keys."""
    with_key = {key.public_key.keyid: key for key in publisher.signers().values()}
    top = publisher.read(f"{publisher.last('targets')}.targets.json").signed
    changed = publisher.read(f"{publisher.last(role)}.{role}.json")
    changed.signed.version += 1
    changed.signed.expires = long_ago()
    by = [with_key[keyid] for keyid in top.delegations.roles[role].keyids] if role == "stable" else None
    publisher.write(f"{changed.signed.version}.{role}.json", changed, role, by=by)
    if role != "snapshot":
        snapshot = publisher.read(f"{publisher.last('snapshot')}.snapshot.json")
        snapshot.signed.version += 1
        snapshot.signed.meta[f"{role}.json"].version = changed.signed.version
        publisher.write(f"{snapshot.signed.version}.snapshot.json", snapshot, "snapshot")
    number = publisher.last("snapshot")
    publisher.lie(lambda said: setattr(said.snapshot_meta, "version", number), hashes=False)


def test_mix_and_match_is_refused(publisher, follower, offers):
    """Old pieces under new names, each properly signed in its time."""
    metadata = f"{publisher.path}/metadata"
    old = publisher.last("stable")
    publisher.publish("three")
    new = publisher.last("stable")
    shutil.copy(f"{metadata}/{old}.stable.json", f"{metadata}/{new}.stable.json")
    refused(follower, offers, "not one with", "stable")


def test_mixed_snapshot_is_refused(publisher, follower, offers):
    metadata = f"{publisher.path}/metadata"
    old = publisher.last("snapshot")
    publisher.publish("three")
    shutil.copy(f"{metadata}/{old}.snapshot.json", f"{metadata}/{publisher.last('snapshot')}.snapshot.json")
    refused(follower, offers, "something else than what is signed")


@pytest.mark.parametrize(
    "role",
    [
        "timestamp",
        "stable",
        *(pytest.param(role, marks=pytest.mark.long) for role in ("snapshot", "targets")),
    ],
)
def test_wrong_keys_are_refused(publisher, follower, offers, folder, role):
    other = os.open(folder, os.O_RDONLY)
    keys.make_key(other, "other")
    os.close(other)
    by = list(keys.signers(None, [f"{folder}/other.pem"]).values())
    publisher.publish("three")
    name = "timestamp.json" if role == "timestamp" else f"{publisher.last(role)}.{role}.json"
    data = publisher.read(name)
    if role == "targets":  # as it was, a follower has it already
        data.signed.version += 1
        name = f"{data.signed.version}.{role}.json"
        snapshot = publisher.read(f"{publisher.last('snapshot')}.snapshot.json")
        snapshot.signed.meta["targets.json"].version = data.signed.version
        publisher.write(f"{publisher.last('snapshot')}.snapshot.json", snapshot, "snapshot")
        publisher.lie(lambda said: None, hashes=False)
    data.signatures.clear()
    publisher.write(name, data, role, by=by)
    if role == "snapshot":
        publisher.lie(lambda said: None, hashes=False)
    refused(follower, offers, "right keys", role)


def test_a_root_that_too_few_of_the_old_keys_sign_is_refused(publisher, follower, offers):
    """One stolen key of three does not make a root, not even with new keys beside it."""
    root = publisher.read("1.root.json")
    root.signed.version = 2
    signers = publisher.signers()
    held = root.signed.roles["root"].keyids
    publisher.write("2.root.json", root, by=[signers[held[0]]])
    refused(follower, offers, "right keys", "root")


def test_changed_bytes_are_refused(publisher, follower, offers):
    publisher.publish("three")
    name = f"{publisher.path}/metadata/{publisher.last('stable')}.stable.json"
    with open(name) as file:
        text = file.read()
    with open(name, "w") as file:
        file.write(text.replace('"length":', '"length":1'))
    refused(follower, offers, "right keys")


def test_a_changed_document_is_refused(publisher, follower, offers):
    publisher.publish("three")
    folder = f"{publisher.path}/targets/stable"
    for name in os.listdir(folder):
        with open(f"{folder}/{name}") as file:
            text = file.read()
        with open(f"{folder}/{name}", "w") as file:
            file.write(text.replace("three", "thres"))
    refused(follower, offers, "something else than what is signed")


def endless(handler):
    """Send as much as is taken, up to 64 MiB."""
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(1024):
            handler.wfile.write(b" " * (64 << 10))
    except OSError:
        pass
    handler.close_connection = True


def zipped(handler):
    """Send what unpacks to a gigabyte."""
    data = gzip.compress(b"\0" * (64 << 20)) * 16
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    try:
        handler.wfile.write(data)
    except OSError:
        pass


@pytest.mark.parametrize(
    ("what", "lie"),
    [
        ("timestamp.json", endless),
        ("stable", zipped),
        *(
            pytest.param(what, lie, marks=pytest.mark.long)
            for what in ("2.root.json", "timestamp.json", "snapshot", "stable")
            for lie in (endless, zipped)
        ),
    ],
)
def test_endless_data_is_refused(publisher, follower, offers, web, what, lie):  # noqa: PLR0917
    publisher.publish("three")
    name = what if what.endswith("json") else f"{publisher.last(what)}.{what}.json"
    web.answers[f"/metadata/{name}"] = lie
    refused(follower, offers, "sends more than")


def test_endless_file_is_refused(publisher, follower, layerrun, web):
    name = next(n for n in os.listdir(f"{publisher.path}/files"))
    for name in os.listdir(f"{publisher.path}/files"):
        web.answers[f"/files/{name}"] = endless
    done = layerrun("update", "-y", "debian", check=1)
    assert "sends more than" in done.err
    assert os.listdir(f"{layerrun.store()}/staging") == []


def test_a_changed_file_is_refused(publisher, follower, layerrun):
    for name in os.listdir(f"{publisher.path}/files"):
        with open(f"{publisher.path}/files/{name}", "r+b") as file:
            file.seek(2000)
            file.write(b"X")
    done = layerrun("update", "-y", "debian", check=1)
    assert "is not the file that is signed" in done.err
    assert [b["name"] for b in json.loads(layerrun("base", "list", "--json").out)["bases"]] == ["host"]


def slow(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    try:
        for _ in range(20):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.1)
    except OSError:
        pass


def test_a_server_that_drips_is_given_up(publisher, follower, web, monkeypatch):
    from layerrun.errors import UnreachableError
    from layerrun.fleet import following, trust
    from layerrun.store.store import Store

    monkeypatch.setattr(trust, "WHOLE", 0.5)
    web.answers["/metadata/timestamp.json"] = slow
    with (
        Store.open(follower.store()) as store,
        following.locked(store, "debian") as (fd, channel),
        pytest.raises(UnreachableError, match="too slowly"),
    ):
        following.news(store, channel, fd)


def test_a_server_that_is_away(follower, offers, web, publisher):
    shutil.move(f"{publisher.path}/metadata", f"{publisher.path}/away")
    done = offers()
    assert done.rc == 1
    assert "status 404" in done.err
    shutil.move(f"{publisher.path}/away", f"{publisher.path}/metadata")
    assert offers()["version"] == "two"


def test_a_document_names_no_image_of_this_machine():
    digest = "sha256:" + "0" * 64
    for start, good in (("oci://reg.example/debian", True), ("oci:/srv/image", False), ("/srv/image", False)):
        image = release.Image(digest, reference=f"{start}@{digest}")
        data = release.Release("stable", "amd64", "1", 1, image).to_bytes()
        if good:
            assert release.Release.from_bytes(data, "stable", "amd64").image == image
        else:
            with pytest.raises(TrustError, match="no address of an image"):
                release.Release.from_bytes(data, "stable", "amd64")


def nonsense(handler):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"[" * 10_000)


@pytest.mark.parametrize("name", ["2.root.json", "timestamp.json"])
def test_nonsense_is_refused(follower, offers, web, name):
    web.answers[f"/metadata/{name}"] = nonsense
    refused(follower, offers, "cannot be trusted")


def test_altered_state_is_noticed(follower, offers):
    with open(f"{follower.store()}/channels/debian/root", "a") as file:
        file.write(" ")
    assert "was altered" in offers().err
    subprocess.run(["rm", "-r", f"{follower.store()}/channels/debian"], check=True)
    assert "is missing" in offers().err
