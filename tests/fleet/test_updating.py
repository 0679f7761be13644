"""What a channel offers becomes the base's next version: checked, staged, switched to, never half."""

from __future__ import annotations

import configparser
import json
import os
import shutil
import subprocess
from types import SimpleNamespace

import pytest
from support import users
from support.registries import registry
from support.sandbox import small_tree
from support.whose import whose

from layerrun.errors import DamagedError, NotFoundError, UsageError
from layerrun.fleet import publishing, release, showing, timer, updating

BOTH = pytest.mark.parametrize("who", ["root", users.PLAIN], indirect=True)


@pytest.fixture(params=["root", pytest.param(users.PLAIN, marks=pytest.mark.long)])
def who(request):
    """Root (``None``), and a plain user."""
    return whose(request.param)


class Site:
    """A channel whose bases hold a shell, and a base `debian` that follows it at its first release."""

    def __init__(self, layerrun, publisher, web, who):
        self.layerrun, self.publisher, self.web, self.who = layerrun, publisher, web, who
        self.tree = small_tree(f"{publisher.top}/shell")
        self.publish("1")
        root = f"{who.home}/root.json" if who else publisher.root
        if who:
            shutil.copy(publisher.root, root)
        self("base", "follow", "debian", web.url, "--channel", "shell", "--root", root)

    def __call__(self, *words, check=0, **options):
        return self.layerrun(*words, user=self.who, check=check, **options)

    def json(self, *words, check=0):
        return json.loads(self(*words, "--json", check=check).out)

    def archive(self, version, name=None):
        with open(f"{self.tree}/usr/version", "w") as file:
            file.write(version)
        path = f"{self.publisher.top}/{name or version}.tar"
        argv = ["tar", "-C", self.tree, "--sort=name", "--owner=0", "--group=0", "-cf", path, "."]
        subprocess.run(argv, check=True)
        return path

    def publish(self, version, **more):
        values = {"version": version, "arch": release.machine(), **more}
        publisher = self.publisher
        return publishing.add(publisher.path, "shell", self.archive(version), publisher.keys, **values)

    def inside(self, app="web"):
        return self("app", app, "--", "cat", "/usr/version").out

    def update(self, *words, check=0):
        done = self("update", "--json", *words, check=check)
        return [(one["name"], one["state"]) for one in json.loads(done.out)["bases"]]

    @property
    def state(self):
        return self.update("--check")[0][1]

    def versions(self):
        return [one["version"] for one in self.json("base", "versions", "debian")["versions"]]

    def slot(self):
        return next(one for one in self.json("status")["bases"] if one["name"] == "debian")


@pytest.fixture
def site(layerrun, publisher, web, who):
    made = Site(layerrun, publisher, web, who)
    assert made.update("-y") == [("debian", "imported")]
    made("create", "web", "--base", "debian")
    return made


def test_an_update(site):
    assert site.inside() == "1"
    assert site.state == "current"
    site.publish("2")
    assert site.state == "available"
    site("update", check=2)  # nobody there to ask
    assert site.inside() == "1"
    assert site.update("-y") == [("debian", "updated")]
    assert site.inside() == "2"
    assert site.state == "current"
    assert site.update("-y") == [("debian", "current")]
    shown = site.json("base", "show", "debian")
    assert shown["source"].startswith(site.web.url)
    assert [n for n in os.listdir(f"{site.layerrun.store(site.who)}/channels/debian") if "file" in n] == []


@BOTH
def test_what_is_staged_is_switched_to_by_the_next_start(site):
    site.publish("2")
    assert site.update("--stage") == [("debian", "staged")]
    assert site.state == "staged"
    assert site.slot()["staged"] == 2
    asked = len(site.web.asked)
    assert site.update("--stage") == [("debian", "staged")]
    assert not any("/files/" in path for path in site.web.asked[asked:])
    assert site.inside() == "2"
    assert site.state == "current"


def test_what_is_staged_is_switched_to_by_hand(site):
    assert site.update("--apply") == [("debian", "current")]
    site.publish("2")
    site.update("--stage")
    site.web.answers["/metadata/timestamp.json"] = lambda handler: handler.send_error(500)
    assert site.update("--apply") == [("debian", "updated")]
    assert site.slot()["version"] == 2
    assert site.inside() == "2"


