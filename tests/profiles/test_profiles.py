"""Profiles: the same app with another upper, beside it; each verb takes NAME@PROFILE."""

from __future__ import annotations

import json
import os

import pytest

WAIT = "; echo ready; read line"


def test_each_has_an_upper_of_its_own(run):
    run.sh("test ! -e /var/tmp/token && echo a >/var/tmp/token", "web", "--profile", "a")
    run.sh("test ! -e /var/tmp/token && echo b >/var/tmp/token", "web", "--profile", "b")
    for words, text in ((["web"], "web"), (["web", "--profile", "a"], "a"), (["web@b"], "b")):
        assert run.sh("cat /var/tmp/token", *words) == f"{text}\n"


def test_they_run_at_once(run):
    """Not one instance joined three times: each sees its own upper, pid 1 and name."""
    script = "echo $LAYERRUN_APP >/var/tmp/name" + WAIT
    running = [run.popen(script, *words) for words in (["web"], ["web", "--profile", "a"], ["web@b"])]
    names = ["web", "web@a", "web@b"]
    instances = {one["name"]: one for one in json.loads(run("ps", "--json").out)["instances"]}
    assert sorted(instances) == names
    assert len({one["pid"] for one in instances.values()}) == 3
    for name in names:
        assert run.sh("cat /var/tmp/name", name) == f"{name}\n"
        assert run("enter", name, "--", "cat", "/var/tmp/name").out == f"{name}\n"
    for process in running:
        run.ended(process)
    assert json.loads(run("ps", "--json").out)["instances"] == []


def test_a_range_of_ids_each(run, who):
    run.sh("true", "web@a")
    shown = [json.loads(run("show", "--json", name).out) for name in ("web", "web@a")]
    if who:
        assert [one["uid_start"] for one in shown] == [None, None]
        return
    starts = [one["uid_start"] for one in shown]
    assert len(set(starts)) == 2
    for name, start in zip(("web", "web@a"), starts, strict=True):
        assert run.sh("cat /proc/self/uid_map", name).split() == ["0", str(start), "65536"]


def test_its_configuration_is_its_apps(run, who, own_folder):
    share = os.path.join(own_folder, "share")
    os.mkdir(share)
    if who:
        os.chown(share, who.uid, who.gid)
    run("create", "db", "--share", f"{share}:/mnt", "-e", "A=b", "--", "sh", "-c", "echo $A $LAYERRUN_APP")
    assert run("app", "db", "--profile", "x").out == "b db@x\n"
    run.sh("echo hello >/mnt/file", "db@x")
    assert run.sh("cat /mnt/file", "db") == "hello\n"
    run("app", "web", "--profile", "x", check=2)  # web has no command
    assert "web@x" not in run.apps()


def test_a_new_profile_is_said_and_taken_back(run):
    done = run("app", "web", "--profile", "new", "--", "true")
    assert "created profile web@new" in done.err
    assert "created" not in run("app", "web", "--profile", "new", "--", "true").err
    before = run.folders()
    done = run("app", "web", "--profile", "never", "--", "/no/such/command", check=127)
    assert "removed profile web@never again" in done.err
    assert run.folders() == before
    done = run("app", "web", "--profile", "new", "--", "/no/such/command", check=127)
    assert "removed" not in done.err
    assert "web@new" in run.apps()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["app", "nosuch", "--profile", "a", "--", "true"], 6, "there is no app 'nosuch'"),
        (["app", "nosuch@a", "--", "true"], 6, "there is no app 'nosuch'"),
        (["app", "wbe", "--profile", "a"], 6, "did you mean web?"),
        (["app", "web", "--profile", "A", "--", "true"], 2, "bad name of a profile 'A'"),
        (["app", "web", "--profile", "", "--", "true"], 2, "bad name of a profile ''"),
        (["app", "web", "--profile", "tmp-1", "--", "true"], 2, "ephemeral"),
        (["app", "web@a", "--profile", "b", "--", "true"], 2, "given twice"),
        (["app", "web@", "--", "true"], 2, "bad name of a profile"),
        (["app", "web@a@b", "--", "true"], 2, "bad name of a profile"),
        (["create", "web@a"], 2, "layerrun app web --profile a"),
        (["try", "--name", "web@a", "--", "true"], 2, "layerrun app web --profile a"),
        (["rename", "web", "shop@a"], 2, "layerrun app shop --profile a"),
        (["rename", "web@a", "shop"], 6, "web@a"),
        (["base", "import", "a@b", "/etc"], 2, "bad name of a base"),
        (["show", "web@a"], 6, "there is no app 'web@a'"),
    ],
)
def test_what_is_wrong_costs_nothing(run, words, status, said):
    before = run.folders()
    done = run(*words, check=status)
    assert said in done.err, done.err
    assert run.folders() == before


