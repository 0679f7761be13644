"""Fixtures and probes for every test. See CONTRIBUTING.md for how they are used."""

from __future__ import annotations

import contextlib
import glob
import os
import subprocess
import sys
import tempfile
import types

import pytest
from support import debian, leaks, probes, reach, turns, users, variants, workers

from layerrun.native import cgroups


def pytest_configure(config):
    """Make the tests' surroundings the same everywhere."""
    if os.geteuid() == 0:
        leaks.become_reaper()
    workers.settle(config)
    kept = ("LAYERRUN_MUST_WORK", "LAYERRUN_FRONT_DOOR")
    for name in [n for n in os.environ if n.startswith(("LAYERRUN_", "XDG_")) and n not in kept]:
        del os.environ[name]
    # Trash is removed before a command returns: what is left afterwards is then the test's to judge.
    os.environ["LAYERRUN_SWEEP"] = "foreground"
    os.umask(0o022)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Let the tests of a file, or of a folder where they share what takes long to make, stay with one worker."""
    return workers.scheduler(config, log)


def pytest_collection_modifyitems(items):
    """Plain users run one of several variants; what takes long goes first, lest one worker ends before the other."""
    variants.thin(items)
    if workers.ID:
        items.sort(key=workers.comes_last)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    """Beside a test that needs the machine alone, and beside no other, nothing runs."""
    with turns.taken(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_report_header(config):
    """Say what this machine can do."""
    return probes.report()


def pytest_runtest_setup(item):
    """Skip or fail what needs an ability that is not here."""
    for mark in item.iter_markers():
        if mark.name in probes.PROBES:
            probes.need(mark.name)


def pytest_sessionfinish(session):
    """Remove the users that the tests made, and control groups of apps whose stores are gone."""
    users.release()
    mount = cgroups.mount_point() if os.geteuid() == 0 else None
    if mount is not None:
        with open("/proc/self/cgroup") as file:
            own = next((line.strip()[3:] for line in file if line.startswith("0::")), "")
        cgroups.sweep(mount + own.rstrip("/"), older=300.0)


@pytest.fixture(autouse=True)
def no_leaks(request):
    """Fail a test that leaves a mount or a process behind."""
    watch = leaks.Watch()
    yield
    found = watch.leaks()
    if found:
        pytest.fail("left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture
def plain_user():
    """A plain user with subordinate ids."""
    probes.need("rootless")
    probes.need("reachable")
    return users.ensure(users.PLAIN)


@pytest.fixture
def single_user():
    """A plain user with no id but their own."""
    probes.need("rootless")
    probes.need("reachable")
    return users.ensure(users.SINGLE)


@pytest.fixture(params=[users.PLAIN, users.SINGLE])
def any_user(request):
    """Each kind of plain user in turn."""
    probes.need("rootless")
    probes.need("reachable")
    return users.ensure(request.param)


@pytest.fixture
def folder():
    """A fresh folder on disk (not on a tmpfs, which may lack xattrs) that every user can pass through."""
    path = tempfile.mkdtemp(prefix=leaks.PREFIX, dir="/var/tmp")
    os.chmod(path, 0o755)
    yield path
    remove(path)


def remove(path):
    """Remove a tree however deep it is and whoever owns what in it."""
    subprocess.run(["chmod", "-R", "u+rwX", path], check=False, capture_output=True)
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture
def store_path(folder):
    """Where a store of root's will be: nothing is there yet."""
    return os.path.join(folder, "store")


@pytest.fixture
def user_folder():
    """A function from a user to a fresh folder of that user's on disk."""
    made, owners = [], set()

    def make(user):
        path = tempfile.mkdtemp(prefix=leaks.PREFIX, dir="/var/tmp")
        os.chmod(path, 0o755)
        os.chown(path, user.uid, user.gid)
        made.append(path)
        owners.add(user.uid)
        return path

    yield make
    for path in made:
        remove(path)
    # What commits of a store on another file system have kept aside for an undo that no longer comes.
    for path in glob.glob("/var/tmp/.layerrun-*"):
        if os.lstat(path).st_uid in owners:
            remove(path)


@pytest.fixture(scope="session")
def debian_tree():
    """A Debian root file system with working apt sources. Read only: import it, or copy it."""
    probes.need("debian")
    return debian.make()


@pytest.fixture
def layerrun(store_path, user_folder):
    """Run the command line: ``layerrun("list", user=plain_user, check=0)`` gives rc, out and err.

    Each user has a store of their own for the test. ``input`` is text for stdin (else /dev/null), ``env``
    adds to the environment (``None`` removes), ``check`` is the wanted exit status. ``layerrun.argv(...)``
    and ``layerrun.env(...)`` are for those who start it in a way of their own (a pty, a pipe, Popen).
    """
    stores = {}

    def store(user=None):
        if user is None:
            return store_path
        if user.name not in stores:
            stores[user.name] = os.path.join(user_folder(user), "store")
        return stores[user.name]

    def argv(*words, user=None):
        program = os.path.join(os.path.dirname(sys.executable), "layerrun")
        start = [program] if os.path.exists(program) else [sys.executable, "-m", "layerrun"]
        return (user.prefix() + reach.translate(start) if user else start) + [os.fspath(w) for w in words]

    def env(user=None, **more):
        values = user.environ() if user else dict(os.environ)
        values["LAYERRUN_STORE"] = store(user)
        values.update({k: v for k, v in more.items() if v is not None})
        return {k: v for k, v in values.items() if more.get(k, "") is not None}

    def run(*words, user=None, env=None, check=None, input=None, text=True, timeout=120, cwd=None, **options):  # noqa: A002
        options.update({"stdin": subprocess.DEVNULL} if input is None else {"input": input})
        if text:
            options.update(encoding="utf-8", errors="surrogateescape")
        done = subprocess.run(
            argv(*words, user=user),
            env=run.env(user, **(env or {})),
            cwd=cwd or (user.home if user else "/"),
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=options.pop("stderr", subprocess.PIPE),
            timeout=timeout,
            check=False,
            **options,
        )
        result = types.SimpleNamespace(rc=done.returncode, out=done.stdout, err=done.stderr, argv=words)
        if check is not None:
            said = f"{result.out}\n{result.err}"
            assert result.rc == check, f"layerrun {words}: status {result.rc}, not {check}\n{said}"
        return result

    run.store = store
    run.argv = argv
    run.env = env
    yield run
    for path in (store_path, *stores.values()):
        forget_groups(path)


def forget_groups(store):
    """Remove the control groups that are kept for the apps of a store, as removing the apps would."""
    for link in glob.glob(f"{store}/apps/*/cgroup"):
        with contextlib.suppress(OSError):
            os.rmdir(os.readlink(link))
