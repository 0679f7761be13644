"""Building apps by recipes, for real: as root, with subordinate ids, with one id alone."""

import json
import os
import pathlib
import pty
import signal
import subprocess

import pytest
from support import users
from support.sandbox import small_tree
from support.whose import whose

EVERYBODY = ["root", users.PLAIN, users.SINGLE]

RECIPE = """
base = "small"
name = "web"
env = { GREETING = "hello" }

[[step]]
add = "site"
to = "/srv/www"
exclude = ["*.bak"]

[[step]]
run = "mkdir /opt; cd /opt; echo $GREETING >g; ln g h; ln -s g s; rm /etc/base; rm -r /var/gone; mkdir /var/gone"

[[step]]
run = ["true"]

[[step]]
write = "/bin/hello"
mode = "0750"
text = "#!/bin/sh\\ncat /opt/g /srv/www/index.html\\n"

[app]
command = ["/bin/hello"]
env = ["A=b"]
"""


class Place:
    """A base, a recipe, and somebody who builds."""

    def __init__(self, layerrun, top, who):
        self.layerrun, self.top, self.who = layerrun, top, who
        tree = small_tree(os.path.join(top, "tree"))
        os.makedirs(f"{tree}/var/gone/deep")
        pathlib.Path(f"{tree}/var/gone/deep/f").write_text("x")
        self.recipe = os.path.join(top, "build.toml")
        self.write(RECIPE)
        site = pathlib.Path(top, "site")
        (site / "deep").mkdir(parents=True)
        (site / "index.html").write_text("page\n")
        (site / "old.bak").write_text("left out")
        (site / "deep" / "run").write_text("#!/bin/sh\n")
        (site / "deep" / "run").chmod(0o700)
        (site / "deep" / "link").symlink_to("run")
        self.own()
        self("base", "import", "small", tree, check=0)

    def own(self):
        if self.who:
            subprocess.run(["chown", "-hR", f"{self.who.uid}:{self.who.gid}", self.top], check=True)

    def write(self, text):
        pathlib.Path(self.recipe).write_text(text)

    def __call__(self, *words, **options):
        return self.layerrun(*words, user=self.who, **options)

    def build(self, *words, check=0, **options):
        return self("build", "-f", self.recipe, *words, check=check, **options)

    def built(self, *words, **options):
        return json.loads(self.build("--json", *words, **options).out)

    def sh(self, line, app="web"):
        return self("app", app, "--", "sh", "-c", line, check=0).out

    def store(self, *parts):
        return os.path.join(self.layerrun.store(self.who), *parts)


@pytest.fixture(params=["root", users.SINGLE, pytest.param(users.PLAIN, marks=pytest.mark.long)])
def place(request, layerrun, folder, user_folder):
    who = whose(request.param)
    return Place(layerrun, user_folder(who) if who else folder, who)


@pytest.fixture
def root(layerrun, folder):
    return Place(layerrun, folder, None)


def test_a_recipe_becomes_an_app(place):
    first = place.built()
    assert [step["cached"] for step in first["steps"]] == [False] * 4
    assert first["steps"][2]["layer"] is None
    assert place("app", "web", check=0).out == "hello\npage\n"
    assert place.sh("cat /srv/www/deep/link; echo $A; ls /srv/www /etc /var/gone").split() == [
        "#!/bin/sh", "b", "/etc:", "hosts", "resolv.conf", "/srv/www:", "deep", "index.html", "/var/gone:",
    ]  # fmt: skip
    assert place.sh("stat -c '%a %u:%g %Y' /srv/www/deep/run /bin/hello /opt/g /opt").split("\n")[:4] == [
        "755 0:0 946684800",
        "750 0:0 946684800",
        "644 0:0 946684800",
        "755 0:0 946684800",
    ]
    assert place.sh("[ /opt/g -ef /opt/h ] && echo one").strip() == "one"
    place.sh("echo data >/opt/g")
    again = place.built("-y")
    assert [step["cached"] for step in again["steps"]] == [True] * 4
    assert not again["changed"]
    assert again["digest"] == first["digest"]
    assert place.sh("cat /opt/g") == "data\n"
    place("reset", "-y", "web", check=0)
    assert place("app", "web", check=0).out == "hello\npage\n"
    assert place.build("--check-reproducible").err.endswith("each step has come to the same again\n")
    assert os.listdir(place.store("staging")) == []
    place("remove", "-y", "web", check=0)
    assert place.built()["digest"] == first["digest"]


def test_everybody_gets_the_same_digests(layerrun, folder, user_folder):
    found = []
    for name in EVERYBODY:
        who = whose(name)
        place = Place(layerrun, user_folder(who) if who else folder, who)
        built = place.built()
        found.append([step["digest"] for step in built["steps"]])
    assert found[0] == found[1] == found[2]