@pytest.mark.long
def test_something_newer_takes_the_place_of_what_is_staged(site):
    for version in ("2", "3"):
        site.publish(version)
        assert site.update("--stage") == [("debian", "staged")]
    assert site.inside() == "3"


def test_a_release_that_fails_is_tried_once(site):
    site("base", "health", "debian", "--add", "test $(cat /usr/version) != 2")
    site.publish("2")
    done = site("update", "--stage", "--json", check=4)
    assert json.loads(done.out)["bases"][0]["state"] == "failed"
    assert "stays at debian@1" in done.err
    assert site.state == "failed"
    asked = len(site.web.asked)
    assert site.update("--stage") == [("debian", "failed")]
    assert not any("/files/" in path for path in site.web.asked[asked:])
    assert site.inside() == "1"
    assert "failed over it" in site.slot()["failed"]
    site.update("--stage", "debian", check=4)  # named, it is tried again
    site.publish("3")
    assert site.update("-y") == [("debian", "updated")]
    assert site.inside() == "3"


@pytest.mark.long
def test_one_that_cannot_be_brought_along_stops_no_other(site):
    site.publish("2")
    site("base", "follow", "other", site.web.url, "--channel", "stable", "-y")
    for name in os.listdir(f"{site.publisher.path}/files"):
        if f"{name}" in json.dumps(showing.show(site.publisher.path)["releases"][0]):
            os.truncate(f"{site.publisher.path}/files/{name}", 100)
    done = site("update", "-y", "--json", check=1)
    found = {one["name"]: one["state"] for one in json.loads(done.out)["bases"]}
    assert found == {"debian": "updated", "other": "refused"}
    assert "is not the file that is signed" in done.err


@pytest.mark.parametrize(
    "who",
    ["root", *(pytest.param(who, marks=pytest.mark.long) for who in (users.PLAIN, users.SINGLE))],
    indirect=True,
)
def test_the_digest_of_the_tree_is_compared(site):
    """Where the channel names it: whoever makes the archive may be somebody else than who signs."""
    site.publish("2", tree="sha256:" + "0" * 64)
    done = site("update", "-y", "--json", check=1)
    assert json.loads(done.out)["bases"][0]["state"] == "refused"
    assert site.versions() == [1]
    assert site.inside() == "1"
    path = site.archive("3", "other")
    site("base", "import", "other", path)
    digest = site.json("base", "show", "other")["digest"]
    site.publish("3", tree=digest)
    assert site.update("-y") == [("debian", "updated")]


def test_a_delta_is_fetched_instead_of_the_whole(site, layerrun, folder):
    """A base of the publisher's store is published with one from each version before it."""
    own = {"env": {"LAYERRUN_STORE": f"{folder}/publisher"}}
    publisher = site.publisher
    layerrun("base", "import", "shell", site.archive("1"), check=0, **own)
    layerrun("base", "update", "shell", "-y", "--from", site.archive("2"), check=0, **own)
    made = publisher("add", "shell", "--base", "shell", "--version", "2", "--json", **own)
    said = json.loads(made.out)
    assert len(said["deltas"]) == 1
    assert said["deltas"][0]["size"] < said["size"] / 10
    asked = len(site.web.asked)
    assert site.update("-y") == [("debian", "updated")]
    files = [path for path in site.web.asked[asked:] if path.startswith("/files/")]
    assert [path.rpartition(".")[2] for path in files] == ["delta"]
    assert site.inside() == "2"
    # One that does not do costs no more than itself: the whole is fetched then.
    layerrun("base", "update", "shell", "-y", "--from", site.archive("3"), check=0, **own)
    publisher("add", "shell", "--base", "shell", "--version", "3", **own)
    for name in os.listdir(f"{publisher.path}/files"):
        if name.endswith(".delta"):
            os.truncate(f"{publisher.path}/files/{name}", 100)
    assert site.update("-y") == [("debian", "updated")]
    assert site.inside() == "3"


@pytest.mark.parametrize("error", [DamagedError, NotFoundError])
def test_the_whole_is_taken_where_the_version_that_a_delta_is_for_is_no_good(monkeypatch, error):
    def take(_store, _fd, _news, what, _progress):
        if what != "whole":
            raise error("the old version")
        return what

    monkeypatch.setattr(updating, "_next", take)
    monkeypatch.setattr(updating, "_remember", lambda *_: None)
    store = SimpleNamespace(catalog=SimpleNamespace(versions=lambda _: [SimpleNamespace(digest="1")]))
    offered = SimpleNamespace(deltas=[release.Delta("1", "2", "files/2", 1)], image="whole")
    news = SimpleNamespace(channel=SimpleNamespace(slot="debian"), release=offered)
    assert updating._bring(store, -1, news, None) == "whole"


