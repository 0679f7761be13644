"""Bases and apps to a real registry and back, and to and from skopeo, umoci and podman."""

import json
import os
import subprocess
import tarfile

import pytest
from support.pushed import facts, make_app, make_tree, pushed, shown
from support.registries import proxy


def test_a_base_goes_out_and_comes_back(layerrun, host, tree, folder):
    layerrun("base", "import", "small", tree, check=0)
    first = pushed(layerrun, "base", "push", "small", f"oci://{host}/small:1")
    assert (first["sent"], len(first["layers"])) == (1, 1)
    again = pushed(layerrun, "base", "push", "small", f"oci://{host}/small:1")
    assert (again["sent"], again["digest"]) == (0, first["digest"])
    layerrun("base", "pull", "back", f"oci://{host}/small:1", "--insecure", check=0)
    assert shown(layerrun, "back")["digest"] == shown(layerrun, "small")["digest"]
    layerrun("base", "verify", "back", check=0)
    assert os.listdir(layerrun.store() + "/blobs") == ["partial"], "what is taken in is not kept twice"
    layerrun("base", "pull", "digest", f"oci://{host}/small@{first['digest']}", "--insecure", check=0)
    # As a source like any other, with the same options.
    layerrun("base", "import", "as-source", f"oci://{host}/small:1", "--insecure", check=0)
    assert shown(layerrun, "as-source")["digest"] == shown(layerrun, "small")["digest"]
    done = layerrun("base", "import", "as-source", tree, "--insecure", check=2)
    assert "oci://" in done.err
    # umoci knows no zstd yet.
    pushed(layerrun, "base", "push", "small", f"oci://{host}/small:gzip", "--gzip")
    # What skopeo copies and umoci unpacks is the tree that was imported, to the nanosecond and the hard link.
    subprocess.run(
        [
            "skopeo",
            "copy",
            "-q",
            "--src-tls-verify=false",
            f"docker://{host}/small:gzip",
            f"oci:{folder}/oci:1",
        ],
        check=True,
    )
    subprocess.run(["umoci", "raw", "unpack", "--image", f"{folder}/oci:1", f"{folder}/unpacked"], check=True)
    assert facts(f"{folder}/unpacked")[0] == facts(tree)[0]
    assert facts(f"{folder}/unpacked")[1] == facts(tree)[1]


@pytest.mark.parametrize("kind", ["erofs", pytest.param("squashfs", marks=pytest.mark.long)])
def test_a_base_that_is_mounted_goes_out_as_a_tree(layerrun, host, tree, folder, kind):
    argv = {
        "erofs": ["mkfs.erofs", "--quiet", f"{folder}/image", tree],
        "squashfs": ["mksquashfs", tree, f"{folder}/image", "-quiet", "-no-progress"],
    }[kind]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    layerrun("base", "import", "mounted", f"{folder}/image", check=0)
    assert shown(layerrun, "mounted")["kind"] == "image"
    place = f"oci://{host}/{kind}"
    would = pushed(layerrun, "base", "push", "mounted", place, "--dry-run")
    sent = pushed(layerrun, "base", "push", "mounted", place)
    assert (sent["sent"], sent["digest"]) == (1, would["digest"])
    layerrun("base", "pull", "back", place, "--insecure", check=0)
    back = shown(layerrun, "back")
    assert (back["kind"], back["digest"]) == ("tree", shown(layerrun, "mounted")["digest"])
    layerrun("create", "web", "--base", "mounted", "--", "look", check=0)
    pushed(layerrun, "push", "web", f"{place}-app")
    there = {"LAYERRUN_STORE": f"{folder}/elsewhere"}
    assert pushed(layerrun, "pull", "web", f"{place}-app", env=there)["base_made"]


def test_device_nodes_that_only_the_manifest_has_go_along(layerrun, host, tree, folder):
    """As in the archives of debootstrap: without them no other machine would come to the digest of the base."""
    with tarfile.open(f"{folder}/small.tar", "w") as archive:
        archive.add(tree, ".")
        for name, minor in (("null", 3), ("zero", 5)):
            node = tarfile.TarInfo(f"./dev/{name}")
            node.type, node.mode, node.devmajor, node.devminor = tarfile.CHRTYPE, 0o666, 1, minor
            archive.addfile(node)
    layerrun("base", "import", "small", f"{folder}/small.tar", check=0)
    make_app(layerrun, "small")
    pushed(layerrun, "push", "web", f"oci://{host}/nodes")
    there = {"LAYERRUN_STORE": f"{folder}/elsewhere"}
    assert pushed(layerrun, "pull", "web", f"oci://{host}/nodes", env=there)["base_made"]
    assert shown(layerrun, "small", env=there)["digest"] == shown(layerrun, "small")["digest"]


