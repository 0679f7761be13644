"""Bases and apps to a real registry and back, and to and from skopeo, umoci and podman."""

import io
import json
import os
import subprocess
import sys

import pytest
from support import registries
from support.registries import Fault, proxy, registry
from support.stores import check_whole, die_at_line

from layerrun.fleet import layers, pull
from layerrun.fleet.pull import Wish, pull_app
from layerrun.images.reference import Reference
from layerrun.images.registry import Repository
from layerrun.images.transport import Access
from layerrun.images.upload import put_blob, put_manifest
from layerrun.store.freezing import drop_unused
from layerrun.store.store import Store

INDEX = "application/vnd.oci.image.index.v1+json"
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    printf("A=%s argc=%d uid=%d %s\n", getenv("A") ? getenv("A") : "-", argc, getuid(), argc > 1 ? argv[1] : "");
    for (int i = 1; i < argc; i++)
        printf("%s %s\n", argv[i], access(argv[i], F_OK) ? "no" : "yes");
    return 0;
}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with registry(str(tmp_path_factory.mktemp("registry"))) as found:
        yield found


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A static program, so that an image need not hold more."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "look.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-static", "-Os", "-o", folder / "look", folder / "look.c"], check=True)
    return folder / "look"


def make_tree(root, program):
    os.makedirs(f"{root}/usr/bin")
    os.makedirs(f"{root}/etc/many")
    subprocess.run(["cp", program, f"{root}/usr/bin/look"], check=True)
    for name in ("gone", "stays"):
        with open(f"{root}/etc/many/{name}", "w") as file:
            file.write(name * 100)
    with open(f"{root}/etc/\udcff odd\n", "w") as file:
        file.write("odd")
    os.link(f"{root}/etc/many/stays", f"{root}/etc/hard")
    # Equal content, and no hard link: the store shares them, the image must not.
    with open(f"{root}/etc/equal", "w") as file:
        file.write("stays" * 100)
    os.utime(f"{root}/etc/equal", ns=(0, os.stat(f"{root}/etc/hard").st_mtime_ns))
    os.symlink("many/stays", f"{root}/etc/link")
    os.setxattr(f"{root}/etc/equal", "user.mark", b"\0=\n")
    os.chmod(f"{root}/usr/bin/look", 0o755)
    return root


@pytest.fixture
def tree(folder, program):
    """A small root file system, with owners and a file capability."""
    root = make_tree(f"{folder}/tree", program)
    os.chown(f"{root}/etc/many", 33, 34)
    os.chown(f"{root}/etc/hard", 1000, 1000)
    os.chmod(f"{root}/etc/hard", 0o4711)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    # Not that of the program, which podman has no such right to start.
    os.setxattr(f"{root}/etc/equal", "security.capability", capability)
    return root


def shown(layerrun, name, **options):
    return json.loads(layerrun("base", "show", name, "--json", check=0, **options).out)


def pushed(layerrun, *words, **options):
    return json.loads(layerrun(*words, "--insecure", "--json", check=0, **options).out)


def facts(root):
    """What matters of a tree."""
    found = {}
    links = {}
    for at, folders, files in os.walk(os.fsencode(root)):
        for name in folders + files:
            path = os.path.join(at, name)
            status = os.lstat(path)
            short = os.path.relpath(path, os.fsencode(root))
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
                if key != "security.selinux"
            }
            content = b""
            if files and name in files:
                content = os.readlink(path) if os.path.islink(path) else open(path, "rb").read()  # noqa: SIM115
                links.setdefault(status.st_ino, []).append(short)
            found[short] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                content,
                sorted(xattrs.items()),
            )
    return found, sorted(sorted(names) for names in links.values())


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


def make_app(layerrun, base, user=None):
    """Make the app web, which takes things away, adds some, and gives a folder another content."""
    script = (
        "import os, shutil; os.remove('etc/many/gone'); os.mkdir('etc/new'); open('etc/new/f', 'w').write('f');"
        "shutil.rmtree('etc/other') if os.path.exists('etc/other') else None"
    )
    layerrun(
        "create", "web", "--base", base, "--env", "A=b", "--", "look", "/etc/many/gone", user=user, check=0
    )
    # Nothing in the base can do it: the upper is written as overlayfs would.
    store = layerrun.store(user)
    upper = next(f"{store}/apps/{app}/data/upper" for app in os.listdir(f"{store}/apps"))
    marks = [sys.executable, "-c", MARKS, upper, "trusted" if user is None else "user"]
    del script
    if user is None:
        subprocess.run(marks, check=True)
    else:
        user.run(["unshare", "-rm", *marks], check=True)
    layerrun("commit", "-y", "web", user=user, check=0)


MARKS = """
import os, stat, sys
upper, space = sys.argv[1:]
os.makedirs(upper + "/etc/many")
os.mknod(upper + "/etc/many/gone", stat.S_IFCHR, os.makedev(0, 0))
os.makedirs(upper + "/etc/new")
with open(upper + "/etc/new/f", "w") as file:
    file.write("new")
os.chmod(upper + "/etc/new/f", 0o6755)
"""


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
    third = pushed(layerrun, "pull", "third", f"oci://{host}/web:1")
    assert third["layers"] == back["layers"], "what is here is not read again"
    assert pushed(layerrun, "push", "third", f"oci://{host}/elsewhere")["sent"] == 0
    layerrun("reset", "-y", "web", check=0)
    assert layerrun("app", "web", check=0).out.splitlines()[1] == "/etc/many/gone no"


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


