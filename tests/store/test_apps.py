"""Apps in the store: made, found, renamed, configured, reset, removed."""

import os
import stat

import pytest

from layerrun.errors import BusyError, DamagedError, ExistsError, NotFoundError, StoreError, UsageError
from layerrun.model import App, AppConfig, AppKind, BaseKind, Home, IdMode, Share
from layerrun.policy import Policy
from layerrun.store.store import Store
from layerrun.store.uids import COUNT, FIRST, LIMIT, lowest_free, taken_elsewhere


@pytest.fixture
def store(store_path):
    with Store.open(store_path) as opened:
        yield opened


def write(store, app, path, text="x"):
    path = f"{store.app_dir(app)}/data/upper/{path}"
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file:
        file.write(text)


def test_everything_is_kept(store, store_path):
    config = AppConfig(
        shares=(Share("/a:b", "/c", readonly=True),),
        hides=("/h",),
        home=Home.FRESH,
        caches=("/var/x",),
        command=("a", "", "\n", "é", os.fsdecode(b"\xff")),
        env=("A=b",),
        policy=Policy(preset="strict", network="none", limits=["pids=7"], deny=["cap:chown"]),
    )
    made = store.create_app("one", config, ids=IdMode.NONE)
    assert isinstance(made, App)
    assert made.generation == 1
    assert made.uid_start is None
    with Store.open(store_path) as again:
        assert again.app("one") == made
        assert again.apps() == [made]
    assert set(os.listdir(f"{store.app_dir(made)}/data")) == {"upper", "work", "roots", "home"}


def test_upper_looks_like_the_base(store):
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    upper, root = os.stat(f"{store.app_dir(app)}/data/upper"), os.stat("/")
    assert (upper.st_mode, upper.st_uid, upper.st_gid) == (root.st_mode, root.st_uid, root.st_gid)


@pytest.mark.parametrize(
    "name", ["", "A", "a/b", "../x", ".", "-a", ".a", "a" * 64, "a\n", "a\0", "é", "a b"]
)
def test_bad_names(store, name):
    with pytest.raises(UsageError):
        store.create_app(name, AppConfig(), ids=IdMode.NONE)
    assert os.listdir(f"{store.path}/apps") == os.listdir(f"{store.path}/staging") == []


def test_name_is_taken(store):
    store.create_app("one", AppConfig(), ids=IdMode.NONE)
    for kind in AppKind:
        with pytest.raises(ExistsError):
            store.create_app("one", AppConfig(), kind=kind, ids=IdMode.NONE)
    store.create_app("two", AppConfig(), ids=IdMode.NONE)
    with pytest.raises(ExistsError):
        store.rename_app("one", "two")
    assert [app.name for app in store.apps()] == ["one", "two"]
    assert len(os.listdir(f"{store.path}/apps")) == 2


def test_base_is_missing(store):
    with pytest.raises(NotFoundError, match="no base 'hosst'") as caught:
        store.create_app("one", AppConfig(base="hosst"), ids=IdMode.NONE)
    assert caught.value.hint == "did you mean host?"
    assert os.listdir(f"{store.path}/apps") == []


def test_nearest_names(store):
    with pytest.raises(NotFoundError) as caught:
        store.app("firefox")
    assert caught.value.hint == "there is none yet"
    for name in ("firefox", "postgres"):
        store.create_app(name, AppConfig(), ids=IdMode.NONE)
    with pytest.raises(NotFoundError) as caught:
        store.app("fierfox")
    assert caught.value.hint == "did you mean firefox?"
    with pytest.raises(NotFoundError) as caught:
        store.app("zzz")
    assert caught.value.hint == "there is firefox, postgres"
    with pytest.raises(NotFoundError):
        store.app("firefox", AppKind.THROWAWAY)


def test_throwaways_get_names(store):
    made = [
        store.create_app(None, AppConfig(), kind=AppKind.THROWAWAY, ids=IdMode.NONE).name for _ in range(20)
    ]
    assert len(set(made)) == 20
    assert all(name.startswith("try-") for name in made)
    assert sorted(made) == [app.name for app in store.apps(AppKind.THROWAWAY)]
    assert store.apps(AppKind.APP) == []


