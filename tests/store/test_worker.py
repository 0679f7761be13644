"""Work done as root of a user namespace: what it may touch, what it reports, what it leaves."""

import os
import pwd
import sys
import textwrap
import time

import pytest

from layerrun import errors
from layerrun.native import subids, worker

HEAD = """
import os, sys
from layerrun.errors import *
from layerrun.native.worker import run_in_userns, start_in_userns
from layerrun.store.store import Store
from layerrun.model import *
path = sys.argv[1]
"""


def run(user, code, *args):
    done = user.run([sys.executable, "-c", HEAD + textwrap.dedent(code), *args])
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_removes_what_belongs_to_subordinate_ids(plain_user, user_folder):
    path = f"{user_folder(plain_user)}/store"
    out = run(
        plain_user,
        """
        with Store.open(path) as store:
            app = store.create_app("one", AppConfig(), ids=IdMode.SUBIDS)
            fd = store.open_app_dir(app, "data/upper")
            run_in_userns("os:mkdir", f"/proc/self/fd/{fd}/d", pass_fds=[fd])
            run_in_userns("os:mkdir", f"/proc/self/fd/{fd}/d/e", 0, pass_fds=[fd])
            run_in_userns("os:chown", f"/proc/self/fd/{fd}/d", 33, 34, pass_fds=[fd])
            status = os.stat("d", dir_fd=fd)
            print(status.st_uid, status.st_gid)
            store.reset_app("one")
            print(os.listdir(store.app_dir(app) + "/data/upper"), os.listdir(path + "/trash"))
        """,
        path,
    )
    uid, gid, _ = subids.subids(plain_user.name)
    assert out == f"{uid + 32} {gid + 33}\n[] []\n"


def test_crash_leftovers_of_subordinate_ids_are_swept(plain_user, user_folder):
    path = f"{user_folder(plain_user)}/store"
    out = run(
        plain_user,
        """
        with Store.open(path) as store:
            os.makedirs(path + "/staging/0123456789abcdef/data/upper")
            fd = os.open(path + "/staging/0123456789abcdef/data/upper", os.O_RDONLY)
            run_in_userns("os:mkdir", f"/proc/self/fd/{fd}/d", 0o700, pass_fds=[fd])
            run_in_userns("os:mkdir", f"/proc/self/fd/{fd}/d/e", 0o700, pass_fds=[fd])
            run_in_userns("os:chown", f"/proc/self/fd/{fd}/d", 1, 1, pass_fds=[fd])
        with Store.open(path) as store:
            print(os.listdir(path + "/staging"), os.listdir(path + "/trash"))
        """,
        path,
    )
    assert out == "[] []\n"


def test_one_id(any_user, user_folder):
    path = user_folder(any_user)
    out = run(
        any_user,
        """
        maps = dict(uid_map=[(0, os.geteuid(), 1)], gid_map=[(0, os.getegid(), 1)])
        print(run_in_userns("os:geteuid", **maps), run_in_userns("os:getegid", **maps))
        os.mkdir(path + "/locked", 0)
        print(run_in_userns("os:listdir", path + "/locked", **maps))
        """,
        path,
    )
    assert out == "0 0\n[]\n"


def test_errors_come_back(any_user, user_folder):
    out = run(
        any_user,
        r"""
        for function, *args in (
            ("os:listdir", path + "/gone\udcff"),
            ("layerrun.model:check_name", "No"),
            ("os:_exit", 3),
            ("os:abort",),
            ("os:no_such_function",),
        ):
            try:
                run_in_userns(function, *args)
            except LayerrunError as error:
                print(type(error).__name__, ascii(str(error)).replace(path, ""), getattr(error, "errno", ""))
        """,
        user_folder(any_user),
    )
    lines = out.splitlines()
    assert lines[0].startswith("SystemError")
    assert lines[0].endswith(" 2")
    assert lines[1].startswith("UsageError \"bad name 'No'")
    assert [line.split()[0] for line in lines[2:]] == ["StoreError"] * 3
    assert "died with status 3" in lines[2]


def test_odd_environment(plain_user, user_folder):
    """Nothing of the caller's environment decides what the worker runs, and no descriptor leaks in."""
    folder = user_folder(plain_user)
    with open(f"{folder}/json.py", "w") as file:
        file.write("raise SystemExit('hijacked')\n")
    done = plain_user.run(
        [
            sys.executable,
            "-c",
            HEAD + "fd = os.open('/', os.O_RDONLY); os.set_inheritable(fd, True)\n"
            "os.environ['PYTHONPATH'] = path; os.environ['PYTHONSTARTUP'] = path + '/json.py'; os.chdir(path)\n"
            "print(run_in_userns('os:getcwd'), len(run_in_userns('os:listdir', '/proc/self/fd')))",
            folder,
        ]
    )
    assert (done.stdout, done.stderr) == ("/ 5\n", "")


def test_in_the_background(plain_user, user_folder):
    folder = user_folder(plain_user)
    run(plain_user, "start_in_userns('os:mkdir', path + '/made')", folder)
    deadline = time.monotonic() + 30
    while not os.path.exists(f"{folder}/made") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert os.stat(f"{folder}/made").st_uid == plain_user.uid


def test_subids_are_found(folder, monkeypatch):
    files = {
        "/etc/subuid": "other:1:5\nname:100:10\n# x\nname:bad:1\n1234:200:65536\nname:300:7\n",
        "/etc/subgid": "name:9000:1000\n",
    }
    real = open

    def fake(path, *args, **options):
        if path in files:
            path_here = folder + "/" + os.path.basename(path)
            with real(path_here, "w") as file:
                file.write(files[path])
            path = path_here
        return real(path, *args, **options)

    monkeypatch.setattr("builtins.open", fake)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(pwd, "getpwnam", lambda _: pwd.struct_passwd(("name", "x", 1234, 1, "", "/", "")))
    assert subids.subids("name") == (200, 9000, 1000)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert subids.subids("name") is None


def test_nobody_to_map_for(single_user):
    assert subids.subids(single_user.name) is None


def test_user_namespaces_forbidden(plain_user, user_folder):
    out = run(
        plain_user,
        """
        import layerrun.native.worker as worker
        # The limit is of the namespace's own: make one in which no further one may be made.
        def inner():
            open("/proc/sys/user/max_user_namespaces", "w").write("0")
            try:
                run_in_userns("os:geteuid", uid_map=[(0, 0, 1)], gid_map=[(0, 0, 1)])
            except SystemError as error:
                return [str(error), error.hint]
        worker.inner = inner
        worker._enter([(0, os.geteuid(), 1)], [(0, os.getegid(), 1)])
        print("; ".join(inner()))
        """,
        user_folder(plain_user),
    )
    assert "cannot make a user namespace" in out
    assert "max_user_namespaces" in out


def test_error_round_trip():
    for error in (
        errors.SystemError("m", errno=2, path="/p\udcff", hint="h"),
        errors.DamagedError("m", hint="h"),
        errors.LayerrunError("m"),
    ):
        again = worker._unpack(worker._pack(error))
        assert type(again) is type(error)
        assert (str(again), again.hint) == (str(error), error.hint)


@pytest.mark.parametrize("name", ["run_in_userns", "start_in_userns"])
def test_public(name):
    assert name in worker.__all__
