"""The layers of an app alone, as an artifact of a registry: over the base they were made for, or the machine's /."""

import io
import json
import os
import subprocess
import sys

import pytest
from support.registries import registry, sha
from support.sandbox import small_tree

from layerrun.errors import UsageError
from layerrun.fleet import beneath
from layerrun.fleet.pull import pull_app
from layerrun.fleet.wish import Wish
from layerrun.images.reference import Reference
from layerrun.images.registry import Repository
from layerrun.images.transport import Access
from layerrun.images.upload import put_blob, put_manifest
from layerrun.store.store import Store

MARKS = """
import os, stat, sys
upper = sys.argv[1]
os.makedirs(upper + "/etc/new")
os.mknod(upper + "/etc/base", stat.S_IFCHR, os.makedev(0, 0))
with open(upper + "/etc/new/f", "w") as file:
    file.write("new")
os.chown(upper + "/etc/new/f", 7, 7)
os.chmod(upper + "/etc/new/f", 0o6755)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with registry(str(tmp_path_factory.mktemp("registry"))) as found:
        yield found


@pytest.fixture
def tree(folder):
    return small_tree(f"{folder}/shell")


def answer(layerrun, *words, **options):
    return json.loads(layerrun(*words, "--json", **{"check": 0, **options}).out)


def make_app(layerrun, *words, user=None, **options):
    """Make the app web, whose layer takes /etc/base away and adds /etc/new/f."""
    layerrun("create", "web", *words, "--env", "A=b", user=user, check=0, **options)
    if user is None:
        store = layerrun.store()
        upper = next(f"{store}/apps/{app}/data/upper" for app in os.listdir(f"{store}/apps"))
        subprocess.run([sys.executable, "-c", MARKS, upper], check=True)
    else:
        script = "rm -f /etc/base; mkdir -p /var/tmp/new; echo new > /var/tmp/new/f"
        layerrun("app", "web", "--", "sh", "-c", script, user=user, check=0)
    layerrun("commit", "-y", "web", user=user, check=0)


def manifest(host, name):
    repository = Repository(Access(insecure=True), Reference.parse(f"oci://{host}/{name}"))
    return json.loads(repository.manifest("latest").data)


def test_over_the_base_that_they_were_made_for(layerrun, host, tree, folder):
    layerrun("base", "import", "small", tree, check=0)
    make_app(layerrun, "--base", "small", "--share", "/tmp")
    place = f"oci://{host}/alone"
    would = answer(layerrun, "push", "web", place, "--layers", "--insecure", "--dry-run")
    assert (would["sent"], would["changed"], would["dry_run"]) == (1, True, True)
    assert layerrun("pull", "no", place, "--insecure").rc == 6, "nothing was sent"
    sent = answer(layerrun, "push", "web", place, "--layers", "--insecure")
    assert (sent["digest"], sent["parts"]) == (would["digest"], would["parts"])
    again = answer(layerrun, "push", "web", place, "--layers", "--insecure", "--dry-run")
    assert (again["sent"], again["changed"]) == (0, False)
    # As tools for artifacts see it.
    found = manifest(host, "alone")
    digest = answer(layerrun, "base", "show", "small")["digest"]
    assert found["artifactType"] == "application/vnd.layerrun.layers.v1"
    assert json.loads(found["annotations"]["layerrun.base"])["digest"] == digest
    assert len(found["layers"]) == 1
    # Elsewhere the base is wanted first.
    there = {"LAYERRUN_STORE": f"{folder}/there"}
    said = layerrun("pull", "web", place, "--insecure", env=there, check=6)
    assert digest in said.err
    assert "--base" in said.err
    layerrun("base", "import", "other", tree, env=there, check=0)
    done = answer(layerrun, "pull", "web", place, "--insecure", env=there)
    assert (done["base"], done["base_made"], done["privileged"]) == ("other", False, ["/etc/new/f"])
    assert "share /tmp" in done["left_out"]
    look = layerrun("app", "web", "--", "sh", "-c", "cat /etc/new/f; cat /etc/base; echo $A", env=there)
    assert look.out == "newb\n"
    # Over any other that is named, and not over one that is at another version.
    with open(f"{tree}/etc/more", "w") as file:
        file.write("more")
    layerrun("base", "update", "other", "--from", tree, "-y", env=there, check=0)
    said = layerrun("pull", "two", place, "--insecure", env=there, check=6)
    assert "layerrun base switch other 1" in said.err
    done = answer(layerrun, "pull", "two", place, "--insecure", "--base", "other", env=there)
    assert done["layers"] == answer(layerrun, "show", "web", env=there)["config"]["layers"]
    assert layerrun("app", "two", "--", "cat", "/etc/new/f", "/etc/more", env=there).out == "newmore"


@pytest.mark.long
def test_where_their_base_came_from_is_said(layerrun, host, tree, folder):
    layerrun("base", "import", "small", tree, check=0)
    sent = answer(layerrun, "base", "push", "small", f"oci://{host}/base:1", "--insecure")
    there = {"LAYERRUN_STORE": f"{folder}/there"}
    layerrun("base", "pull", "mine", f"oci://{host}/base:1", "--insecure", env=there, check=0)
    env = {**there, "A": "b"}
    layerrun("create", "web", "--base", "mine", env=env, check=0)
    store = there["LAYERRUN_STORE"]
    upper = next(f"{store}/apps/{app}/data/upper" for app in os.listdir(f"{store}/apps"))
    subprocess.run([sys.executable, "-c", MARKS, upper], check=True)
    layerrun("commit", "-y", "web", env=env, check=0)
    layerrun("push", "web", f"oci://{host}/from", "--layers", "--insecure", env=env, check=0)
    annotations = manifest(host, "from")["annotations"]
    assert annotations["org.opencontainers.image.base.name"] == f"{host}/base:1"
    assert annotations["org.opencontainers.image.base.digest"] == sent["digest"]
    other = {"LAYERRUN_STORE": f"{folder}/other"}
    said = layerrun("pull", "web", f"oci://{host}/from", "--insecure", env=other, check=6)
    assert f"layerrun base pull mine oci://{host}/base:1@{sent['digest']}" in said.err


@pytest.mark.long
def test_nobody_takes_them_for_an_image(layerrun, host, tree, folder):
    layerrun("base", "import", "small", tree, check=0)
    make_app(layerrun, "--base", "small")
    layerrun("push", "web", f"oci://{host}/artifact", "--layers", "--insecure", check=0)
    text = layerrun("push", "web", f"oci://{host}/artifact", "--layers", "--insecure", "--dry-run", check=0)
    assert "there" in text.out
    assert "stands for it already" in text.err
    for words in (("base", "pull", "wrong"), ("base", "import", "wrong")):
        options = ("--insecure",) if words[1] == "pull" else ()
        env = {"CONTAINERS_REGISTRIES_CONF": f"{folder}/registries.conf"}
        with open(f"{folder}/registries.conf", "w") as file:
            file.write(f'[[registry]]\nprefix = "{host}"\ninsecure = true\n')
        said = layerrun(*words, f"oci://{host}/artifact", *options, env=env, check=1)
        assert "without the base" in said.err
        assert "layerrun pull" in said.err
    podman = ["podman", "--root", f"{folder}/podman", "--runroot", f"{folder}/run", "--storage-driver", "vfs"]
    said = subprocess.run(
        [*podman, "pull", "-q", "--tls-verify=false", f"{host}/artifact"], capture_output=True, text=True
    )
    assert said.returncode, "podman must not run what is no image"
    # Copied by a tool for images it stays what it is.
    copy = ["skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run([*copy, f"docker://{host}/artifact", f"docker://{host}/copied"], check=True)
    layerrun("rename", "web", "first", check=0)
    layerrun("pull", "web", f"oci://{host}/copied", "--insecure", check=0)


def test_what_there_is_not(layerrun, host, tree):
    layerrun("base", "import", "small", tree, check=0)
    layerrun("create", "empty", "--base", "small", check=0)
    said = layerrun("push", "empty", f"oci://{host}/x", "--layers", "--insecure", check=2)
    assert "layerrun commit empty" in said.err
    layerrun("create", "hosted", check=0)
    said = layerrun("push", "hosted", f"oci://{host}/x", "--insecure", check=2)
    assert "--layers" in said.err


@pytest.mark.long
@pytest.mark.rootless
def test_over_the_machines_own_root(layerrun, host, any_user, monkeypatch):
    for user in (None, any_user):
        make_app(layerrun, user=user)
        place = f"oci://{host}/host-{'root' if user is None else 'plain'}"
        said = layerrun("push", "web", place, "--layers", "--insecure", user=user, check=0)
        assert "this machine's own /" in said.err
        layerrun("rename", "web", "first", user=user, check=0)
        done = answer(layerrun, "pull", "web", place, "--insecure", user=user)
        assert (done["base"], len(done["layers"])) == ("host", 1)
        path = "/etc/new/f" if user is None else "/var/tmp/new/f"
        assert layerrun("app", "web", "--", "cat", path, user=user, check=0).out.strip() == "new"
    # A machine with another system has to be told.
    monkeypatch.setattr(beneath, "running_system", lambda: "plan9 4")
    access = Access(insecure=True)
    with Store.open(layerrun.store()) as store:
        with pytest.raises(UsageError, match="and this is plan9 4") as caught:
            pull_app(store, "far", f"oci://{host}/host-root", Wish(access=access))
        assert "--base host" in caught.value.hint
        pull_app(store, "far", f"oci://{host}/host-root", Wish(access=access, base_name="host"))
    # What root has sent is a plain user's own, too.
    layerrun("pull", "theirs", f"oci://{host}/host-root", "--insecure", user=any_user, check=0)
    assert layerrun("app", "theirs", "--", "cat", "/etc/new/f", user=any_user, check=0).out == "new"


LIES = [
    ('{"version":2,"name":"host","digest":null,"layers":0}', "newer"),
    ('{"version":1,"name":"host","digest":null,"layers":1}', "no sense"),
    ('{"version":1,"name":"small","digest":null,"layers":0}', "no sense"),
    ('{"version":1,"name":"../x","digest":"sha256:0","layers":0}', "no sense"),
    ('{"version":1,"name":"host","digest":null,"layers":0,"source":"oci://a b\\u001b"}', "no sense"),
    ('{"version":1,"name":"host","digest":null,"layers":0,"machine":"a\\u001b[31m"}', "another system"),
    (None, "no sense"),
]


@pytest.mark.long
def test_labels_that_lie(layerrun, host, tree):
    layerrun("base", "import", "small", tree, check=0)
    make_app(layerrun, "--base", "small")
    layerrun("push", "web", f"oci://{host}/lies", "--layers", "--insecure", check=0)
    repository = Repository(Access(insecure=True), Reference.parse(f"oci://{host}/lies"), push=True)
    found = manifest(host, "lies")
    config = json.loads(repository.small(found["config"]["digest"], 1 << 20))
    for label, why in LIES:
        config["config"]["Labels"]["layerrun.base"] = label
        data = json.dumps(config).encode()
        put_blob(repository, sha(data), len(data), lambda data=data: io.BytesIO(data))
        found["config"] |= {"digest": sha(data), "size": len(data)}
        put_manifest(repository, json.dumps(found).encode(), found["mediaType"], "lies")
        said = layerrun("pull", "liar", f"oci://{host}/lies:lies", "--insecure")
        assert said.rc in (1, 2), said.err
        assert why in said.err
        assert "\x1b" not in said.err
    layerrun("show", "liar", check=6)
    assert len(os.listdir(f"{layerrun.store()}/layers")) == 1