def test_host_base(store):
    host = store.base("host")
    assert store.bases() == [host]
    assert (host.kind, host.digest, host.source) == (BaseKind.HOST, None, "/")


def test_rename(store):
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    write(store, app, "f")
    with store.app_lock(app, "run"):  # also while it runs
        renamed = store.rename_app("one", "two")
    assert (renamed.id, renamed.name) == (app.id, "two")
    assert store.rename_app("two", "two").name == "two"
    assert [a.name for a in store.apps()] == ["two"]
    assert os.path.exists(f"{store.app_dir(renamed)}/data/upper/f")
    with pytest.raises(UsageError):
        store.rename_app("two", "Two")
    with pytest.raises(NotFoundError):
        store.rename_app("one", "three")


def test_update(store):
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    updated = store.update_app("one", AppConfig(home=Home.FRESH, command=("sh",)))
    assert updated.config.command == ("sh",)
    assert updated.generation == 2
    assert os.path.isdir(f"{store.app_dir(app)}/data/home")
    with pytest.raises(NotFoundError):
        store.update_app("one", AppConfig(base="gone"))
    with store.app_lock(app, "run"), pytest.raises(BusyError):
        store.update_app("one", AppConfig())


def test_reset(store):
    one = store.create_app("one", AppConfig(home=Home.FRESH), ids=IdMode.NONE)
    two = store.create_app("two", AppConfig(), ids=IdMode.NONE)
    for app in (one, two):
        write(store, app, "etc/x")
    os.makedirs(f"{store.app_dir(one)}/data/work/0/work")
    with open(f"{store.app_dir(one)}/data/roots", "w") as file:
        file.write("/etc\n")
    os.mkdir(f"{store.app_dir(one)}/data/home/h")
    store.reset_app("one")
    data = f"{store.app_dir(one)}/data"
    assert os.listdir(f"{data}/upper") == os.listdir(f"{data}/work") == os.listdir(f"{data}/home") == []
    assert os.stat(f"{data}/roots").st_size == 0
    assert stat.S_IMODE(os.stat(f"{data}/upper").st_mode) == stat.S_IMODE(os.stat("/").st_mode)
    assert store.app("one").generation == 2
    assert os.path.exists(f"{store.app_dir(two)}/data/upper/etc/x")
    assert store.app("two").generation == 1
    assert os.listdir(f"{store.path}/trash") == os.listdir(f"{store.path}/staging") == []


def test_reset_repairs_missing_data(store):
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    os.rename(f"{store.app_dir(app)}/data", f"{store.path}/gone")
    with pytest.raises(DamagedError, match="data/upper") as caught:
        store.open_app_dir(app, "data/upper")
    assert "reset" in caught.value.hint
    store.reset_app("one")
    os.close(store.open_app_dir(app, "data/upper"))


def test_reset_does_not_follow_links(store, folder):
    os.mkdir(f"{folder}/host")
    with open(f"{folder}/host/precious", "w"):
        pass
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    upper = f"{store.app_dir(app)}/data/upper"
    os.symlink(f"{folder}/host", f"{upper}/link")
    os.link(f"{folder}/host/precious", f"{upper}/hard")
    os.mkfifo(f"{upper}/fifo")
    os.mkdir(f"{upper}/locked", 0)
    os.mkdir(os.fsencode(upper) + b"/\xff\n\x1b")
    store.reset_app("one")
    assert os.listdir(f"{folder}/host") == ["precious"]
    assert os.listdir(f"{store.path}/trash") == []


def test_remove(store):
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    write(store, app, "f")
    assert store.remove_app("one", keep_data=False) == []
    assert store.apps() == []
    for name in ("apps", "staging", "trash", "kept"):
        assert os.listdir(f"{store.path}/{name}") == []
    with pytest.raises(NotFoundError):
        store.remove_app("one")


def test_remove_what_is_damaged(store):
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    os.rename(store.app_dir(app), f"{store.path}/gone")
    store.remove_app("one")
    assert store.apps() == []
    assert os.listdir(f"{store.path}/apps") == []


