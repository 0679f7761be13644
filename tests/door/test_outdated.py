"""Every event that outdates a stored plan leads to Python, to the right result, and to a new plan."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess

import attrs
import pytest

from layerrun.store.store import Store

TRUE = ("app", "a", "--", "true")


def write(door, text, path="/etc/layerrun-test", **options):
    door.warm("app", "a", "--", "sh", "-c", f"echo {text} >{path}", check=0, **options)


def read(door, path="/etc/layerrun-test", **options):
    return door("app", "a", "--", "cat", path, **options)


def test_rename(layerrun, door, who):
    write(door, "x", user=who, path="~/layerrun-test")
    layerrun("rename", "a", "b", user=who, check=0)
    assert door("app", "a", user=who, check=6).python
    done = door("app", "b", "--", "sh", "-c", "echo $LAYERRUN_APP; cat ~/layerrun-test", user=who, check=0)
    assert (done.python, done.out) == (True, "b\nx\n")
    # The old name may become another's, and is then that one's.
    done = door(
        "app", "a", "--", "sh", "-c", "test ! -e ~/layerrun-test && echo $LAYERRUN_APP", user=who, check=0
    )
    assert (done.python, done.out) == (True, "a\n")
    assert door.warm("app", "b", "--", "sh", "-c", "cat ~/layerrun-test", user=who, check=0).out == "x\n"


def test_swapped_names(layerrun, door):
    for name in "ab":
        door.warm("app", name, "--", "sh", "-c", f"echo {name} >/etc/layerrun-test", check=0)
    for old, new in ("ac", "ba", "cb"):
        layerrun("rename", old, new, check=0)
    for name, other in ("ab", "ba"):
        done = door("app", name, "--", "cat", "/etc/layerrun-test", check=0)
        assert (done.python, done.out) == (True, f"{other}\n")
        assert door.warm("app", name, "--", "cat", "/etc/layerrun-test").out == f"{other}\n"


def test_reset(layerrun, door, who):
    write(door, "x", user=who, path="~/layerrun-test")
    layerrun("reset", "-y", "a", user=who, check=0)
    done = door("app", "a", "--", "sh", "-c", "test ! -e ~/layerrun-test", user=who, check=0)
    assert done.python
    door.warm(*TRUE, user=who, check=0)


def test_removed_and_made_again(layerrun, door, who):
    write(door, "x", user=who, path="~/layerrun-test")
    layerrun("remove", "-y", "a", user=who, check=0)
    assert door("app", "a", user=who, check=6).python
    layerrun("create", "a", "--env", "NEW=1", user=who, check=0)
    done = door("app", "a", "--", "sh", "-c", "test ! -e ~/layerrun-test && echo $NEW", user=who, check=0)
    assert (done.python, done.out) == (True, "1\n")
    assert door.warm("app", "a", "--", "sh", "-c", "echo $NEW", user=who, check=0).out == "1\n"


def test_kept_data_and_made_again(layerrun, door):
    write(door, "x")
    layerrun("remove", "--keep-data", "a", check=0)
    done = door("app", "a", "--", "test", "!", "-e", "/etc/layerrun-test", check=0)
    assert done.python


def test_another_configuration(door, store_path):
    door.warm(*TRUE, check=0)
    with Store.open(store_path) as store:
        config = attrs.evolve(store.app("a").config, env=("NEW=1",), command=("sh", "-c", "echo $NEW"))
        store.update_app("a", config)
    done = door("app", "a", check=0)
    assert (done.python, done.out) == (True, "1\n")
    assert door.warm("app", "a", check=0).out == "1\n"


@pytest.mark.parametrize(
    "words", [("reset", "-y", "a", "--path"), ("clear-cache", "-y", "a")], ids=["path", "cache"]
)
def test_roots_of_overlays_that_are_taken_back(layerrun, door, mounts, folder, words):
    """What layerrun itself made in the upper goes as well; only Python makes it again."""
    top = os.path.join(folder, "top")
    os.makedirs(f"{top}/deep/er")
    inside = f"{top}/deep/er/file"
    mounts.sh('mount -t tmpfs tmpfs "$1"; echo base >"$1/file"', f"{top}/deep/er")
    layerrun("create", "a", "--cache", top, check=0)
    options = {"prefix": mounts.prefix()}
    door.warm("app", "a", "--", "sh", "-c", f"echo x >{inside}", check=0, **options)
    mounts.layerrun(layerrun, *words, *([f"{top}/**"] if words[0] == "reset" else []), check=0)
    done = read(door, inside, check=0, **options)
    assert (done.python, done.out) == (True, "base\n")
    door.warm("app", "a", "--", "sh", "-c", f"echo y >{inside}", check=0, **options)
    assert door.warm("app", "a", "--", "cat", inside, check=0, **options).out == "y\n"


def test_a_new_mount_on_the_host_and_one_that_went(door, mounts, folder, who):
    os.chmod(folder, 0o755)
    place = os.path.join(folder, "place")
    os.mkdir(place)
    pathlib.Path(place, "file").write_text("beneath\n")
    options = {"prefix": mounts.prefix(), "user": who}
    door.warm(*TRUE, check=0, **options)
    mounts.sh('mount -t tmpfs tmpfs "$1"; echo mounted >"$1/file"', place)
    for wanted in ("mounted", "beneath"):
        done = read(door, f"{place}/file", check=0, **options)
        assert (done.python, done.out) == (True, f"{wanted}\n")
        assert door.warm("app", "a", "--", "cat", f"{place}/file", check=0, **options).out == f"{wanted}\n"
        if wanted == "mounted":
            mounts.sh('umount "$1"', place)


def test_another_resolv_conf(door, mounts, folder):
    other = pathlib.Path(folder, "resolv.conf")
    other.write_text("nameserver 192.0.2.1\n")
    options = {"prefix": mounts.prefix()}
    door.warm(*TRUE, check=0, **options)
    mounts.sh('mount --bind "$1" /etc/resolv.conf', other)
    done = read(door, "/etc/resolv.conf", check=0, **options)
    assert (done.python, done.out) == (True, other.read_text())


def test_a_resolv_conf_that_leads_somewhere_only_later(door, mounts, folder, small):
    """As at boot: /etc/resolv.conf is a link into /run from the start, and its target comes later."""
    mounts.sh(
        'mkdir "$1/u" "$1/w"; mount -t overlay -o "lowerdir=/etc,upperdir=$1/u,workdir=$1/w" overlay /etc; '
        "mount -t tmpfs tmpfs /run; ln -sf /run/resolve/stub /etc/resolv.conf",
        folder,
    )
    small()
    options = {"prefix": mounts.prefix()}
    look = ("app", "small", "--", "cat", "/etc/resolv.conf")
    door.warm(*look, check=1, **options)
    mounts.sh("mkdir /run/resolve; echo nameserver 192.0.2.1 >/run/resolve/stub")
    done = door(*look, check=0, **options)
    assert (done.python, done.out) == (True, "nameserver 192.0.2.1\n")
    # Its content is the machine's and may change from start to start; that asks nobody.
    mounts.sh("echo nameserver 192.0.2.2 >/run/resolve/new; mv /run/resolve/new /run/resolve/stub")
    done = door.warm(*look, check=0, **options)
    assert done.out == "nameserver 192.0.2.2\n"


def test_a_folder_that_was_closed(door, mounts, folder, plain_user):
    """Without root the host is taken apart around its mounts, and what is closed to the caller is hidden."""
    top = os.path.join(folder, "top")
    os.makedirs(f"{top}/sub")
    os.makedirs(f"{top}/closed")
    pathlib.Path(top, "closed", "file").write_text("x\n")
    os.chmod(f"{top}/closed", 0o700)
    mounts.sh('mount -t tmpfs tmpfs "$1"', f"{top}/sub")
    options = {"prefix": mounts.prefix(), "user": plain_user}
    door.warm("app", "a", "--", "cat", f"{top}/closed/file", check=1, **options)
    os.chmod(f"{top}/closed", 0o755)
    done = read(door, f"{top}/closed/file", check=0, **options)
    assert (done.python, done.out) == (True, "x\n")


# The folder lies in /var/tmp, which has to be taken apart for it, and where others come and go.
@pytest.mark.alone
def test_a_new_entry_beside_mounts(door, mounts, folder, plain_user):
    top = os.path.join(folder, "top")
    os.makedirs(f"{top}/sub")
    mounts.sh('mount -t tmpfs tmpfs "$1"', f"{top}/sub")
    options = {"prefix": mounts.prefix(), "user": plain_user}
    door.warm(*TRUE, check=0, **options)
    pathlib.Path(top, "new").write_text("x\n")
    done = read(door, f"{top}/new", check=0, **options)
    assert (done.python, done.out) == (True, "x\n")


@pytest.mark.alone
def test_only_times_beside_mounts(door, mounts, folder, plain_user):
    """In a home that is taken apart files are replaced all day: as long as names and types stay, the plan holds."""
    top = os.path.join(folder, "top")
    os.makedirs(f"{top}/sub")
    os.symlink("here", f"{top}/link")
    pathlib.Path(top, "file").write_text("old\n")
    mounts.sh('mount -t tmpfs tmpfs "$1"', f"{top}/sub")
    options = {"prefix": mounts.prefix(), "user": plain_user}
    door.warm(*TRUE, check=0, **options)
    pathlib.Path(top, ".new").write_text("new\n")
    os.rename(f"{top}/.new", f"{top}/file")
    done = read(door, f"{top}/file", check=0, **options)
    assert (done.python, done.out) == (False, "new\n")
    # A type, and where a link leads, are decisions of the plan.
    os.unlink(f"{top}/link")
    os.symlink("there", f"{top}/link")
    done = door("app", "a", "--", "readlink", f"{top}/link", check=0, **options)
    assert (done.python, done.out) == (True, "there\n")
    os.unlink(f"{top}/file")
    os.mkdir(f"{top}/file")
    done = door("app", "a", "--", "test", "-d", f"{top}/file", check=0, **options)
    assert done.python


def test_a_copied_store(door, store_path, folder):
    write(door, "original")
    copy = os.path.join(folder, "copy")
    subprocess.run(["cp", "-a", store_path, copy], check=True)
    env = {"LAYERRUN_STORE": copy}
    script = "cat /etc/layerrun-test; echo copy >/etc/layerrun-test"
    done = door("app", "a", "--", "sh", "-c", script, env=env, check=0)
    assert (done.python, done.out) == (True, "original\n")
    assert door.warm("app", "a", "--", "cat", "/etc/layerrun-test", env=env).out == "copy\n"
    assert door.warm("app", "a", "--", "cat", "/etc/layerrun-test").out == "original\n"


def test_a_moved_store_with_another_in_its_place(door, store_path, folder):
    """The folder's number stays, and the paths in the plan now lead into the other."""
    write(door, "first")
    moved = os.path.join(folder, "moved")
    os.rename(store_path, moved)
    subprocess.run(["cp", "-a", moved, store_path], check=True)
    env = {"LAYERRUN_STORE": moved}
    script = "cat /etc/layerrun-test; echo moved >/etc/layerrun-test"
    done = door("app", "a", "--", "sh", "-c", script, env=env, check=0)
    assert (done.python, done.out) == (True, "first\n")
    assert read(door, check=0).out == "first\n"
    assert door.warm("app", "a", "--", "cat", "/etc/layerrun-test", env=env).out == "moved\n"


