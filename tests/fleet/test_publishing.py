"""Running a channel: keys that stay where they are, signatures of several people, keys that change."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from datetime import UTC, datetime

import pytest
from support.channels import Publisher
from support.stores import die_at_line

from layerrun.errors import BusyError, ExistsError, LayerrunError, NotFoundError, UsageError
from layerrun.fleet import keys, publishing, release, showing, trust
from layerrun.fleet.repository import Repository, opened


@pytest.fixture
def follower(layerrun, publisher, web):
    layerrun("base", "follow", "debian", web.url, "--root", publisher.root, check=0)
    return layerrun


def shown(publisher):
    return showing.show(publisher.path)


def role(publisher, name):
    return next(one for one in shown(publisher)["roles"] if one["role"] == name)


def test_by_the_command_line(layerrun, folder):
    """What docs/channels.md tells, in its words."""
    made = Publisher(layerrun, folder)
    made("init")
    assert stat.S_IMODE(os.stat(made.keys).st_mode) == 0o700
    for name in os.listdir(made.keys):
        assert stat.S_IMODE(os.stat(f"{made.keys}/{name}").st_mode) == (
            0o400 if name.endswith("pem") else 0o444
        )
    said = made("add", "stable", made.archive("one"), "--version", "1.0").err
    assert "stable for amd64 is 1.0 now, release 1" in said
    made("add", "stable", made.archive("one"), "--version", "1.0", "--arch", "arm64")
    out = json.loads(made("show", "--json").out)
    assert [(r["channel"], r["arch"], r["sequence"]) for r in out["releases"]] == [
        ("stable", "amd64", 1),
        ("stable", "arm64", 1),
    ]
    assert out["fingerprint"] in made("init", check=1).err or made("init", check=1).rc == 1
    assert "stable" in made("show").out
    made("sign")
    made("rotate", "timestamp")
    done = layerrun("base", "follow", "debian", made.path, "--fingerprint", out["fingerprint"], check=0)
    assert "offers 1.0" in done.err


def test_nothing_secret_is_handed_out(publisher):
    for top, _, names in os.walk(publisher.path):
        for name in names:
            with open(f"{top}/{name}", "rb") as file:
                assert b"PRIVATE KEY" not in file.read()
            assert os.stat(f"{top}/{name}").st_mode & 0o044 == 0o044, "a web server is to read it"


def test_what_init_refuses(folder, publisher):
    with pytest.raises(ExistsError):
        publishing.init(publisher.path, publisher.keys)
    with pytest.raises(UsageError, match="something else"):
        publishing.init(folder, f"{folder}/../keys")
    with pytest.raises(UsageError, match="handed out"):
        publishing.init(f"{folder}/new", f"{folder}/new/keys")
    with pytest.raises(UsageError, match="makes no sense"):
        publishing.init(f"{folder}/new", f"{folder}/keys", root_keys=1, threshold=2)
    assert not os.path.exists(f"{folder}/new")


def test_what_add_refuses(publisher):
    for source in ("oci://reg.example/debian:12", "/nonexistent"):
        with pytest.raises(LayerrunError):
            publishing.add(publisher.path, "stable", source, publisher.keys, version="3", arch="amd64")
    for channel in ("root", "targets", "a/b", "..", ""):
        with pytest.raises(UsageError):
            publishing.add(publisher.path, channel, "x", publisher.keys, version="3", arch="amd64")
    with pytest.raises(LayerrunError, match="cannot be used"):
        publisher.publish("three", version="a\nb")
    assert shown(publisher)["releases"][0]["sequence"] == 2
    assert not [n for n in os.listdir(f"{publisher.path}/files") if n.startswith(".new")]


def test_keys_that_others_can_read_are_not_used(publisher):
    os.chmod(publisher.keys, 0o755)
    with pytest.raises(UsageError, match="others can get at"):
        publisher.publish("three")


def test_one_change_at_a_time(publisher):
    with opened(publisher.path), pytest.raises(BusyError):
        publisher.publish("three")


def test_a_channel_by_several_people(layerrun, folder):
    """Nobody has two keys of the root; the channel is there once two have signed."""
    people = {name: f"{folder}/{name}" for name in ("ann", "ben", "cleo")}
    for path in people.values():
        layerrun("channel", "key", path, check=0)
    www = f"{folder}/www"
    given = [word for path in people.values() for word in ("--root-key", path + ".pub")]
    done = layerrun("channel", "init", www, *given, check=0)
    assert "not in force yet: it lacks signatures by 2 of its own" in done.err
    assert "lacks signatures" in layerrun("channel", "add", www, "stable", "x", "--version", "1", check=6).err
    done = layerrun("channel", "sign", www, "--key", people["ann"] + ".pem", check=0)
    assert "by 1 of its own" in done.err
    # The same key again counts once.
    assert "by 1 of its own" in layerrun("channel", "sign", www, "--key", people["ann"] + ".pem").err
    assert layerrun("channel", "sign", www, "--key", people["cleo"] + ".pem", check=0).err == ""
    assert os.listdir(f"{www}/draft") == []
    made = Publisher(layerrun, folder)
    made.publish("one")
    layerrun("base", "follow", "debian", www, "--root", made.root, check=0)


@pytest.mark.parametrize("name", ["timestamp", "snapshot", "targets", "stable"])
def test_keys_are_changed_and_the_old_ones_count_no_more(publisher, follower, offers, name):
    before = role(publisher, name)["keys"]
    old = [one for keyid, one in publisher.signers().items() if keyid in before]
    assert publishing.rotate(publisher.path, name, publisher.keys) is None
    after = role(publisher, name)["keys"]
    assert len(after) == 1
    assert after != before
    publisher.publish("three")
    assert offers()["version"] == "three"
    # Whoever has stolen the old key signs something newer with it.
    file = "timestamp.json" if name == "timestamp" else f"{publisher.last(name)}.{name}.json"
    data = publisher.read(file)
    data.signed.version += 1
    publisher.write(file, data, by=old)
    publisher.forge(name, data.signed.version, old)
    assert "right keys" in offers().err


def test_the_root_goes_over_to_other_people(publisher, follower, offers, folder):
    held = role(publisher, "root")["keys"]
    stolen = [publisher.signers()[keyid] for keyid in held[:2]]
    for number in (2, 3):
        drop = held[number - 2]
        assert publishing.rotate(publisher.path, "root", publisher.keys, drop=[drop[:12]]) is None
        assert role(publisher, "root")["threshold"] == 2
    assert publisher.last("root") == 3
    publisher.publish("three")
    assert offers()["version"] == "three"
    assert os.path.exists(f"{follower.store()}/channels/debian/metadata/root_history/3.root.json")
    # The two keys that were taken out could have made a root together once.
    root = publisher.read("1.root.json")
    root.signed.version = 4
    publisher.write("4.root.json", root, by=stolen)
    assert "right keys" in offers().err
    # Somebody new, who trusts the first root, comes to the last one as well.
    os.unlink(f"{publisher.path}/metadata/4.root.json")
    follower("base", "follow", "other", publisher.path, "--root", publisher.root, check=0)


def test_a_root_needs_the_old_keys_as_well(publisher, folder):
    """New people cannot take a channel over; they are let in by the old ones."""
    away = f"{folder}/away"
    os.mkdir(away, 0o700)
    for n in (1, 2):
        shutil.move(f"{publisher.keys}/root-{n}.pem", away)
    missing = publishing.rotate(publisher.path, "root", publisher.keys)
    assert (missing.version, missing.old, missing.new) == (2, 1, 0)
    assert publisher.last("root") == 1
    assert shown(publisher)["draft"] == 2
    publisher.publish("three")  # day by day work goes on meanwhile
    assert publishing.sign(publisher.path, None, files=[f"{away}/root-2.pem"]) is None
    assert publisher.last("root") == 2
    assert shown(publisher)["draft"] is None


def test_a_channel_recovers_from_a_stolen_online_key(publisher, follower, offers):
    """With it versions went as high as they go; with another key they may begin where they were."""
    publisher.lie(lambda said: setattr(said, "version", 2**31))
    assert offers()["version"] == "two"
    publisher.write("timestamp.json", honest := publisher.read("timestamp.json"), "timestamp")
    honest.signed.version = 5
    publisher.write("timestamp.json", honest, "timestamp")
    assert "older than" in offers().err
    assert publishing.rotate(publisher.path, "timestamp", publisher.keys) is None
    publisher.publish("three")
    assert publisher.read("timestamp.json").signed.version < 100
    assert offers()["version"] == "three"


@pytest.mark.parametrize(
    "name", [*(pytest.param(one, marks=pytest.mark.long) for one in ("timestamp", "snapshot")), "targets"]
)
def test_sign_ends_a_change_of_keys_that_was_cut_short(publisher, follower, offers, monkeypatch, name):
    with monkeypatch.context() as patch:
        patch.setattr(Repository, "publish", cut)
        with pytest.raises(KeyboardInterrupt):
            publishing.rotate(publisher.path, name, publisher.keys)
    assert publisher.last("root") == 2
    assert "right keys" in offers().err
    publishing.sign(publisher.path, publisher.keys)
    assert offers()["version"] == "two"


def cut(*_):
    raise KeyboardInterrupt


def test_what_rotate_refuses(publisher):
    for words in ({"threshold": 3}, {"drop": ["00000000"]}, {"take": ["/etc/passwd"]}):
        with pytest.raises(LayerrunError):
            publishing.rotate(publisher.path, "timestamp", publisher.keys, **words)
    with pytest.raises(NotFoundError):
        publishing.rotate(publisher.path, "nightly", publisher.keys)
    assert publisher.last("root") == 1


def test_sign_keeps_a_channel_alive(publisher, follower, offers):
    publishing.sign(publisher.path, publisher.keys, days={"timestamp": 2, "snapshot": 3})
    end = datetime.fromisoformat(role(publisher, "timestamp")["expires"])
    assert 1 <= (end - datetime.now(UTC)).days <= 2
    # What is good for a year is signed again when half of that is over, if the keys are there.
    before = publisher.last("targets")
    publishing.sign(publisher.path, publisher.keys)
    assert publisher.last("targets") == before
    publishing.sign(publisher.path, publisher.keys, days={"targets": 3000})
    assert publisher.last("targets") == before + 1
    publishing.sign(publisher.path, publisher.keys, days={"root": 3000})
    assert publisher.last("root") == 2
    assert offers()["version"] == "two"


def test_a_key_with_a_passphrase(publisher, monkeypatch):
    key = f"{publisher.keys}/stable.pem"
    argv = ["openssl", "pkcs8", "-topk8", "-in", key, "-out", key + ".new", "-passout", "pass:secret"]
    subprocess.run(argv, check=True)
    os.rename(key + ".new", key)
    with pytest.raises(UsageError, match="needs a passphrase"):
        publisher.publish("three")
    monkeypatch.setenv("LAYERRUN_CHANNEL_PASSPHRASE", "wrong")
    with pytest.raises(UsageError, match="can be used"):
        publisher.publish("three")
    monkeypatch.setenv("LAYERRUN_CHANNEL_PASSPHRASE", "secret")
    publisher.publish("three")


def test_keys_of_other_kinds(publisher):
    """Such as a card or an agent gives out: ECDSA and RSA."""
    for number, words in enumerate((["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], ["RSA"])):
        path = f"{publisher.top}/key{number}.pem"
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", *words, "-out", path], check=True, capture_output=True
        )
        publishing.rotate(publisher.path, "snapshot", publisher.keys, take=[path])
        shutil.move(path, f"{publisher.keys}/other{number}.pem")
        publisher.publish(f"again{number}")
    with open(f"{publisher.top}/junk.pem", "w") as file:
        file.write("junk")
    with pytest.raises(UsageError):
        keys.load_public(f"{publisher.top}/junk.pem")


@pytest.mark.parametrize("stride", [pytest.param(3, marks=pytest.mark.long), 170])
def test_whenever_it_is_killed_followers_see_one_or_the_other(publisher, folder, stride):
    archive = publisher.archive("three")
    copy, keys_before = publisher.copy(), set(os.listdir(publisher.keys))
    with open(publisher.root, "rb") as file:
        root = file.read()

    def action():
        publishing.add(publisher.path, "nightly", archive, publisher.keys, version="3", arch="amd64")

    number = 10
    while die_at_line(number, action):
        assert shown(publisher)["releases"][0]["version"] == "two"
        seen = f"{folder}/seen-{number}"
        os.mkdir(seen)
        assert trust.ask(seen, f"file://{publisher.path}", root, "stable", release.machine()).version == "two"
        action()
        assert [r["channel"] for r in shown(publisher)["releases"]] == ["stable", "nightly"]
        assert not [name for name in os.listdir(f"{publisher.path}/files") if name.startswith(".new")]
        publisher.put_back(copy)
        for name in set(os.listdir(publisher.keys)) - keys_before:
            os.unlink(f"{publisher.keys}/{name}")
        number += stride
    assert number > 300
