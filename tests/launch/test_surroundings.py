"""Starts where the surroundings do not help: in a container, without user namespaces, on a full disk."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pytest

pytestmark = pytest.mark.root

# A container as an image makes it: / is an overlay, with a /proc, a /dev and volumes of its own.
CONTAINER = """
mount -t tmpfs -o mode=755 x "$1"
mkdir "$1/upper" "$1/work" "$1/root" "$1/volume"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" x "$1/root"
mount --rbind /proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mount -t tmpfs -o mode=1777 x "$1/root/tmp"
mount -t tmpfs -o mode=755 x "$1/root/mnt"
mkdir -m 700 "$1/root/mnt/store"
chown "$2" "$1/root/mnt/store"
shift 2
cd "$OLD_PLACE/root"
mkdir -p mnt/old
pivot_root . mnt/old
umount -l /mnt/old
cd /
exec "$@"
"""


PRIVATE = ["unshare", "-m", "--propagation", "private", "sh", "-ec"]


@pytest.fixture
def container(layerrun, folder):
    """Run the command line in a container: ``container("list", user=..., store="/mnt/store")``."""
    os.mkdir(f"{folder}/place")

    def run(*commands, user=None, store="/mnt/store", check=None):
        words = [shlex.join(layerrun.argv(*command, user=user)) for command in commands]
        owner = f"{user.uid}:{user.gid}" if user else "0:0"
        done = subprocess.run(
            [*PRIVATE, CONTAINER, "sh", f"{folder}/place", owner, "sh", "-c", "; ".join(words)],
            env=layerrun.env(user, LAYERRUN_STORE=store, OLD_PLACE=f"{folder}/place"),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
        if check is not None:
            assert done.returncode == check, done
        return done

    return run


def test_in_a_container_as_root_it_says_why_not(container):
    done = container(("app", "a", "--", "true"), check=125)
    assert "container" in done.stderr, done.stderr
    assert "--no-userns" in done.stderr
    assert "base import" in done.stderr


def test_in_a_container_as_root_without_a_user_namespace(container):
    first = ("app", "a", "--no-userns", "--", "sh", "-c", "echo app >/etc/layerrun-test")
    done = container(
        first, ("app", "a", "--", "cat", "/etc/layerrun-test"), ("diff", "a"), ("reset", "-y", "a")
    )
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[0] == "app"
    letter, *_, path = done.stdout.splitlines()[1].split()
    assert (letter, path) == ("A", "/etc/layerrun-test")


def test_in_a_container_as_root_over_a_base(container, tree):
    made = tree()
    done = container(
        ("base", "import", "small", made),
        ("create", "a", "--base", "small"),
        ("app", "a", "--", "sh", "-c", "echo app >/etc/x; cat /etc/base /etc/x"),
    )
    assert done.returncode == 0, done
    assert done.stdout.endswith("base\napp\n")


def test_in_a_container_as_a_plain_user(container, any_user):
    done = container(
        ("app", "a", "--", "sh", "-c", "echo app >~/x"),
        ("app", "a", "--", "sh", "-c", "cat ~/x"),
        user=any_user,
    )
    assert done.returncode == 0, done
    assert done.stdout == "app\n"


@pytest.mark.parametrize("path", ["/var/tmp/layerrun-test-store", "/var/lib/layerrun-test/store"])
def test_a_store_on_the_containers_overlay_is_refused(container, path):
    done = container(("app", "a", "--", "true"), store=path)
    assert done.returncode == 125
    assert "is on overlay" in done.stderr
    assert "LAYERRUN_STORE" in done.stderr
    assert not os.path.exists(path)


FORBID = (
    'echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --inh-caps=-all --ambient-caps=-all -- "$@"'
)


def test_user_namespaces_forbidden_by_sysctl(layerrun, plain_user):
    """The limit is set in a child user namespace only: it counts there as it would on the machine."""
    layerrun("create", "a", user=plain_user, check=0)
    words = layerrun.argv("app", "a", "--", "true", user=plain_user)
    at = len(plain_user.prefix())
    done = plain_user.run(
        ["unshare", "--map-current-user", "--keep-caps", "sh", "-c", FORBID, "sh", *words[at:]],
        env=layerrun.env(plain_user),
    )
    assert done.returncode == 125, done
    assert "max_user_namespaces" in done.stderr, done.stderr
    layerrun("app", "a", "--", "true", user=plain_user, check=0)


def test_as_root_of_a_user_namespace(layerrun, plain_user):
    """Root of a rootless container has no ranges of ids to give away: that is said."""
    words = layerrun.argv("app", "a", "--", "true", user=plain_user)
    at = len(plain_user.prefix())
    done = plain_user.run(["unshare", "-r", "-m", *words[at:]], env=layerrun.env(plain_user))
    assert done.returncode in {0, 125}, done
    if done.returncode:
        assert "cannot start" in done.stderr, done.stderr
        assert "try:" in done.stderr, done.stderr


def test_user_namespaces_forbidden_for_root(layerrun):
    layerrun("create", "a", check=0)
    script = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
    done = subprocess.run(
        ["unshare", "-r", "-m", "sh", "-c", script, "sh", *layerrun.argv("app", "a", "--", "true")],
        env=layerrun.env(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 125, done
    assert "max_user_namespaces" in done.stderr, done.stderr


FILTER = r"""
import ctypes, errno, os, struct, sys
def op(code, jt, jf, k):
    return struct.pack("HBBI", code, jt, jf, k)