def test_a_store_reached_by_another_name(door, store_path, folder):
    write(door, "x")
    link = os.path.join(folder, "link")
    os.symlink(store_path, link)
    done = door.warm("app", "a", "--", "cat", "/etc/layerrun-test", env={"LAYERRUN_STORE": link}, check=0)
    assert done.out == "x\n"


def test_a_store_that_is_open_to_others(door, store_path):
    door.warm(*TRUE, check=0)
    os.chmod(store_path, 0o755)
    done = door(*TRUE, check=125)
    assert done.python
    assert "chmod" in done.err


def test_another_group(door, plain_user):
    """Groups decide what of the host is closed."""
    door.warm(*TRUE, user=plain_user, check=0)
    become = ["setpriv", "--reuid", plain_user.name, "--regid", str(plain_user.gid), "--groups", "65534"]
    done = door("app", "a", "--", "id", "-u", prefix=become, env=door.layerrun.env(plain_user), check=0)
    assert (done.python, done.out) == (True, f"{plain_user.uid}\n")


def test_another_home_for_an_app_that_shares_it(layerrun, door, folder):
    homes = [os.path.join(folder, name) for name in ("one", "two")]
    for home in homes:
        os.mkdir(home)
        pathlib.Path(home, "file").write_text(home)
    layerrun("create", "a", "--home", "share", check=0)
    for home in homes:
        done = door("app", "a", "--", "sh", "-c", "cat ~/file", env={"HOME": home}, check=0)
        assert (done.python, done.out) == (True, home)
        done = door.warm("app", "a", "--", "sh", "-c", "cat ~/file", env={"HOME": home}, check=0)
        assert done.out == home