def test_an_image_of_a_registry(site, layerrun, folder):
    own = {"env": {"LAYERRUN_STORE": f"{folder}/publisher"}}
    layerrun("base", "import", "shell", site.archive("2"), check=0, **own)
    with registry(f"{folder}/registry") as host:
        pushed = layerrun(
            "base", "push", "shell", f"oci://{host}/shell:2", "--insecure", "--json", check=0, **own
        )
        digest = json.loads(pushed.out)["digest"]
        reference = f"oci://{host}/shell@{digest}"
        assert (
            "which image exactly"
            in site.publisher("add", "shell", reference[:20], "--version", "2", check=2).err
        )
        site.publisher("add", "shell", reference, "--version", "2")
        with open(f"{folder}/registries.conf", "w") as file:
            file.write(f'[[registry]]\nlocation = "{host}"\ninsecure = true\n')
        site("update", "-y", env={"CONTAINERS_REGISTRIES_CONF": f"{folder}/registries.conf"})
    assert site.inside() == "2"
    assert site.json("base", "show", "debian")["source"] == reference


def test_a_download_goes_on_where_it_stopped(site):
    site.publish("2")
    path = f"/{showing.show(site.publisher.path)['releases'][-1]['image']}"
    with open(site.publisher.path + path, "rb") as file:
        data = file.read()
    ranges = []

    def cut(handler):
        start = int(handler.headers.get("Range", "bytes=0-")[6:].rstrip("-"))
        ranges.append(start)
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        handler.send_header("Content-Length", str(len(data) - start))
        handler.end_headers()
        handler.wfile.write(data[start : start + len(data) // 3 + 1])
        handler.close_connection = True

    site.web.answers[path] = cut
    for _ in range(2):
        done = site("update", "-y", check=1)
        assert "cannot be asked" in done.err
    assert site.update("-y") == [("debian", "updated")]
    third = len(data) // 3 + 1
    assert ranges == [0, third, 2 * third]
    assert site.inside() == "2"


@pytest.mark.long
def test_a_server_that_knows_no_parts(site):
    """Python's own answers a Range with the whole file."""
    site.publish("2")
    image = showing.show(site.publisher.path)["releases"][-1]["image"]
    folder = f"{site.layerrun.store(site.who)}/channels/debian"
    name = "file-" + os.path.basename(image)
    with open(f"{folder}/{name}", "wb") as file:
        file.write(b"not the beginning")
    if site.who:
        os.chown(f"{folder}/{name}", site.who.uid, site.who.gid)
    assert site.update("-y") == [("debian", "updated")]


@pytest.mark.long
def test_going_back_keeps_what_was_seen(site):
    site.publish("2")
    site.update("-y")
    site("base", "rollback", "debian", "-y")
    assert site.inside() == "1"
    assert site.state == "current"  # it is here, and was not wanted
    site.publish("3")
    assert site.update("-y") == [("debian", "updated")]
    assert site.inside() == "3"


@pytest.mark.long
def test_a_base_that_was_removed_is_imported_anew(site):
    site("remove", "-y", "web")
    site("base", "remove", "-y", "debian")
    assert site.update("-y") == [("debian", "imported")]


def test_units_for_systemd(layerrun, folder):
    where = f"{folder}/units"
    done = layerrun("--store", f"{folder}/a %b$c", "update", "--timer", where, check=0)
    assert "systemctl enable --now layerrun-update.timer" in done.err
    assert sorted(os.listdir(where)) == sorted(timer.UNITS)
    subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(f"{where}/{name}" for name in timer.UNITS)], check=True
    )
    unit = configparser.ConfigParser(interpolation=None)
    unit.read(f"{where}/{timer.UNITS[0]}")
    assert unit["Service"]["ExecStart"].endswith(f'/layerrun" --store "{folder}/a %%b$$c" update --stage')
    with pytest.raises(UsageError):
        timer.write_units(where, "/a\nExecStart=/bin/rm")