def test_a_base_that_was_altered_is_not_sent(layerrun, host, tree):
    layerrun("base", "import", "small", tree, check=0)
    store = layerrun.store()
    (base,) = os.listdir(f"{store}/bases")
    with open(f"{store}/bases/{base}/tree/etc/equal", "ab") as file:
        file.write(b"more")
    done = layerrun("base", "push", "small", f"oci://{host}/altered", "--insecure", check=1)
    assert "is not as it was imported" in done.err


def test_an_unchanged_base_sends_documents_only(layerrun, host, tree):
    layerrun("base", "import", "small", tree, check=0)
    with proxy(host) as (other, seen):
        pushed(layerrun, "base", "push", "small", f"oci://{other}/once")
        del seen[:]
        pushed(layerrun, "base", "push", "small", f"oci://{other}/once")
        assert not [line for line, _ in seen if line.startswith(("POST", "PATCH"))]
        del seen[:]
        assert pushed(layerrun, "base", "push", "small", f"oci://{other}/twice")["sent"] == 0, "mounted"
        assert [line for line, _ in seen if "mount=" in line]


@pytest.mark.rootless
def test_as_a_plain_user(layerrun, host, any_user, user_folder, program):
    mine = user_folder(any_user)
    tree = make_tree(f"{mine}/tree", program)
    subprocess.run(["chown", "-R", f"{any_user.uid}:{any_user.gid}", tree], check=True)
    layerrun("base", "import", "small", tree, user=any_user, check=0)
    pushed(layerrun, "base", "push", "small", f"oci://{host}/{any_user.name}", user=any_user)
    layerrun("base", "pull", "back", f"oci://{host}/{any_user.name}", "--insecure", user=any_user, check=0)
    assert (
        shown(layerrun, "back", user=any_user)["digest"] == shown(layerrun, "small", user=any_user)["digest"]
    )
    make_app(layerrun, "small", user=any_user)
    pushed(layerrun, "push", "web", f"oci://{host}/{any_user.name}-app", user=any_user)
    layerrun("pull", "copy", f"oci://{host}/{any_user.name}-app", "--insecure", user=any_user, check=0)
    look = layerrun("app", "copy", "--", "look", "/etc/many/gone", "/etc/many/stays", user=any_user, check=0)
    assert "gone no" in look.out
    assert "stays yes" in look.out


@pytest.mark.rootless
def test_a_user_with_one_id_sends_on_what_it_could_not_own(layerrun, host, tree, single_user):
    layerrun("base", "import", "small", tree, check=0)
    pushed(layerrun, "base", "push", "small", f"oci://{host}/owners:1")
    layerrun("base", "pull", "small", f"oci://{host}/owners:1", "--insecure", user=single_user, check=0)
    assert shown(layerrun, "small", user=single_user)["digest"] == shown(layerrun, "small")["digest"]
    pushed(layerrun, "base", "push", "small", f"oci://{host}/owners:2", "--gzip", user=single_user)
    layerrun("base", "pull", "again", f"oci://{host}/owners:2", "--insecure", check=0)
    assert shown(layerrun, "again")["digest"] == shown(layerrun, "small")["digest"]