def test_a_share_that_is_gone_or_a_link_now(layerrun, door, folder):
    shared, secret = os.path.join(folder, "shared"), os.path.join(folder, "secret")
    os.mkdir(shared)
    os.mkdir(secret)
    layerrun("create", "a", "--share", f"{shared}:/srv/shared", check=0)
    door.warm("app", "a", "--", "test", "-d", "/srv/shared", check=0)
    os.rename(shared, shared + "-away")
    assert door(*TRUE, check=125).python
    os.symlink(secret, shared)
    done = door(*TRUE, check=125)
    assert done.python
    assert "symbolic link" in done.err
    os.unlink(shared)
    os.rename(shared + "-away", shared)
    door.warm("app", "a", "--", "test", "-d", "/srv/shared", check=0)


def test_skeletons_that_are_gone(layerrun, door, store_path, small):
    small(None, "--share", "/usr/share:/srv/deep/shared")
    look = ("app", "small", "--", "stat", "/srv/deep/shared/doc")
    door.warm(*look, check=0)
    shutil.rmtree(f"{store_path}/skeletons")
    os.mkdir(f"{store_path}/skeletons", 0o700)
    assert door(*look, check=0).python
    door.warm(*look, check=0)


def test_layerrun_itself_is_another(door, folder, store_path):
    """The plan of another layerrun (an update) does not hold."""
    door.warm(*TRUE, check=0)
    words = pathlib.Path(store_path, "plans", "a").read_bytes().split(b"\0")
    files = [words[i + 1].decode() for i, word in enumerate(words) if word == b"file"]
    assert any(path.endswith("/bin/layerrun") for path in files)
    assert any(path.endswith("/runtime/compile.py") for path in files)
