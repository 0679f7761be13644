"""A control group for each app that runs, where there is one to be had; without one everything works as well."""

from __future__ import annotations

import errno
import os
import pathlib
import signal
import subprocess
import time

import pytest
from support import probes, users
from support.sandbox import wait_for

from layerrun.native import cgroups


def remove_group(path):
    """Remove a group once what ran in it has ended: that goes on for a moment after the command's return."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return path.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


@pytest.fixture
def top():
    """A group of the test's own in the hierarchy of version 2, removed with all in it."""
    probes.need("root")
    probes.need("cgroup2")
    path = pathlib.Path(cgroups.mount_point(), f"layerrun-test-{os.getpid()}")
    path.mkdir()
    yield path
    for folder in [*sorted((each for each in path.rglob("*") if each.is_dir()), reverse=True), path]:
        remove_group(folder)


@pytest.fixture(params=["root", users.PLAIN])
def owner(request, top):
    """Root (``None``), or a plain user to whom the group is delegated, as systemd does with a user's session."""
    if request.param == "root":
        probes.need("idmap")
        return None
    probes.need("rootless")
    probes.need("reachable")
    who = users.ensure(request.param)
    for path in (top, top / "cgroup.procs", top / "cgroup.subtree_control"):
        os.chown(path, who.uid, who.gid)
    return who


def within(top):
    """Return words that run what follows in a group."""
    return ["sh", "-c", 'echo $$ >"$0/cgroup.procs"; exec "$@"', str(top)]


def group_of(pid):
    """Return the path of a process's group of version 2."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return pathlib.Path(cgroups.mount_point() + line[3:].rstrip("/"))
    return None


def members(group):
    return {int(pid) for pid in (group / "cgroup.procs").read_text().split()}


def test_everything_inside_is_in_it(apps, layerrun, owner, top):
    first = apps.first(user=owner, before=within(top))
    guest = apps.ready("sh", "-c", "echo ready; setsid sleep 1000; :", user=owner)
    init = apps.init(owner)
    group = group_of(init)
    assert group.parent == top
    assert group.name.startswith("layerrun-")
    inside = members(group)
    assert init in inside
    # The processes, pid 1, and what stands beside the guest's command.
    wait_for(lambda: len(apps.ps(owner)["a"]["processes"]) == 3)
    assert {process["pid"] for process in apps.ps(owner)["a"]["processes"]} < members(group)
    assert first.pid not in inside
    assert guest.pid not in inside
    assert first.pid in members(top)
    layerrun("kill", "a", user=owner, check=0)
    assert [process.wait(60) for process in (first, guest)] == [137, 137]
    assert not group.exists()


def test_the_plan_names_it(layerrun, top):
    layerrun("create", "a", check=0)
    (app,) = pathlib.Path(layerrun.store(), "apps").iterdir()
    assert (
        f"cgroup {cgroups.mount_point()} layerrun-{app.name}"
        in layerrun("plan", "a", check=0).out.splitlines()
    )
    # A throwaway ends with its command: there is nothing to hold together.
    assert layerrun("try", "-y", "--", "true", check=0).rc == 0
    assert not [each for each in top.rglob("layerrun-*") if each.is_dir()]


def test_it_is_kept_and_goes_with_the_app(apps, layerrun, owner, top):
    for _ in range(2):
        run = apps.popen("true", user=owner, before=within(top))
        assert run.wait(60) == 0, run.stderr.read()
    (group,) = (each for each in top.iterdir() if each.is_dir())
    layerrun("reset", "-y", "a", user=owner, check=0)
    assert apps.popen("true", user=owner, before=within(top)).wait(60) == 0
    assert [each for each in top.iterdir() if each.is_dir()] == [group]
    layerrun("remove", "-y", "a", user=owner, check=0)
    assert not group.exists()


def test_one_at_most(apps, layerrun, top):
    """An app that is started from elsewhere next leaves no second one behind."""
    for name in ("one", "two"):
        (top / name).mkdir()
        assert apps.popen("true", before=within(top / name)).wait(60) == 0
    found = [each for each in top.rglob("layerrun-*") if each.is_dir()]
    assert [each.parent for each in found] == [top / "two"]
    layerrun("remove", "-y", "a", check=0)


def test_a_sweep_takes_what_is_empty_and_old(apps, layerrun, top):
    """A store that was deleted leaves groups behind; what runs is left alone, and so is what is not ours."""
    apps.first(before=within(top))
    group = group_of(apps.init())
    for name in ("layerrun-gone", "other"):
        (top / name).mkdir()
    cgroups.sweep(str(top), older=3600)
    assert (top / "layerrun-gone").exists()
    cgroups.sweep(str(top), older=-1)
    assert sorted(each.name for each in top.iterdir() if each.is_dir()) == sorted([group.name, "other"])
    assert apps.run("echo in").out == "in\n"
    layerrun("kill", "a", check=0)


def test_kill_takes_what_is_frozen(apps, layerrun, top):
    """And stop: what is frozen cannot listen."""
    for words in (("kill",), ("stop", "--timeout", "0.2")):
        first = apps.first(before=within(top))
        group = group_of(apps.init())
        assert group.parent == top
        (group / "cgroup.freeze").write_text("1")
        wait_for(lambda group=group: "frozen 1" in (group / "cgroup.events").read_text())
        layerrun(*words, "a", check=0, timeout=60)
        assert first.wait(60) == 137
        assert not group.exists()


@pytest.mark.parametrize("killed", ["group", "parent"])
def test_a_group_that_was_killed_before(apps, layerrun, top, killed):
    """Linux 6.18 kills what is cloned into a group that has seen another number of kills than the cloner's."""
    layerrun("create", "a", check=0)
    if killed == "group":
        assert apps.popen("true", before=within(top)).wait(60) == 0
        (group,) = (each for each in top.iterdir() if each.is_dir())
        (group / "cgroup.kill").write_text("1")
    else:
        (top / "cgroup.kill").write_text("1")
    for _ in range(5):
        run = apps.popen("echo", "in", before=within(top))
        assert run.communicate(timeout=60) == ("in\n", "")
        assert run.returncode == 0