def test_remove_and_keep_the_data(store):
    app = store.create_app("web", AppConfig(), ids=IdMode.NONE)
    write(store, app, "f", "precious")
    assert store.kept("web") == []
    (kept,) = store.remove_app("web", keep_data=True)
    assert store.kept("web") == [kept]
    assert store.kept("we") == store.kept("web-2") == []
    with open(f"{kept}/upper/f") as file:
        assert file.read() == "precious"
    store.create_app("web", AppConfig(), ids=IdMode.NONE)
    assert os.listdir(f"{store.path}/apps") != [app.id]


def test_lower_fds(store):
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    fds = store.lower_fds(app)
    assert [os.path.samestat(os.fstat(fd), os.stat("/")) for fd in fds] == [True]
    os.close(fds[0])
    before = set(os.listdir("/proc/self/fd"))
    damaged = store.create_app("two", AppConfig(layers=("gone",)), ids=IdMode.NONE)
    with pytest.raises(DamagedError, match="gone"):
        store.lower_fds(damaged)
    assert set(os.listdir("/proc/self/fd")) == before


def test_upper_that_is_a_link(store, folder):
    app = store.create_app("one", AppConfig(), ids=IdMode.NONE)
    os.rmdir(f"{store.app_dir(app)}/data/upper")
    os.symlink(folder, f"{store.app_dir(app)}/data/upper")
    with pytest.raises(DamagedError):
        store.open_app_dir(app, "data/upper")


def test_ranges(store):
    made = [store.create_app(f"a{n}", AppConfig(), ids=IdMode.RANGE) for n in range(4)]
    starts = [app.uid_start for app in made]
    assert len(set(starts)) == 4
    assert all(start % COUNT == 0 and FIRST <= start < LIMIT for start in starts)
    store.remove_app("a1")
    assert store.create_app("again", AppConfig(), ids=IdMode.RANGE).uid_start == starts[1]


def test_lowest_free():
    assert lowest_free([], []) == FIRST
    assert lowest_free([FIRST], []) == FIRST + COUNT
    assert lowest_free([FIRST + COUNT], []) == FIRST
    assert lowest_free([], [(FIRST + 5, 1)]) == FIRST + COUNT
    assert lowest_free([], [(FIRST - COUNT, COUNT)]) == FIRST
    assert lowest_free([], [(FIRST - COUNT, COUNT + 1)]) == FIRST + COUNT
    assert lowest_free([], [(FIRST + COUNT - 1, 2)]) == FIRST + 2 * COUNT
    assert lowest_free([], [(0, LIMIT - COUNT)]) == LIMIT - COUNT
    assert lowest_free([], [(7, 0), (FIRST, 0)]) == FIRST
    with pytest.raises(StoreError, match="taken"):
        lowest_free([], [(0, 2**32)])


def test_taken_elsewhere(folder):
    assert taken_elsewhere(folder) == []
    os.makedirs(f"{folder}/etc")
    os.makedirs(f"{folder}/run/systemd/nspawn-uid/")
    for name, text in {
        "etc/subuid": "me:524288:65536\n# no\n\nbroken\nyou:x:y\n",
        "etc/subgid": "me:600000:10\n",
        "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nodd:x:700000:800000::/:/bin/sh\n+::::::\n",
        "etc/group": "big:x:900000:\n",
        "run/systemd/nspawn-uid/1048576": "",
        "run/systemd/nspawn-uid/x": "",
    }.items():
        with open(f"{folder}/{name}", "w") as file:
            file.write(text)
    found = taken_elsewhere(folder)
    assert {(524288, 65536), (600000, 10), (700000, 1), (800000, 1), (900000, 1), (1048576, COUNT)} <= set(
        found
    )


def test_a_name_that_has_become_anothers_is_not_touched(store):
    """Between a question and its answer a name may change hands; the answer was about the first."""
    meant = store.create_app("a", AppConfig(), ids=IdMode.RANGE)
    store.rename_app("a", "b")
    other = store.create_app("a", AppConfig(), ids=IdMode.RANGE)
    for change in (store.reset_app, store.remove_app):
        with pytest.raises(NotFoundError, match="another"):
            change("a", only=meant.id)
    assert store.app("a") == other
    assert store.app("b").generation == 1