def test_what_comes_after_a_change_is_run_again_and_what_comes_before_is_not(root):
    root.built()
    pathlib.Path(root.top, "site", "index.html").write_text("another\n")
    steps = root.built()["steps"]
    assert [step["cached"] for step in steps] == [False, False, False, False]
    root.write(RECIPE.replace("0750", "0755"))
    steps = root.built()["steps"]
    assert [step["cached"] for step in steps] == [True, True, True, False]
    assert root("app", "web", check=0).out == "hello\nanother\n"
    # What a step is given and does not keep changes nothing for those after it.
    root.write(RECIPE.replace('["true"]', '["sh", "-c", "true"]'))
    steps = root.built()["steps"]
    assert [step["cached"] for step in steps] == [True, True, False, True]


def test_times_modes_and_left_out_files_do_not_count(root):
    root.built()
    site = pathlib.Path(root.top, "site")
    os.utime(site / "index.html", (1, 1))
    (site / "index.html").chmod(0o600)
    (site / "new.bak").write_text("also left out")
    assert all(step["cached"] for step in root.built()["steps"])


def test_no_cache_runs_all_and_keeps_the_layers_that_come_to_the_same(root):
    first = root.built()
    again = root.built("--no-cache")
    assert not any(step["cached"] for step in again["steps"])
    assert [step["layer"] for step in again["steps"]] == [step["layer"] for step in first["steps"]]
    assert not again["changed"]


def test_a_step_that_fails_changes_nothing(root):
    root.built()
    before = root("show", "web", "--json", check=0).out
    fails = "[[step]]\nrun = 'echo first; echo to stderr >&2; exit 7'\n\n[app]"
    root.write(RECIPE.replace("[app]", fails))
    done = root.build(check=1)
    assert "[5/5]" in done.err
    assert "  first\n  to stderr\n" in done.err
    assert "the build has failed: it has ended with status 7" in done.err
    assert "--debug" in done.err
    assert root("show", "web", "--json", check=0).out == before
    assert os.listdir(root.store("staging")) == []
    assert len(os.listdir(root.store("apps"))) == 1
    assert len(os.listdir(root.store("layers"))) == 3
    assert "\nfirst\nto stderr\n" in root.build("-v", check=1).err
    root.write(RECIPE.replace("[app]", "[[step]]\nrun = ['nowhere']\n\n[app]"))
    assert "'nowhere'" in root.build(check=1).err
    root.write(RECIPE.replace("[app]", "[[step]]\nrun = ['true']\nworkdir = '/away'\n\n[app]"))
    assert "let an earlier step make the workdir" in root.build(check=1).err


def test_a_step_has_no_network_unless_it_says_so(root):
    step = "[[step]]\nrun = 'cat /proc/net/dev >/net'\n"
    root.write(f'base = "small"\n{step}')
    root.build("none")
    assert "lo:" in root.sh("cat /net", "none")
    assert len(root.sh("cat /net", "none").splitlines()) == 3
    root.write(f'base = "small"\n{step}network = "host"')
    root.build("host")
    mine = pathlib.Path("/proc/net/dev").read_text()
    assert len(root.sh("cat /net", "host").splitlines()) == len(mine.splitlines())


def test_the_callers_surroundings_do_not_count(root):
    root.write(
        'base = "small"\n[[step]]\nrun = "env >/e; id >>/e; cat /proc/sys/kernel/hostname >>/e; umask >>/e"\n'
    )
    os.umask(0o077)
    try:
        root.build("one", env={"TERM": "xterm", "LANG": "de_DE.UTF-8", "LC_TIME": "C", "SECRET": "x"})
    finally:
        os.umask(0o022)
    root.build("two", "--no-cache")
    first = root.sh("cat /e", "one")
    assert "SECRET" not in first
    assert "SOURCE_DATE_EPOCH=946684800" in first
    assert "\nbuild\n" in first
    assert first == root.sh("cat /e", "two")


def test_what_differs_each_time_is_named(root):
    root.write(
        'base = "small"\n[[step]]\nrun = "cat /proc/sys/kernel/random/uuid >/var/id; echo 1 >/var/same"\n'
        '[[step]]\nrun = "read x </proc/sys/kernel/random/uuid; mkdir /var/$x"\n'
    )
    done = root.build("odd", "--check-reproducible", check=1)
    assert "step 1 comes to something else each time" in done.out
    assert "  /var/id: content\n" in done.out
    assert "  /var/same:" not in done.out
    assert "only in the first" in done.out
    assert "only in the second" in done.out


def test_an_app_with_data_is_built_anew_only_when_somebody_says_so(root):
    root.built()
    root.sh("echo mine >/srv/mine")
    root.write(RECIPE.replace("hello", "good day"))
    done = root.build(check=2)
    assert "no terminal" in done.err
    root.build("-y")
    assert root("app", "web", check=0).out == "good day\npage\n"
    assert root.sh("cat /srv/mine") == "mine\n"
    root("reset", "-y", "web", check=0)
    assert root.sh("ls /srv").split() == ["www"]