# As docker's: clone3 is unknown, clone and unshare with a new user namespace are forbidden.
rules = [op(0x20, 0, 0, 0), op(0x15, 0, 1, 435), op(6, 0, 0, 0x50000 | int(sys.argv[1])),
         op(0x15, 0, 3, 56), op(0x20, 0, 0, 16), op(0x45, 0, 1, 0x10000000), op(6, 0, 0, 0x50000 | errno.EPERM),
         op(6, 0, 0, 0x7FFF0000)]
program = b"".join(rules)
buffer = ctypes.create_string_buffer(program)
libc = ctypes.CDLL(None, use_errno=True)
fprog = struct.pack("HxxxxxxP", len(rules), ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.c_char_p(fprog), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("code", [1, 38])
def test_user_namespaces_forbidden_by_a_filter(layerrun, plain_user, code):
    """docker answers clone3 with ENOSYS, others with EPERM."""
    layerrun("create", "a", user=plain_user, check=0)
    words = layerrun.argv("app", "a", "--", "true", user=plain_user)
    at = len(plain_user.prefix())
    done = plain_user.run(
        ["/usr/bin/python3", "-c", FILTER, str(code), *words[at:]], env=layerrun.env(plain_user)
    )
    assert done.returncode == 125, done
    assert "seccomp" in done.stderr, done.stderr
    layerrun("app", "a", "--", "true", user=plain_user, check=0)


def test_no_overlay_file_system(layerrun):
    """A filter lets fsopen("overlay") fail as a kernel without it does; the doctor would say the same."""
    layerrun("create", "a", check=0)
    script = FILTER.replace("op(0x15, 0, 1, 435)", "op(0x15, 0, 1, 430)")
    done = subprocess.run(
        [sys.executable, "-c", script, "19", *layerrun.argv("app", "a", "--", "true")],
        env=layerrun.env(),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 125, done
    assert "overlay file system" in done.stderr
    layerrun("app", "a", "--", "true", check=0)


def test_a_full_disk(layerrun, mounts, folder, either):
    """A store on a tmpfs of forty megabytes: a clear error, nothing half done, and clearing data still works."""
    os.mkdir(f"{folder}/small")
    owner = f"uid={either.uid},gid={either.gid}" if either else "uid=0"
    mounts.sh(f'mount -t tmpfs -o mode=700,size=40m,{owner} x "$1/small"', folder)
    env = {"LAYERRUN_STORE": f"{folder}/small/store"}
    mounts.layerrun(layerrun, "app", "a", "--", "true", user=either, env=env, check=0)
    fill = "head -c 90000000 /dev/zero >~/layerrun-test-fill; echo status $?"
    done = mounts.layerrun(layerrun, "app", "a", "--", "sh", "-c", fill, user=either, env=env, check=0)
    assert "status 1" in done.stdout
    assert "No space left" in done.stderr
    for words in (("create", "b"), ("app", "c", "--", "true"), ("try", "--", "true")):
        done = mounts.layerrun(layerrun, *words, user=either, env=env)
        if done.returncode:
            assert done.returncode in {1, 125}, done
            assert "No space left" in done.stderr or "space" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
    mounts.layerrun(layerrun, "app", "a", "--", "true", user=either, env=env)
    mounts.layerrun(layerrun, "reset", "-y", "a", user=either, env=env, check=0)
    mounts.layerrun(
        layerrun, "app", "a", "--", "test", "!", "-e", "~/layerrun-test-fill", user=either, env=env, check=0
    )
    listed = mounts.layerrun(layerrun, "list", "--json", user=either, env=env, check=0)
    for app in json.loads(listed.stdout)["apps"]:
        mounts.layerrun(layerrun, "remove", "-y", app["name"], user=either, env=env, check=0)
    left = mounts.sh('ls -A "$1/small/store/apps" "$1/small/store/staging" "$1/small/store/trash"', folder)
    assert [line for line in left.stdout.decode().split() if not line.endswith(":")] == []


def test_an_upper_that_is_damaged(layerrun, either):
    """An upper that is gone is said, and not made anew over what was there."""
    layerrun("create", "a", user=either, check=0)
    app = json.loads(layerrun("show", "a", "--json", user=either).out)["id"]
    data = f"{layerrun.store(either)}/apps/{app}/data"
    os.rename(f"{data}/upper", f"{data}/lost")
    done = layerrun("app", "a", "--", "true", user=either, check=125)
    assert "doctor" in done.err or "reset" in done.err, done.err
    assert not os.path.exists(f"{data}/upper")
    layerrun("reset", "-y", "a", user=either, check=0)
    layerrun("app", "a", "--", "true", user=either, check=0)


def test_a_base_that_is_damaged(layerrun, tree):
    layerrun("base", "import", "small", tree(), check=0)
    layerrun("create", "a", "--base", "small", check=0)
    (base,) = os.listdir(f"{layerrun.store()}/bases")
    os.rename(f"{layerrun.store()}/bases/{base}/tree", f"{layerrun.store()}/bases/{base}/lost")
    done = layerrun("app", "a", "--", "true", check=125)
    assert "doctor" in done.err, done.err