def test_where_there_is_none_to_be_had(apps, layerrun, top):
    """Not delegated: the plain user's app runs in the caller's group, and is ended all the same."""
    probes.need("rootless")
    probes.need("reachable")
    who = users.ensure(users.PLAIN)
    first = apps.first(user=who, before=within(top))
    assert group_of(apps.init(who)) == top
    layerrun("kill", "a", user=who, check=0)
    assert first.wait(60) == 137


def test_a_group_that_takes_nobody(apps, layerrun, top):
    """No start fails for want of a group: one that holds no processes of its own (cgroups(7), threaded)."""
    assert apps.popen("true", before=within(top)).wait(60) == 0
    (group,) = (each for each in top.iterdir() if each.is_dir())
    remove_group(group)
    group.mkdir()
    (group / "inner").mkdir()
    (group / "inner/cgroup.type").write_text("threaded")
    (group / "inner").rmdir()
    group.chmod(0o000)
    run = apps.popen("echo", "in", before=within(top))
    assert run.communicate(timeout=60)[0] == "in\n"
    layerrun("remove", "-y", "a", check=0)


def test_a_link_that_leads_elsewhere(apps, layerrun, top):
    """Whatever lies in the app's folder, no other group is killed or removed."""
    other = top / "other"
    other.mkdir()
    bystander = subprocess.Popen([*within(other), "sleep", "1000"], stdin=subprocess.DEVNULL)
    try:
        first = apps.first(before=within(top))
        (app,) = pathlib.Path(layerrun.store(), "apps").iterdir()
        for target in (other, other / ".." / "other", "/nowhere", top / f"layerrun-{app.name}x"):
            (app / "cgroup").unlink(missing_ok=True)
            (app / "cgroup").symlink_to(target)
            assert len(apps.ps()["a"]["processes"]) == 1
        layerrun("kill", "a", check=0)
        assert first.wait(60) == 137
        layerrun("remove", "-y", "a", check=0)
        assert bystander.poll() is None
        assert other.exists()
    finally:
        bystander.send_signal(signal.SIGKILL)
        bystander.wait()
