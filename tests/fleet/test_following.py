"""Following a channel: where trust begins, what is recorded, and that no crash takes back what was seen."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from functools import partial
from unittest import mock

import pytest
from support.channels import Publisher
from support.stores import check_whole, die_at_line

from layerrun.errors import BusyError, DamagedError, TrustError
from layerrun.fleet import following, publishing, showing, updating
from layerrun.store.store import Store


def agree(*_):
    pass


def channels(layerrun, user=None):
    with sqlite3.connect(f"{layerrun.store(user)}/catalog.db") as db:
        found = {slot: json.loads(state) for slot, state in db.execute("SELECT slot, state FROM channels")}
    db.close()
    return found


def test_nobody_is_trusted_unasked(layerrun, publisher, web):
    done = layerrun("base", "follow", "debian", web.url, check=2)
    print_ = showing.root_fingerprint(publisher.path)
    assert f"--fingerprint {print_}" in done.err
    assert not os.path.exists(f"{layerrun.store()}/channels")
    assert channels(layerrun) == {}
    done = layerrun("base", "follow", "debian", web.url, "--fingerprint", "0" * 64, check=1)
    assert print_ in done.err
    assert channels(layerrun) == {}
    layerrun("base", "follow", "debian", web.url, "--fingerprint", f"SHA256:{print_}", check=0)
    assert channels(layerrun)["debian"]["root"] == print_
    done = layerrun("base", "follow", "-y", "other", web.url, check=0)
    assert print_ in done.err


def test_the_root_of_another_channel_is_no_good(layerrun, publisher, web, folder):
    publishing.init(f"{folder}/other", f"{folder}/other.keys")
    done = layerrun(
        "base", "follow", "debian", web.url, "--root", f"{folder}/other/metadata/1.root.json", check=1
    )
    assert "right keys" in done.err
    done = layerrun(
        "base", "follow", "debian", web.url, "--root", f"{folder}/other/metadata/1.targets.json", check=1
    )
    assert "no root of a channel" in done.err
    with open(publisher.root) as file:
        text = file.read()
    with open(f"{folder}/root.json", "w") as file:
        file.write(text.replace('"threshold":2', '"threshold":1'))
    layerrun("base", "follow", "debian", web.url, "--root", f"{folder}/root.json", check=1)
    assert channels(layerrun) == {}
    assert os.listdir(f"{layerrun.store()}/staging") == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["host", "{url}"], 2, "machine's own /"),
        (["debian", "{url}", "--channel", "nightly"], 2, "no channel 'nightly'"),
        (["debian", "{url}", "--channel", "root"], 2, "cannot be called"),
        (["debian", "{url}", "--arch", "s390x"], 2, "for s390x"),
        (["debian", "{url}/nothing"], 1, "status 500"),
        (["debian", "http://127.0.0.1:1"], 1, "Connection refused"),
        (["debian", "http://a:b@127.0.0.1:1"], 2, "no address of a channel"),
        (["debian", "/nonexistent"], 2, "no address of a channel"),
        (["debian", "ftp://example.org/x"], 2, "no address of a channel"),
        (["A b", "{url}"], 2, "name of a base"),
    ],
)
def test_what_cannot_be_followed(layerrun, publisher, web, words, status, said):  # noqa: PLR0917
    web.answers["/nothing/metadata/timestamp.json"] = lambda handler: handler.send_error(500)
    done = layerrun(
        "base", "follow", *[w.format(url=web.url) for w in words], "--root", publisher.root, check=None
    )
    assert (done.rc, said in done.err) == (status, True), done.err
    assert channels(layerrun) == {}
    assert os.listdir(f"{layerrun.store()}/staging") == []


def test_from_a_folder_and_another_address(layerrun, publisher, web, offers):
    layerrun("base", "follow", "debian", publisher.path, "--root", publisher.root, check=0)
    assert offers()["version"] == "two"
    layerrun("base", "follow", "debian", web.url, "--root", publisher.root, check=0)
    assert offers()["version"] == "two"
    assert any("timestamp" in path for path in web.asked)


def test_unfollow(layerrun, publisher, offers):
    layerrun("base", "follow", "debian", publisher.path, "--root", publisher.root, check=0)
    layerrun("update", "-y", "debian", check=0)
    layerrun("base", "unfollow", "debian", check=0)
    assert "follows no channel" in layerrun("update", "-y", "debian", check=6).err
    assert layerrun("update", "-y", check=0).out == ""
    assert "follows no channel" in layerrun("base", "unfollow", "debian", check=6).err
    assert os.listdir(f"{layerrun.store()}/channels") == []
    assert len(json.loads(layerrun("base", "list", "--json").out)["bases"]) == 2


def test_as_a_plain_user(layerrun, publisher, web, any_user):
    with open(publisher.root) as file:
        root = file.read()
    path = f"{any_user.home}/root.json"
    with open(path, "w") as file:
        file.write(root)
    layerrun("base", "follow", "debian", web.url, "--root", path, user=any_user, check=0)
    layerrun("update", "-y", user=any_user, check=0)
    assert channels(layerrun, any_user)["debian"]["done"] == 2
    found = json.loads(layerrun("base", "show", "debian", "--json", user=any_user).out)
    assert found["kind"] == "tree"


def test_one_asks_at_a_time(layerrun, publisher, web):
    layerrun("base", "follow", "debian", web.url, "--root", publisher.root, check=0)
    asked, go_on = threading.Event(), threading.Event()

    def wait(handler):
        asked.set()
        go_on.wait(20)
        handler.send_error(404)

    web.answers["/metadata/2.root.json"] = wait
    first = threading.Thread(target=layerrun, args=("update", "--check"))
    first.start()
    try:
        assert asked.wait(20)
        done = layerrun("update", "--check", "debian", check=5)
        assert "being asked by another process" in done.err
        layerrun("base", "list", check=0)
    finally:
        go_on.set()
        first.join()


def test_what_changes_while_somebody_waits(layerrun, publisher, folder):
    """Whatever was read before the lock was had is read again: neither a row nor a folder is another channel's."""
    os.mkdir(f"{folder}/new")
    other = Publisher(layerrun, f"{folder}/new")
    publishing.init(other.path, other.keys)
    other.publish("three")
    layerrun("base", "follow", "debian", publisher.path, "--root", publisher.root, check=0)
    with Store.open(layerrun.store()) as store:
        news = updating.check(store, "debian")
        with following.locked(store, "debian"):
            for words in (("base", "unfollow", "debian"), ("update", "-y", "debian")):
                layerrun(*words, check=5)
            said = layerrun("base", "follow", "debian", other.path, "--root", other.root, check=5)
            assert "by another process" in said.err
        assert channels(layerrun)["debian"]["version"] == "two"
        following.follow(store, "debian", other.path, root=root_of(other), agree=agree)
        with pytest.raises(BusyError, match="meanwhile"):
            updating.get(store, news, updating.Wanted(), agree=lambda _: True, told=agree)
        assert store.catalog.base("debian") is None
        # Somebody who opened the folder of before, and gets its lock only now.
        with mock.patch.object(following, "open_dir", side_effect=lambda *_: os.open(folder, os.O_RDONLY)):
            with pytest.raises(BusyError, match="changed"), following.locked(store, "debian"):
                pass
            with pytest.raises(BusyError):
                following.unfollow(store, "debian")
        # Two begin at once: the other is there when this one would be put in its place.
        with (
            mock.patch.object(following, "_alone", side_effect=DamagedError("none yet")),
            pytest.raises(BusyError, match="since a moment"),
        ):
            following.follow(store, "debian", publisher.path, root=root_of(publisher), agree=agree)
        following.unfollow(store, "debian")
        assert os.listdir(f"{layerrun.store()}/channels") == []


