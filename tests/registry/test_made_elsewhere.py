"""What umoci, buildah and others made, of indexes, by mirrors, with labels that lie: what is believed of it."""

import io
import json
import os
import subprocess

from support import registries
from support.pushed import INDEX, pushed, shown

from layerrun.images.reference import Reference
from layerrun.images.registry import Repository
from layerrun.images.transport import Access
from layerrun.images.upload import put_blob, put_manifest


def test_what_umoci_made(layerrun, host, folder, tree):
    layout = f"{folder}/oci"
    umoci = ["umoci", "--log=error"]
    subprocess.run([*umoci, "init", "--layout", layout], check=True)
    subprocess.run([*umoci, "new", "--image", f"{layout}:a"], check=True)
    subprocess.run([*umoci, "insert", "--image", f"{layout}:a", tree, "/"], check=True)
    subprocess.run([*umoci, "insert", "--image", f"{layout}:a", "--whiteout", "/etc/many/gone"], check=True)
    config = ["--config.cmd", "look", "--config.cmd", "/etc/many/gone", "--config.env", "A=umoci"]
    subprocess.run([*umoci, "config", "--image", f"{layout}:a", *config], check=True)
    copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{layout}:a"]
    subprocess.run([*copy, f"docker://{host}/umoci:1"], check=True)
    subprocess.run([*copy, "--format", "v2s2", f"docker://{host}/umoci:docker"], check=True)
    for number, tag in enumerate(("1", "docker")):
        back = pushed(layerrun, "pull", f"app{number}", f"oci://{host}/umoci:{tag}")
        assert (back["base"], back["layers"]) == (f"app{number}", [])
        said = layerrun(
            "app", f"app{number}", "--", "/usr/bin/look", "/etc/many/gone", "/etc/many/stays", check=0
        )
        assert said.out.splitlines()[1:] == ["/etc/many/gone no", "/etc/many/stays yes"]
    assert shown(layerrun, "app0")["digest"] == shown(layerrun, "app1")["digest"]


def test_of_an_index_the_machines_own(layerrun, host, tree):
    layerrun("base", "import", "small", tree, check=0)
    first = pushed(layerrun, "base", "push", "small", f"oci://{host}/several:1")
    repository = Repository(Access(insecure=True), Reference.parse(f"oci://{host}/several"), push=True)
    own = repository.manifest("1")
    config = json.loads(own.data)["config"]
    machine = json.loads(repository.small(config["digest"], 1 << 20))["architecture"]
    other = "s390x" if machine != "s390x" else "amd64"
    entry = {"mediaType": own.media_type, "digest": own.digest, "size": len(own.data)}
    entry["platform"] = {"os": "linux", "architecture": machine}
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode()
    put_manifest(repository, index, INDEX, "all")
    layerrun("base", "pull", "one", f"oci://{host}/several:all", "--insecure", check=0)
    assert shown(layerrun, "one")["digest"] == shown(layerrun, "small")["digest"]
    said = layerrun(
        "base", "pull", "two", f"oci://{host}/several:all", "--insecure", "--platform", f"linux/{other}"
    )
    assert said.rc == 6, said.err
    assert first["digest"] == own.digest


def test_mirrors_and_what_is_blocked(layerrun, host, tree, folder):
    layerrun("base", "import", "small", tree, check=0)
    pushed(layerrun, "base", "push", "small", f"oci://{host}/mirrored/small:1")
    conf = {"CONTAINERS_REGISTRIES_CONF": f"{folder}/registries.conf"}

    def write(text):
        with open(f"{folder}/registries.conf", "w") as file:
            file.write(text)

    # The registry itself is nowhere: what comes, comes from the second mirror.
    write(
        '[[registry]]\nprefix = "registry.invalid/apps"\n[[registry.mirror]]\n'
        f'location = "{host}/nothing"\ninsecure = true\n[[registry.mirror]]\n'
        f'location = "{host}/mirrored"\ninsecure = true\n'
    )
    layerrun("base", "pull", "back", "oci://registry.invalid/apps/small:1", env=conf, check=0)
    assert shown(layerrun, "back")["source"] == "oci://registry.invalid/apps/small:1"
    write('[[registry]]\nprefix = "registry.invalid"\nblocked = true\n')
    said = layerrun("base", "pull", "other", "oci://registry.invalid/apps/small:1", env=conf)
    assert said.rc == 1
    assert "blocked" in said.err


DIGEST = "sha256:" + "0" * 64


LIES = [
    (f'{{"version":2,"name":"x","digest":"{DIGEST}","layers":1}}', "newer"),
    (f'{{"version":1,"name":"../x","digest":"{DIGEST}","layers":1}}', "no sense"),
    (f'{{"version":1,"name":"x","digest":"{DIGEST}","layers":7}}', "no sense"),
    (f'{{"version":1,"name":"x","digest":"{DIGEST}","layers":1}}', "should be"),
    ("[]", "no sense"),
    ("{", "no sense"),
]


