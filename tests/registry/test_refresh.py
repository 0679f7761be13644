"""Apps that were pulled, brought to what their image is by then: what they have written stays, and a way back."""

import json
import os
import re
import subprocess
import sys

import pytest
from support.registries import registry
from support.sandbox import small_tree
from support.stores import check_whole, die_at_line

from layerrun.errors import BusyError, LayerrunError
from layerrun.fleet.pull import pull_app
from layerrun.fleet.refreshing import refresh
from layerrun.fleet.wish import Wish
from layerrun.images.transport import Access
from layerrun.store.channel_rows import Channel
from layerrun.store.store import Store

WRITE = """
import os, sys
upper, name, text = sys.argv[1:]
os.makedirs(upper + "/opt", exist_ok=True)
with open(f"{upper}/opt/{name}", "w") as file:
    file.write(text)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with registry(str(tmp_path_factory.mktemp("registry"))) as found:
        yield found


class Publisher:
    """A store that pushes the app web, over the base shell; and another one that pulls it."""

    def __init__(self, layerrun, host, folder, name):
        self.layerrun, self.place = layerrun, f"oci://{host}/{name}:1"
        self.tree = small_tree(f"{folder}/shell")
        self.env = {"LAYERRUN_STORE": f"{folder}/publisher"}
        self("base", "import", "shell", self.tree)
        self("create", "web", "--base", "shell", "--", "cat", "/opt/program")
        self.write("program", "one\n")

    def __call__(self, *words):
        return self.layerrun(*words, env=self.env, check=0)

    def write(self, name, text):
        store = self.env["LAYERRUN_STORE"]
        upper = next(f"{store}/apps/{app}/data/upper" for app in os.listdir(f"{store}/apps"))
        subprocess.run([sys.executable, "-c", WRITE, upper, name, text], check=True)
        self("commit", "-y", "web")

    def renew_base(self, text):
        with open(f"{self.tree}/etc/base", "w") as file:
            file.write(text)
        self("base", "update", "shell", "--from", self.tree, "-y")

    def push(self, *words):
        return json.loads(self("push", "web", self.place, "--insecure", "--json", *words).out)


@pytest.fixture
def publisher(layerrun, host, folder, request):
    made = Publisher(layerrun, host, folder, re.sub("[^a-z]+", "-", request.node.name)[:60].strip("-"))
    made.push()
    layerrun("pull", "web", made.place, "--insecure", check=0)
    return made


def update(layerrun, *words, check=0):
    return json.loads(layerrun("pull", "--update", "web", "--insecure", "--json", *words, check=check).out)


def inside(layerrun, path, app="web"):
    return layerrun("app", app, "--", "cat", path, check=0).out


def write(layerrun, path, text):
    layerrun("app", "web", "--", "sh", "-c", f"echo {text} > {path}", check=0)


@pytest.mark.long
def test_other_layers(layerrun, publisher):
    write(layerrun, "/etc/mine", "mine")
    assert update(layerrun, "-y")["changed"] is False
    publisher.write("program", "two\n")
    publisher.write("more", "more\n")
    sent = publisher.push()
    before = json.loads(layerrun("show", "web", "--json").out)["config"]["layers"]
    would = update(layerrun, "--dry-run")
    assert (would["new_base"], would["new_layers"], would["image_layers"], would["digest"]) == (
        False,
        True,
        3,
        sent["digest"],
    )
    assert [one["missing"] > 0 for one in would["parts"]] == [False, False, True, True]
    assert inside(layerrun, "/opt/program") == "one\n"
    layerrun("pull", "--update", "web", "--insecure", check=2)  # nobody there to ask
    write(layerrun, "/opt/program", "my-own")
    said = layerrun("pull", "--update", "web", "--insecure", "-y", check=0)
    assert "1 file in web hides a file that changed" in said.err
    assert "layerrun rollback web" in said.err
    assert inside(layerrun, "/opt/program") == "my-own\n"
    assert (inside(layerrun, "/opt/more"), inside(layerrun, "/etc/mine")) == ("more\n", "mine\n")
    layerrun("reset", "-y", "web", check=0)
    assert inside(layerrun, "/opt/program") == "two\n"
    layerrun("rollback", "web", check=0)
    assert json.loads(layerrun("show", "web", "--json").out)["config"]["layers"] == before
    assert inside(layerrun, "/opt/program") == "my-own\n"
    assert update(layerrun, "-y")["changed"] is True, "and forth again"


def test_another_base(layerrun, publisher):
    write(layerrun, "/etc/mine", "mine")
    publisher.renew_base("newer\n")
    publisher.write("program", "two\n")
    publisher.push()
    would = update(layerrun, "--dry-run")
    assert (would["new_base"], would["new_layers"], would["base_here"]) == (True, True, False)
    layerrun("create", "other", "--base", "shell", check=0)
    assert update(layerrun, "--dry-run")["apps"] == ["other"]
    refused = layerrun("pull", "--update", "web", "--insecure", "-y", "--base", "elsewhere", check=2)
    assert "has its own base" in refused.err
    said = layerrun("pull", "--update", "web", "--insecure", "--dry-run", check=0).err
    assert "these move to the image's base too: other" in said
    with Store.open(layerrun.store()) as store:
        with store.catalog.transaction():
            store.catalog.put_channel(Channel("shell", "https://example.org/channel"))
        refused = layerrun("pull", "--update", "web", "--insecure", "-y", check=3)
        assert "follows a channel" in refused.err
        with store.catalog.transaction():
            store.catalog.delete_channel("shell")
    done = update(layerrun, "-y")
    assert (done["changed"], done["version"], done["snapshot"]) == (True, 2, None)
    seen = [inside(layerrun, path) for path in ("/etc/base", "/opt/program", "/etc/mine")]
    assert seen == ["newer\n", "two\n", "mine\n"]
    assert inside(layerrun, "/etc/base", "other") == "newer\n"
    layerrun("base", "rollback", "-y", "shell", check=0)
    seen = [inside(layerrun, path) for path in ("/etc/base", "/opt/program", "/etc/mine")]
    assert seen == ["base\n", "one\n", "mine\n"]


@pytest.mark.long
def test_layers_alone_over_a_later_base_go_back_with_it(layerrun, publisher):
    publisher.renew_base("newer\n")
    publisher.write("program", "two\n")
    publisher.push()
    update(layerrun, "-y")
    publisher.write("program", "three\n")
    publisher.push()
    assert update(layerrun, "-y")["new_base"] is False
    layerrun("base", "rollback", "-y", "shell", check=0)
    assert [inside(layerrun, path) for path in ("/etc/base", "/opt/program")] == ["base\n", "one\n"]


@pytest.mark.long
def test_a_no_leaves_what_fits_an_earlier_version(layerrun, publisher, host):
    first, publisher.place = publisher.place, f"oci://{host}/later"
    publisher.renew_base("newer\n")
    publisher.write("program", "two\n")
    publisher.push()
    update(layerrun, publisher.place, "-y")
    wish = Wish(access=Access(insecure=True))
    with Store.open(layerrun.store()) as store, pytest.raises(LayerrunError, match="answer was no"):
        refresh(store, "web", first, wish, agree=lambda *_: False, told=lambda _: None)
    layerrun("base", "rollback", "-y", "shell", check=0)
    assert [inside(layerrun, path) for path in ("/etc/base", "/opt/program")] == ["base\n", "one\n"]


@pytest.mark.long
def test_a_layer_that_goes_during_the_question_is_not_taken(layerrun, publisher, host):
    first, publisher.place = publisher.place, f"oci://{host}/gone"
    publisher.write("program", "two\n")
    publisher.push()
    layerrun("pull", "twin", publisher.place, "--insecure", check=0)

    def agree(*_):
        layerrun("remove", "-y", "twin", check=0)
        return True

    wish = Wish(access=Access(insecure=True))
    with Store.open(layerrun.store()) as store, pytest.raises(BusyError, match="removed meanwhile"):
        refresh(store, "web", publisher.place, wish, agree=agree, told=lambda _: None)
    assert inside(layerrun, "/opt/program") == "one\n"
    update(layerrun, publisher.place, "-y")
    assert inside(layerrun, "/opt/program") == "two\n"
    update(layerrun, first, "-y")


@pytest.mark.long
def test_a_check_that_fails_leaves_all_as_it_was(layerrun, publisher):
    layerrun("base", "health", "shell", "--add", "grep -q base /etc/base", check=0)
    publisher.renew_base("newer\n")
    publisher.write("program", "two\n")
    publisher.push()
    layers = set(os.listdir(f"{layerrun.store()}/layers"))
    layerrun("pull", "--update", "web", "--insecure", "-y", check=4)
    assert (inside(layerrun, "/etc/base"), inside(layerrun, "/opt/program")) == ("base\n", "one\n")
    assert set(os.listdir(f"{layerrun.store()}/layers")) == layers
    assert os.listdir(f"{layerrun.store()}/staging") == []


@pytest.mark.long
def test_what_runs_and_what_was_committed(layerrun, publisher):
    write(layerrun, "/etc/mine", "mine")
    layerrun("commit", "-y", "web", check=0)
    publisher.write("program", "two\n")
    publisher.push()
    layerrun("app", "web", "--detach", "--", "sleep", "100", check=0)
    try:
        said = layerrun("pull", "--update", "web", "--insecure", "-y", check=5)
        assert "web" in said.err
        publisher.renew_base("newer\n")
        publisher.push()
        done = update(layerrun, "-y")
        assert done["running"] == ["web"]
        assert len(done["own_layers"]) == 1
        assert inside(layerrun, "/opt/program") == "one\n", "it keeps what it has"
    finally:
        layerrun("kill", "web", check=0)
    seen = [inside(layerrun, path) for path in ("/etc/base", "/opt/program", "/etc/mine")]
    assert seen == ["newer\n", "two\n", "mine\n"]
    layerrun("squash", "web", check=None)


@pytest.mark.long
def test_layers_alone_and_what_does_not_fit(layerrun, publisher, host, folder):
    publisher.write("program", "two\n")
    publisher.push("--layers")
    done = update(layerrun, "-y")
    assert (done["changed"], done["new_base"]) == (True, False)
    assert inside(layerrun, "/opt/program") == "two\n"
    publisher.renew_base("newer\n")
    publisher.push("--layers")
    said = layerrun("pull", "--update", "web", "--insecure", "-y", check=3)
    assert "layerrun base update" in said.err
    layerrun("pull", "--update", "web", "--insecure", "-y", "--base", "shell", check=0)
    layerrun("create", "hosted", check=0)
    said = layerrun("pull", "--update", "hosted", "--insecure", "-y", check=2)
    assert "was not pulled" in said.err
    assert layerrun("pull", "web", publisher.place, "--insecure", check=1).err.count("--update")
    layerrun("pull", "web", check=2)
    publisher.place = f"oci://{host}/another"
    publisher.push()
    said = layerrun("pull", "--update", "hosted", publisher.place, "--insecure", "-y", check=3)
    assert "machine's own /" in said.err
    # A clone knows where it came from, too.
    layerrun("clone", "web", "twin", check=0)
    layerrun("pull", "--update", "twin", publisher.place, "--insecure", "-y", check=0)


@pytest.mark.long
def test_any_image_and_what_a_pull_would_read(layerrun, publisher, host):
    place = f"oci://{host}/plain:1"
    publisher("base", "push", "shell", place, "--insecure")
    would = json.loads(
        layerrun("base", "pull", "shell2", place, "--insecure", "--dry-run", "--json", check=0).out
    )
    shown = layerrun("show", "web", check=0).out
    assert f"from {publisher.place}, sha256:" in shown
    assert json.loads(layerrun("show", "web", "--json").out)["pulled"]["reference"] == publisher.place
    assert would["missing_bytes"] == 0, "its layer has been unpacked before"
    publisher.renew_base("newer\n")
    publisher("base", "push", "shell", place, "--insecure")
    said = layerrun("pull", "plain", place, "--insecure", "--dry-run", check=0)
    assert "would be made" in said.err
    assert len(said.out.splitlines()) == 2
    layerrun("show", "plain", check=6)
    layerrun("pull", "plain", place, "--insecure", check=0)
    publisher.renew_base("newest\n")
    publisher("base", "push", "shell", place, "--insecure")
    said = layerrun("pull", "--update", "plain", "--insecure", "-y", check=0)
    assert "layerrun base rollback" in said.err
    assert inside(layerrun, "/etc/base", "plain") == "newest\n"


def update_again(layerrun, user):
    words = ("pull", "--update", "web", "--insecure", "--json", "-y")
    return json.loads(layerrun(*words, user=user, check=0).out)["changed"]


@pytest.mark.long
@pytest.mark.rootless
def test_as_a_plain_user(layerrun, publisher, any_user):
    options = {"user": any_user, "check": 0}

    def seen():
        script = "cat /etc/base /opt/program /etc/mine"
        return layerrun("app", "web", "--", "sh", "-c", script, **options).out.split()

    layerrun("pull", "web", publisher.place, "--insecure", **options)
    layerrun("app", "web", "--", "sh", "-c", "echo mine > /etc/mine", **options)
    layerrun("snapshot", "web", **options)
    publisher.write("program", "two\n")
    publisher.push()
    layerrun("pull", "--update", "web", "--insecure", "-y", **options)
    assert seen() == ["base", "two", "mine"]
    layerrun("rollback", "web", **options)
    assert seen() == ["base", "one", "mine"]
    publisher.renew_base("newer\n")
    publisher.push()
    layerrun("app", "web", "--", "sh", "-c", "echo my-own > /etc/base; echo my-own > /opt/program", **options)
    said = layerrun("pull", "--update", "web", "--insecure", "-y", **options)
    assert "2 files in web hide files that changed" in said.err
    assert seen() == ["my-own", "my-own", "mine"]
    assert update_again(layerrun, any_user) is False
    layerrun("base", "rollback", "-y", "shell", **options)
    layerrun("reset", "-y", "web", **options)
    assert layerrun("app", "web", "--", "cat", "/etc/base", "/opt/program", **options).out.split() == [
        "base",
        "one",
    ]
    assert update_again(layerrun, any_user) is True


@pytest.mark.long
@pytest.mark.parametrize("what", ["layers", "base"])
def test_killed_at_any_line_an_app_is_as_before_or_after(layerrun, publisher, store_path, what):
    path = f"{store_path}-killed"
    wish = Wish(access=Access(insecure=True))
    with Store.open(f"{path}-0") as store:
        pull_app(store, "web", publisher.place, wish)
    if what == "base":
        publisher.renew_base("newer\n")
    publisher.write("program", "two\n")
    publisher.push()

    def action():
        with Store.open(path) as store:
            refresh(store, "web", None, wish, agree=lambda *_: True, told=lambda _: None)

    number, ends = 1, set()
    while True:
        subprocess.run(["rm", "-rf", path], check=True)
        subprocess.run(["cp", "-a", f"{path}-0", path], check=True)
        if not die_at_line(number, action):
            break
        with Store.open(path) as store:
            app, base = store.app("web"), store.base("shell")
            after = len(app.config.layers) == 2
            assert app.base_id == base.id
            assert base.version == (2 if after and what == "base" else 1)
            ends.add(after)
        action()  # and the next try goes through
        check_whole(path)
        with Store.open(path) as store:
            assert len(store.app("web").config.layers) == 2
        number += 211
    check_whole(path)
    assert ends == {False, True}