def test_nobody_asks_between_the_folder_and_its_row(layerrun, publisher):
    """The folder of another channel is there a moment before its row: nothing is noted in that moment."""
    layerrun("base", "follow", "debian", publisher.path, "--root", publisher.root, check=0)
    place, busy = following._place, []

    def placed(store, ticket, name):
        place(store, ticket, name)
        with pytest.raises(BusyError), following._alone(store, name):
            pass
        busy.append(name)

    with Store.open(layerrun.store()) as store, mock.patch.object(following, "_place", placed):
        following.follow(store, "debian", publisher.path, root=root_of(publisher), agree=agree)
        assert busy == ["debian"]
        with following.locked(store, "debian"):
            pass


def root_of(publisher):
    with open(publisher.root, "rb") as file:
        return file.read()


@pytest.mark.parametrize("stride", [pytest.param(3, marks=pytest.mark.long), 110])
def test_killed_while_it_begins_to_follow(layerrun, publisher, stride):
    with open(publisher.root, "rb") as file:
        root = file.read()
    path = layerrun.store()

    def action():
        with Store.open(path) as store:
            following.follow(store, "debian", publisher.path, root=root, agree=agree)

    def back():
        with Store.open(path) as store:
            following.unfollow(store, "debian")

    action()
    back()
    number = 10
    while die_at_line(number, action):
        check_whole(path)
        assert os.listdir(f"{path}/channels") == list(channels(layerrun)), number
        action()
        back()
        number += stride
    assert number > 200


def test_killed_once_another_channel_is_in_its_place(layerrun, publisher, offers, folder):
    """What is recorded of the channel is of the root that is there."""
    os.mkdir(f"{folder}/new")
    other = Publisher(layerrun, f"{folder}/new")
    publishing.init(other.path, other.keys)
    other.publish("three")
    layerrun("base", "follow", "debian", publisher.path, "--root", publisher.root, check=0)
    pid = os.fork()
    if pid == 0:
        with Store.open(layerrun.store()) as store, open(other.root, "rb") as root:
            following._place = partial(die_after, following._place)
            following.follow(store, "debian", other.path, root=root.read(), agree=agree)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert offers()["version"] == "three"
    assert channels(layerrun)["debian"]["root"] == showing.root_fingerprint(other.path)


def die_after(function, *words):
    function(*words)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("stride", [pytest.param(3, marks=pytest.mark.long), 110])
def test_killed_while_it_asks(layerrun, publisher, stride):
    """Whatever was accepted stays accepted, and is never half there."""
    with open(publisher.root, "rb") as file:
        root = file.read()
    path = layerrun.store()
    before = publisher.copy()
    publisher.publish("three")
    after = publisher.copy()

    def action():
        with Store.open(path) as store, following.locked(store, "debian") as (fd, channel):
            following.news(store, channel, fd)

    def follow():
        with Store.open(path) as store:
            following.follow(store, "debian", publisher.path, root=root, agree=agree)

    number, killed = 10, True
    while killed:
        publisher.put_back(before)
        follow()
        publisher.put_back(after)
        killed = die_at_line(number, action)
        check_whole(path)
        with open(f"{path}/channels/debian/metadata/timestamp.json") as file:
            version = json.load(file)["signed"]["version"]
        assert version in (3, 4)
        publisher.put_back(before)
        if version == 4:
            with pytest.raises(TrustError, match="older than"):
                action()
        else:
            action()
        publisher.put_back(after)
        action()
        number += stride
    assert version == 4
    assert number > 200