def test_every_verb_takes_it(run):
    run.sh("echo a >/var/tmp/token; mkdir -p ~/.cache/x; echo 1 >~/.cache/x/y", "web@a")
    record = json.loads(run("show", "--json", "web@a").out)
    assert (record["name"], record["parent"], record["profile"]) == ("web@a", "web", "a")
    assert (record["kind"], record["ephemeral"]) == ("app", False)
    assert json.loads(run("show", "--json", "web").out)["profiles"] == ["web@a"]
    assert "/var/tmp/token" in run("diff", "web@a").out
    assert run("which", "web@a", "/var/tmp/token").out.startswith("upper")
    assert "web@a" in run("plan", "web@a").out
    (used,) = json.loads(run("du", "--json", "web@a").out)["apps"]
    assert (used["name"], used["parent"], used["profile"]) == ("web@a", "web", "a")
    assert {one["name"] for one in json.loads(run("du", "--json").out)["apps"]} == {"web", "web@a"}
    assert ".cache" in run("clear-cache", "-y", "web@a").out
    run.sh("test ! -e ~/.cache/x", "web@a")
    assert run("shell", "web@a", input="cat /var/tmp/token; exit 3\n", check=3).out.endswith("a\n")
    assert run("reset", "-y", "web@a", "--path", "/var/tmp/**").out == "/var/tmp/token\n"
    run.sh("echo a >/var/tmp/token", "web@a")
    run("reset", "-y", "web@a")
    run.sh("test ! -e /var/tmp/token", "web@a")
    assert run.sh("cat /var/tmp/token", "web") == "web\n"
    run("discard", "-y", "web@a", check=2)
    run("rename", "web@a", "web@b")
    run("rename", "web@b", "shop", check=2)
    run("remove", "-y", "web@b")
    assert list(run.apps()) == ["web"]


def test_list_shows_it_under_its_app(run):
    run("create", "web-x")
    run.sh("true", "web@a")
    lines = [line.split()[:2] for line in run("list").out.splitlines()]
    assert lines == [["NAME", "KIND"], ["web", "app"], ["web@a", "profile"], ["web-x", "app"]]
    record = run.apps()["web@a"]
    assert (record["kind"], record["parent"], record["profile"]) == ("app", "web", "a")
    assert run.apps()["web"]["profile"] is run.apps()["web"]["parent"] is None


def test_reset_all_counts_profiles(run):
    run.sh("echo a >/var/tmp/token", "web@a")
    assert [line.partition(":")[0] for line in run("reset", "--all", "--dry-run").out.splitlines()] == [
        "web",
        "web@a",
    ]
    run("reset", "-y", "--all")
    for name in ("web", "web@a"):
        run.sh("test ! -e /var/tmp/token", name)


def test_stop_and_kill_one_alone(run):
    running = [run.popen("echo ready; exec sleep 1000", name) for name in ("web", "web@a", "web@b")]
    run("stop", "web@a")
    assert running[1].wait(60) == 143
    run("kill", "web@b")
    assert running[2].wait(60) == 137
    assert running[0].poll() is None
    assert [one["name"] for one in json.loads(run("ps", "--json").out)["instances"]] == ["web"]


def test_what_runs_holds_its_app(run):
    run.sh("true", "web")
    process = run.popen("echo ready; exec sleep 1000", "web@a")
    before = run.folders()
    done = run("remove", "-y", "web", check=5)
    assert "web@a" in done.err
    assert "layerrun stop web@a" in done.err
    assert run.folders() == before
    run("reset", "-y", "web")  # that is the app's own data
    run("rename", "web", "shop")
    assert run("enter", "shop@a", "--", "echo", "hello").out == "hello\n"
    run("stop", "shop@a")
    process.wait(60)
    run("remove", "-y", "shop")
    assert run.folders() == {"apps": [], "staging": [], "trash": [], "plans": []}


def test_remove_web_and_its_profile_by_name(run):
    for name in ("web@a", "web@b"):
        run.sh("true", name)
    done = run("remove", "--keep-data", "web@a", "web")
    assert done.err.count("kept the data of") == 3
    assert run.apps() == {}
    assert len(os.listdir(f"{run.path}/kept")) == 3


def test_a_repeated_start_is_the_same(run):
    """The front door may run what Python stored: a renamed profile is never run under the old name."""
    for _ in range(3):
        assert (
            run.sh("echo $LAYERRUN_APP; echo x >>/var/tmp/lines; wc -l </var/tmp/lines", "web@a")[:6]
            == "web@a\n"
        )
    run("rename", "web", "shop")
    run("app", "web@a", "--", "true", check=6)
    run("create", "web")
    assert run.sh("ls /var/tmp/lines 2>/dev/null; echo $LAYERRUN_APP", "web@a") == "web@a\n"
    assert run.sh("wc -l </var/tmp/lines", "shop@a") == "3\n"
    run("remove", "-y", "web@a")
    assert run.sh("ls /var/tmp/lines 2>/dev/null; echo $LAYERRUN_APP", "web@a") == "web@a\n"