def test_labels_that_lie(layerrun, host, tree):
    layerrun("base", "import", "small", tree, check=0)
    layerrun("create", "web", "--base", "small", check=0)
    pushed(layerrun, "push", "web", f"oci://{host}/labels:1")
    repository = Repository(Access(insecure=True), Reference.parse(f"oci://{host}/labels"), push=True)
    manifest = json.loads(repository.manifest("1").data)
    config = json.loads(repository.small(manifest["config"]["digest"], 1 << 20))
    for label, why in LIES:
        config["config"]["Labels"]["layerrun.base"] = label
        data = json.dumps(config).encode()
        put_blob(repository, registries.sha(data), len(data), lambda data=data: io.BytesIO(data))
        manifest["config"] |= {"digest": registries.sha(data), "size": len(data)}
        put_manifest(repository, json.dumps(manifest).encode(), manifest["mediaType"], "lies")
        said = layerrun("pull", "liar", f"oci://{host}/labels:lies", "--insecure")
        assert said.rc == 1, said.err
        assert why in said.err
    layerrun("show", "liar", check=6)
    assert len(json.loads(layerrun("base", "list", "--json", check=0).out)["bases"]) == 2


def relabelled(host, name, tag, change):
    """Put the image NAME:1 under another tag, with its configuration and its layers changed."""
    repository = Repository(Access(insecure=True), Reference.parse(f"oci://{host}/{name}"), push=True)
    manifest = json.loads(repository.manifest("1").data)
    config = json.loads(repository.small(manifest["config"]["digest"], 1 << 20))
    change(repository, manifest, config)
    data = json.dumps(config).encode()
    put_blob(repository, registries.sha(data), len(data), lambda: io.BytesIO(data))
    manifest["config"] |= {"digest": registries.sha(data), "size": len(data)}
    put_manifest(repository, json.dumps(manifest).encode(), manifest["mediaType"], tag)


def test_variables_of_whoever_starts_it_are_left_out(layerrun, host, tree):
    layerrun("base", "import", "small", tree, check=0)
    layerrun("create", "web", "--base", "small", "--env", "A", "--env", "B=b", "--", "look", check=0)
    pushed(layerrun, "push", "web", f"oci://{host}/variables:1")
    back = pushed(layerrun, "pull", "back", f"oci://{host}/variables:1")
    assert "env A" in back["left_out"]
    assert json.loads(layerrun("show", "back", "--json", check=0).out)["config"]["env"] == ["B=b"]
    assert layerrun("app", "back", env={"A": "secret"}, check=0).out.startswith("A=- ")


def test_a_layer_that_was_not_read_is_not_taken_for_the_base(layerrun, host, tree, folder):
    layerrun("base", "import", "small", tree, check=0)
    layerrun("create", "web", "--base", "small", check=0)
    pushed(layerrun, "push", "web", f"oci://{host}/claims:1")
    other = b"something else"

    def change(repository, manifest, config):
        put_blob(repository, registries.sha(other), len(other), lambda: io.BytesIO(other))
        manifest["layers"][0] |= {"digest": registries.sha(other), "size": len(other)}

    relabelled(host, "claims", "lies", change)
    # A store that has the base and has not pushed it.
    there = {"LAYERRUN_STORE": f"{folder}/elsewhere"}
    layerrun("base", "import", "small", tree, env=there, check=0)
    layerrun("pull", "liar", f"oci://{host}/claims:lies", "--insecure", env=there, check=0)
    sent = pushed(layerrun, "base", "push", "small", f"oci://{host}/claims:2", env=there)
    assert registries.sha(other) not in sent["layers"]


def test_what_buildah_made_and_updates(layerrun, host, tree, folder):
    buildah = ["buildah", "--storage-driver", "vfs", "--root", f"{folder}/b", "--runroot", f"{folder}/r"]

    def build(*words):
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        return subprocess.run(
            [*buildah, *words], env=environment, check=True, capture_output=True, text=True
        ).stdout.strip()

    container = build("from", "scratch")
    build("add", container, tree, "/")
    build("config", "--cmd", '["look", "/etc/many/stays"]', "--env", "A=buildah", container)
    build("commit", "-q", container, "localhost/made")
    build("push", "-q", "--tls-verify=false", "localhost/made", f"docker://{host}/buildah:1")
    with open(f"{folder}/registries.conf", "w") as file:
        file.write(f'[[registry]]\nprefix = "r.test"\nlocation = "{host}"\ninsecure = true\n')
    conf = {"CONTAINERS_REGISTRIES_CONF": f"{folder}/registries.conf"}
    layerrun("base", "import", "made", "oci://r.test/buildah:1", env=conf, check=0)
    layerrun("create", "web", "--base", "made", check=0)
    assert "stays yes" in layerrun("app", "web", "--", "/usr/bin/look", "/etc/many/stays", check=0).out
    os.remove(f"{tree}/etc/many/gone")
    layerrun("base", "import", "small", tree, check=0)
    layerrun("base", "push", "small", "oci://r.test/small:2", env=conf, check=0)
    layerrun("base", "update", "made", "--from", "oci://r.test/small:2", "-y", env=conf, check=0)
    assert shown(layerrun, "made")["digest"] == shown(layerrun, "small")["digest"]
    assert "gone no" in layerrun("app", "web", "--", "/usr/bin/look", "/etc/many/gone", check=0).out