def test_a_pull_that_was_cut_goes_on_at_the_next_command(layerrun, host, tree):
    with open(f"{tree}/big", "wb") as file:
        file.write(os.urandom(1 << 20))
    layerrun("base", "import", "small", tree, check=0)
    layer = pushed(layerrun, "base", "push", "small", f"oci://{host}/cut")["layers"][0]
    blob = f"GET .*/blobs/{layer}"
    with proxy(host, Fault(blob, cut=300_000), Fault(blob, status=404, times=99)) as (other, seen):
        said = layerrun("base", "pull", "back", f"oci://{other}/cut", "--insecure")
        assert said.rc == 6, said.err
    assert os.stat(f"{layerrun.store()}/blobs/partial/{layer[7:]}").st_size == 300_000
    assert "cut short" in layerrun("gc", "--all", "--dry-run", check=0).out
    with proxy(host) as (other, seen):
        layerrun("base", "pull", "back", f"oci://{other}/cut", "--insecure", check=0)
        ranges = [headers.get("Range") for line, headers in seen if layer in line and line.startswith("GET")]
        assert ranges == ["bytes=300000-"]
    assert shown(layerrun, "back")["digest"] == shown(layerrun, "small")["digest"]


def test_what_is_corrupted_on_the_way_leaves_nothing(layerrun, host, tree):
    layerrun("base", "import", "small", tree, check=0)
    layer = pushed(layerrun, "base", "push", "small", f"oci://{host}/corrupt")["layers"][0]
    with proxy(host, Fault(f"GET .*/blobs/{layer}", corrupt=5000, times=9)) as (other, _):
        said = layerrun("base", "pull", "back", f"oci://{other}/corrupt", "--insecure")
        assert said.rc == 1
        assert "something else than" in said.err
    layerrun("base", "show", "back", check=6)
    assert os.listdir(f"{layerrun.store()}/staging") == []


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


def test_what_cannot_be_sent(layerrun, host):
    layerrun("create", "hosted", check=0)
    for words in (("push", "hosted"), ("base", "push", "host")):
        said = layerrun(*words, f"oci://{host}/x", "--insecure")
        assert said.rc == 2
        assert "cannot be sent" in said.err
    assert layerrun("push", "hosted", "registry.example.org/x").rc == 2
    assert layerrun("push", "nobody", f"oci://{host}/x", "--insecure").rc == 6


def test_who_cleans_up_takes_no_layer_of_a_pull(layerrun, host, tree, store_path, monkeypatch):
    layerrun("base", "import", "small", tree, check=0)
    make_app(layerrun, "small")
    pushed(layerrun, "push", "web", f"oci://{host}/cleaned")
    real, dropped = layers._privileged, []
    wish = Wish(access=Access(insecure=True))
    path = f"{store_path}-other"

    def meanwhile(store, layer):
        with Store.open(path) as other:
            dropped.append(drop_unused(other))
        return real(store, layer)

    monkeypatch.setattr(layers, "_privileged", meanwhile)
    with Store.open(path) as store:
        assert pull_app(store, "web", f"oci://{host}/cleaned", wish).app.config.layers
        assert dropped == [[]]
        monkeypatch.setattr(pull, "_create", lambda *_: 1 / 0)
    with Store.open(f"{path}-2") as store:
        path = f"{path}-2"
        with pytest.raises(ZeroDivisionError):
            pull_app(store, "web", f"oci://{host}/cleaned", wish)
        assert os.listdir(f"{path}/layers") == []


@pytest.mark.long
def test_killed_at_any_line_a_pull_leaves_nothing_half_done(layerrun, host, tree, store_path):
    layerrun("base", "import", "small", tree, check=0)
    make_app(layerrun, "small")
    pushed(layerrun, "push", "web", f"oci://{host}/killed")
    path = f"{store_path}-other"
    wish = Wish(access=Access(insecure=True))
    number = 1
    while True:
        with Store.open(path):
            pass

        def pull():
            with Store.open(path) as store:
                pull_app(store, "web", f"oci://{host}/killed", wish)

        if not die_at_line(number, pull):
            break
        with Store.open(path) as store:
            names = [app.name for app in store.apps()]
        assert names in ([], ["web"])
        number += 97
        subprocess.run(["rm", "-rf", path], check=True)
    check_whole(path)


def test_a_blob_that_is_damaged_here_is_read_again(layerrun, host, tree):
    with open(f"{tree}/big", "wb") as file:
        file.write(os.urandom(1 << 16))
    layerrun("base", "import", "small", tree, check=0)
    layer = pushed(layerrun, "base", "push", "small", f"oci://{host}/torn")["layers"][0]
    blobs = f"{layerrun.store()}/blobs"
    os.makedirs(f"{blobs}/partial")
    with open(f"{blobs}/{layer[7:]}", "wb") as file:
        file.write(bytes(1 << 10))  # as a power loss may leave it
    said = layerrun("base", "pull", "back", f"oci://{host}/torn", "--insecure")
    assert said.rc == 1, said.err
    layerrun("base", "pull", "back", f"oci://{host}/torn", "--insecure", check=0)