def test_what_is_configured_by_hand_stays_where_the_recipe_says_nothing(root):
    root.built()
    root("edit", "web", "--hide", "/etc/x", check=0)
    root.write(RECIPE.replace('["A=b"]', '["A=c"]'))
    assert root.built()["changed"]
    assert 'hides = ["/etc/x"]' in root("show", "web", "--toml", check=0).out
    assert root.sh("echo $A") == "c\n"


def test_dry_run_runs_nothing(root):
    assert root.build("--dry-run").out.splitlines()[0] == "run     add site to /srv/www"
    assert os.listdir(root.store("apps")) == []
    root.built()
    assert all(line.startswith("cached ") for line in root.build("--dry-run").out.splitlines())


def test_adding_follows_links_of_the_base_and_leaves_what_is_there(root):
    os.chmod(f"{root.top}/tree/var", 0o750)
    os.symlink("../var", f"{root.top}/tree/usr/up")
    os.symlink("/usr/up/", f"{root.top}/tree/way")
    root("base", "import", "other", f"{root.top}/tree", check=0)
    pathlib.Path(root.top, "one").write_text("1")
    root.write(
        'base = "other"\n[[step]]\nadd = "site"\nto = "/way/lib"\n[[step]]\nadd = "one"\nto = "/way/"\n'
        '[[step]]\nadd = "one"\nto = "/way/lib"\n[[step]]\nadd = "one"\nto = "/new/name"\nowner = "33:34"\n'
    )
    root.build("linked")
    assert root.sh(
        "cat /var/lib/one /var/one; stat -c %a /var; stat -c %u:%g /new/name", "linked"
    ).split() == [
        "11750",
        "33:34",
    ]
    for text, said in [
        ('add = "site"\nto = "/etc/base"', "a folder is to be added at '/etc/base', where a file is"),
        ('add = "one"\nto = "/etc/base/x"', "leads through '/etc/base', which is a file"),
        ('write = "/etc"\ntext = ""', "where a folder is"),
        ('add = "none"\nto = "/x"', "has no such thing"),
        ('add = "away/x"\nto = "/x"', "behind a link"),
    ]:
        if not os.path.lexists(f"{root.top}/away"):
            os.symlink("/etc", f"{root.top}/away")
        root.write(f'base = "other"\n[[step]]\n{text}\n')
        assert said in root.build("bad", check=2).err
    assert os.listdir(root.store("staging")) == []


def test_a_running_app_is_not_built_anew(root):
    root.built()
    root("app", "web", "--detach", "--", "sleep", "1000", check=0)
    root.write(RECIPE.replace("hello", "good day"))
    assert "running" in root.build("-y", check=5).err
    root.build("-y", "--kill")
    assert root("app", "web", check=0).out == "good day\npage\n"


def test_a_shell_where_a_step_has_failed(root):
    root.write('base = "small"\n[[step]]\nrun = "echo trouble; mkdir /half; exit 3"\n')
    words = root.layerrun.argv("build", "x", "-f", root.recipe, "--debug")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(words[0], words, root.layerrun.env())
    said = b""

    def read(until):
        nonlocal said
        while until not in said:
            try:
                data = os.read(terminal, 4096)
            except OSError:  # the other end is closed
                data = b""
            assert data, said
            said += data

    try:
        read(b"`exit` ends it")
        os.write(terminal, b"ls -d /half; echo th''ere; exit\n")
        read(b"there\r\n")
        read(b"status 3")
    finally:
        os.close(terminal)
        status = os.waitpid(pid, 0)[1]
    assert b"/half\r\n" in said  # perhaps behind a prompt that came after what was typed
    assert b"  trouble\r\n" in said
    assert os.waitstatus_to_exitcode(status) in (1, 128 + signal.SIGHUP, -signal.SIGHUP)
    assert root("list", check=0).out == ""


def test_a_branch_is_built_by_the_same_recipe_and_gc_takes_what_nobody_has(root):
    root.built()
    root("branch", "web", "twin", check=0)
    shown = [json.loads(root("show", name, "--json", check=0).out) for name in ("web", "twin")]
    assert shown[0]["recipe"] == shown[1]["recipe"]
    assert shown[0]["recipe"]["steps"][2] == "run true"
    assert "add site to /srv/www" in root("show", "twin", check=0).out
    root.write(RECIPE.replace("hello", "good day"))
    root.built()
    root("remove", "-y", "web", check=0)
    assert len(json.loads(root("gc", "--all", "--dry-run", "--json", check=0).out)["garbage"]) >= 2
    root("gc", "--all", "-y", check=0)
    layers = shown[1]["config"]["layers"]
    assert sorted(os.listdir(root.store("layers"))) == sorted(layers)
    assert root("app", "twin", check=0).out == "hello\npage\n"
    root("remove", "-y", "twin", check=0)
    root("gc", "--all", "-y", check=0)
    assert os.listdir(root.store("layers")) == []
