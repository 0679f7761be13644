"""Shares, hidden paths, homes: what an app is given of the host, and what it is not."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest


@pytest.fixture
def shared(own_folder):
    """A function from who to a folder of theirs with a file in it."""

    def make(who):
        path = pathlib.Path(own_folder(who), "shared")
        path.mkdir()
        (path / "file").write_text("host\n")
        if who:
            for entry in (path, path / "file"):
                os.chown(entry, who.uid, who.gid)
        return path

    return make


def test_what_is_written_to_a_share_is_the_hosts(layerrun, inside, shared, who):
    path = shared(who)
    layerrun("create", "a", "--share", path, user=who, check=0)
    inside(f"echo inside >>{path}/file && echo new >{path}/new && mkdir {path}/deep", who)
    assert (path / "file").read_text() == "host\ninside\n"
    owner = who.uid if who else 0
    assert [entry.stat().st_uid for entry in (path / "file", path / "new", path / "deep")] == [owner] * 3
    layerrun("reset", "-y", "a", user=who, check=0)
    assert (path / "new").read_text() == "new\n"


def test_a_read_only_share(layerrun, inside, shared, who):
    path = shared(who)
    layerrun("create", "a", "--share", f"{path}:ro", user=who, check=0)
    done = inside(f"cat {path}/file; echo x >{path}/file; touch {path}/new; rm {path}/file", who, check=None)
    assert done.out == "host\n"
    assert done.err.count("Read-only file system") == 3
    assert sorted(os.listdir(path)) == ["file"]


@pytest.mark.parametrize(
    "target",
    [
        "/layerrun-test/deep/er",
        "/usr/layerrun-test",
        "/var/layerrun-test",
        "/tmp/x/y",
        "/run/x",
        "/dev/x",
        "{}/new/x",
    ],
)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_share_at_a_place_that_is_not_there(layerrun, inside, shared, either, target, *, kind):
    path = shared(either)
    home = either.home if either else "/root"
    target = target.format(home)
    source = path if kind == "folder" else path / "file"
    layerrun("create", "a", "--share", f"{source}:{target}", user=either, check=0)
    script = f"cat {target}/file" if kind == "folder" else f"cat {target}"
    assert inside(script, either).out == "host\n"
    assert inside(script, either).out == "host\n"
    assert layerrun("diff", "a", user=either, check=0).out == "", "a mount point is no change of the app's"
    assert not os.path.lexists(target)


def test_shares_within_shares(layerrun, inside, shared):
    path = shared(None)
    os.mkdir(f"{path}/inner")
    layerrun("create", "a", "--share", f"{path}:/mnt/s", "--share", f"{path}:/mnt/s/inner:ro", check=0)
    assert inside("cat /mnt/s/inner/file; touch /mnt/s/x; touch /mnt/s/inner/x", check=1).out == "host\n"
    assert (path / "x").exists()


def test_a_setuid_file_in_a_share_is_a_plain_one(layerrun, inside, shared):
    path = shared(None)
    subprocess.run(["cp", "/usr/bin/id", f"{path}/id"], check=True)
    os.chown(f"{path}/id", 1, 1)
    os.chmod(f"{path}/id", 0o6755)
    layerrun("create", "a", "--share", path, check=0)
    assert inside(f"{path}/id -u").out == "0\n"
    assert inside(f"grep ' {path} ' /proc/self/mountinfo").out.split()[5].startswith("rw,nosuid,nodev")


def test_a_share_that_is_gone(layerrun, shared):
    path = shared(None)
    layerrun("create", "a", "--share", path, check=0)
    path.rename(path.parent / "elsewhere")
    done = layerrun("app", "a", "--", "true")
    assert done.rc == 125
    assert done.err.startswith(
        f"layerrun: cannot start 'a': it is to have the share {path}: it does not exist\n"
    )
    # Who looks what is wrong sees it, and everything else.
    assert f"not there  share {path}: it does not exist\n" in layerrun("show", "a", check=0).out
    (lack,) = json.loads(layerrun("show", "a", "--json", check=0).out)["not_there"]
    assert (lack["kind"], lack["value"]) == ("share", str(path))


def test_a_share_that_goes_while_it_is_in_use(layerrun, shared):
    """What joins has what is mounted."""
    path = shared(None)
    layerrun("create", "a", "--share", path, check=0)
    layerrun("app", "a", "-d", "--", "sleep", "100", check=0)
    path.rename(path.parent / "elsewhere")
    assert "file" in layerrun("app", "a", "--", "ls", path, check=0).out
    layerrun("kill", "a", check=0)


def test_a_share_that_became_a_link(layerrun, inside, shared):
    """A share is fixed to a real path when it is made; a link put there later leads nowhere."""
    path = shared(None)
    layerrun("create", "a", "--share", f"{path}:/mnt/s", check=0)
    path.rename(path.parent / "elsewhere")
    path.symlink_to("/etc")
    done = layerrun("app", "a", "--", "ls", "/mnt/s")
    assert done.rc == 125
    assert "symbolic link now" in done.err
    assert "passwd" not in done.out
    assert "symbolic link now" in layerrun("show", "a", check=0).out


def test_hidden_paths(layerrun, inside, shared, who):
    path = shared(who)
    (path / "folder").mkdir()
    (path / "folder" / "secret").write_text("secret\n")
    (path / "secret").write_text("secret\n")
    os.chmod(path / "folder", 0o755)
    layerrun(
        "create", "a", "--hide", path / "folder", "--hide", path / "secret", "--hide", "/no/such", user=who, check=0
    )  # fmt: skip
    done = inside(f"ls -A {path}/folder; cat {path}/secret; ls {path}", who)
    assert done.out.split() == ["file", "folder", "secret"]
    for script in (
        f"touch {path}/folder/x",
        f"rm -r {path}/folder",
        f"umount {path}/secret",
        f"rm {path}/secret",
    ):
        assert inside(script, who, check=None).rc != 0
    assert inside(f"echo x >{path}/secret", who, check=None).out == ""
    assert (path / "secret").read_text() == "secret\n"


def test_the_store_is_hidden(layerrun, inside, who):
    store = layerrun.store(who)
    layerrun("create", "a", user=who, check=0)
    assert inside(f"ls -A {store}", who).out == ""
    assert inside(f"touch {store}/x", who, check=None).rc != 0
    assert os.path.exists(f"{store}/catalog.db")


def homes(who):
    return (who.home, who.uid) if who else ("/root", 0)


def test_a_home_under_the_layer(layerrun, inside, either):
    home, _ = homes(either)
    layerrun("create", "a", "--home", "overlay", user=either, check=0)
    inside("echo mine >~/layerrun-test-file", either)
    assert inside("cat ~/layerrun-test-file", either).out == "mine\n"
    assert not os.path.exists(f"{home}/layerrun-test-file")


def test_a_fresh_home(layerrun, inside, who):
    home, _ = homes(who)
    layerrun("create", "a", "--home", "fresh", user=who, check=0)
    assert (
        inside("ls -A ~; echo mine >~/file; pwd; stat -c %a:%u ~ >&2; id -u >&2", who, cwd="/usr").out
        == "/usr\n"
    )
    assert inside("cat ~/file; cd; pwd", who).out == f"mine\n{home}\n"
    assert not os.path.exists(f"{home}/file")
    layerrun("reset", "-y", "a", user=who, check=0)
    assert inside("ls -A ~", who).out == ""


def test_the_real_home(layerrun, inside, either):
    home, uid = homes(either)
    file = f"{home}/layerrun-test-{os.getpid()}"
    layerrun("create", "a", "--home", "share", user=either, check=0)
    try:
        inside(f"echo mine >{file}", either)
        assert pathlib.Path(file).read_text() == "mine\n"
        assert os.stat(file).st_uid == uid
    finally:
        pathlib.Path(file).unlink(missing_ok=True)


def test_no_network_but_the_loopback(layerrun, inside, who):
    layerrun("create", "a", "--network", "none", user=who, check=0)
    done = inside("tail -n +3 /proc/net/dev | cut -d: -f1; cat /proc/net/route | tail -n +2", who)
    assert done.out.split() == ["lo"]
    ping = (
        "import socket; s = socket.create_server(('127.0.0.1', 0)); "
        "socket.create_connection(s.getsockname()); print('up')"
    )
    assert layerrun("app", "a", "--", "python3", "-c", ping, user=who, check=0).out == "up\n"


def test_the_hosts_network(inside, either):
    seen = inside("tail -n +3 /proc/net/dev | cut -d: -f1", either).out.split()
    here = [line.split(":")[0].strip() for line in pathlib.Path("/proc/net/dev").read_text().splitlines()[2:]]
    assert seen == here
    if os.path.exists("/etc/resolv.conf"):
        assert inside("cat /etc/resolv.conf", either).out == pathlib.Path("/etc/resolv.conf").read_text()