def test_an_app_goes_out_runs_in_podman_and_comes_back(layerrun, host, tree, folder):
    layerrun("base", "import", "small", tree, check=0)
    make_app(layerrun, "small")
    done = pushed(layerrun, "push", "web", f"oci://{host}/web:1")
    assert (done["sent"], len(done["layers"])) == (2, 2)
    assert pushed(layerrun, "push", "web", f"oci://{host}/web:2")["digest"] == done["digest"]
    podman = [
        "podman",
        "--root",
        f"{folder}/podman",
        "--runroot",
        f"{folder}/run",
        "--cgroup-manager",
        "cgroupfs",
    ]
    podman += ["--storage-driver", "vfs"]
    limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024", "--network", "none"]
    run = [*podman, "run", "--rm", *limits, "--tls-verify=false", f"{host}/web:1"]
    said = subprocess.run(run, capture_output=True, text=True)
    assert said.stdout.splitlines() == ["A=b argc=2 uid=0 /etc/many/gone", "/etc/many/gone no"], said.stderr
    said = subprocess.run([*run, "look", "/etc/new/f", "/etc/many/stays"], capture_output=True, text=True)
    assert said.stdout.splitlines()[1:] == ["/etc/new/f yes", "/etc/many/stays yes"]
    # Back, beside the first: the base is here, the layer comes anew.
    layerrun("rename", "web", "first", check=0)
    back = pushed(layerrun, "pull", "web", f"oci://{host}/web:1")
    assert (back["base"], back["base_made"], len(back["layers"])) == ("small", False, 1)
    assert back["privileged"] == ["/etc/new/f"]
    configs = [
        json.loads(layerrun("show", name, "--json", check=0).out)["config"]["command"]
        for name in ("first", "web")
    ]
    assert configs[0] == configs[1]
    assert layerrun("app", "web", check=0).out.splitlines()[1] == "/etc/many/gone no"
    (layer,) = json.loads(layerrun("verify", "web", "--json", check=0).out)["layers"]
    assert (layer["intact"], layer["what"]) == (True, f"oci://{host}/web:1")
    third = pushed(layerrun, "pull", "third", f"oci://{host}/web:1")
    assert third["layers"] == back["layers"], "what is here is not read again"
    assert pushed(layerrun, "push", "third", f"oci://{host}/elsewhere")["sent"] == 0
    layerrun("reset", "-y", "web", check=0)
    assert layerrun("app", "web", check=0).out.splitlines()[1] == "/etc/many/gone no"


@pytest.mark.long
def test_what_verify_found_spoilt_is_pulled_anew(layerrun, host, tree):
    layerrun("base", "import", "small", tree, check=0)
    make_app(layerrun, "small")
    pushed(layerrun, "push", "web", f"oci://{host}/spoilt")
    layerrun("rename", "web", "first", check=0)
    (layer,) = pushed(layerrun, "pull", "web", f"oci://{host}/spoilt")["layers"]
    layerrun("clone", "web", "twin", check=0)
    with open(f"{layerrun.store()}/layers/{layer}/tree/etc/new/f", "r+b") as file:  # and so the object
        file.write(b"bad")
    layerrun("verify", "web", check=1)
    layerrun("remove", "-y", "web", check=0)
    assert pushed(layerrun, "pull", "web", f"oci://{host}/spoilt")["layers"] != [layer]
    layerrun("verify", "web", check=0)
    layerrun("verify", "twin", check=1)


def test_elsewhere_the_base_comes_too_and_nothing_of_the_machine(layerrun, host, tree, folder):
    layerrun("base", "import", "small", tree, check=0)
    layerrun(
        "create",
        "web",
        "--base",
        "small",
        "--share",
        "/tmp",
        "--health",
        "true",
        "--env",
        "A=b",
        "--",
        "look",
        check=0,
    )
    pushed(layerrun, "push", "web", f"oci://{host}/shares")
    there = {"LAYERRUN_STORE": f"{folder}/elsewhere"}
    back = pushed(layerrun, "pull", "web", f"oci://{host}/shares", env=there)
    assert (back["base"], back["base_made"], back["left_out"]) == (
        "small",
        True,
        ["share /tmp", "health true", "network host"],
    )
    config = json.loads(layerrun("show", "web", "--json", env=there, check=0).out)["config"]
    assert (config["shares"], config["health"], config["policy"]["network"]) == ([], [], "private")
    assert layerrun("app", "web", env=there, check=0).out.startswith("A=b")
    back = pushed(layerrun, "pull", "granted", f"oci://{host}/shares", "--grants", env=there)
    assert json.loads(layerrun("show", "granted", "--json", env=there, check=0).out)["config"]["shares"]
    assert layerrun("pull", "web", f"oci://{host}/shares", "--insecure", env=there).rc == 1, (
        "the name is taken"
    )


def test_what_cannot_be_sent(layerrun, host):
    layerrun("create", "hosted", check=0)
    for words in (("push", "hosted"), ("base", "push", "host")):
        said = layerrun(*words, f"oci://{host}/x", "--insecure")
        assert said.rc == 2
        assert "cannot be sent" in said.err
    assert layerrun("push", "hosted", "registry.example.org/x").rc == 2
    assert layerrun("push", "nobody", f"oci://{host}/x", "--insecure").rc == 6
