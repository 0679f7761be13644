"""Two apps that see each other by name, and nothing else."""

from __future__ import annotations

import os
import signal

import pytest
from support.outside import MACHINE, OUTSIDE
from support.sandbox import wait_for

pytestmark = [pytest.mark.root, pytest.mark.idmap]


def gone(machine):
    wait_for(lambda: not machine.left(), what=f"left behind: {machine.left()}")


@pytest.mark.parametrize(
    "network",
    [
        pytest.param("none", marks=pytest.mark.long),
        "private",
        pytest.param("link:web", marks=pytest.mark.long),
    ],
)
def test_each_sees_the_other(machine, network):
    machine.serve("tcp", OUTSIDE, 80, "outside", outside=True)
    machine.serve("tcp", "0.0.0.0", 80, "the machine")
    machine.run("create", "web", "--network", "none", check=0)
    machine.app("db", "--network", network, says="db")
    machine.run("edit", "web", "--network", "link:db", check=0)
    machine.start("app", "web", "--", "python3", machine.inner_peer(), "serve", "tcp", "0.0.0.0", "80", "web")
    assert machine.inside("web", "db", 80).startswith("db ")
    assert machine.inside("db", "web", 80).startswith("web ")
    for address in (MACHINE, OUTSIDE):
        assert machine.inside("web", address, 80).startswith("no: ")
    if network == "private":
        assert machine.inside("db", OUTSIDE, 80).startswith("outside ")
    assert machine.run("app", "web", "--", "ip", "-o", "route", check=0).stdout.count("\n") == 1
    assert machine.run("app", "web", "--", "hostname", check=0).stdout == "web\n"


def test_whoever_starts_again_is_linked_again(machine):
    machine.run("create", "db", "--network", "none", check=0)
    machine.run("app", "db", "--", "true", check=0)  # by now its plan is stored
    web = machine.app("web", "--network", "link:db")
    assert machine.inside("web", "localhost", 1).startswith("no: ")
    serve = ["app", "db", "--", "python3", machine.inner_peer(), "serve", "tcp", "0.0.0.0", "80", "db"]
    for number in (signal.SIGTERM, signal.SIGKILL):
        db = machine.start(*serve)
        assert machine.inside("web", "db", 80).startswith("db ")
        os.kill(db.pid, number)
        db.wait(60)
        assert machine.inside("web", "db", 80).startswith("no: ")
    machine.start(*serve)
    web.communicate(timeout=60)
    assert machine.inside("web", "db", 80).startswith("db ")  # a new start of web
    assert machine.run("app", "db", "--", "cat", "/etc/hosts", check=0).stdout.count("web") == 1


def test_apps_that_are_linked_to_the_same_one_do_not_meet(machine):
    machine.app("db", "--network", "none", says="db")
    machine.app("one", "--network", "link:db", says="one")
    machine.app("two", "--network", "link:db", says="two")
    own = machine.run("app", "one", "--", "hostname", "-I", check=0).stdout.strip()
    assert machine.inside("one", "db", 80).startswith("db ")
    assert machine.inside("two", "db", 80).startswith("db ")
    assert machine.inside("db", "one", 80).startswith("one ")
    assert machine.inside("two", own, 80).startswith("no: ")
    assert machine.inside("two", "one", 80).startswith("no: ")


def test_a_link_that_makes_no_sense(machine, single_user):
    machine.run("create", "web", "--network", "link:db", check=0)
    refused = machine.run("app", "web", "--", "true", check=125).stderr
    assert "no app is called that" in refused
    assert "layerrun edit web --network" in refused
    machine.run("create", "db", check=0)
    assert "no network of its own" in machine.run("app", "web", "--", "true", check=125).stderr
    machine.run("edit", "db", "--network", "none", check=0)
    machine.run("app", "web", "--", "true", check=0)
    machine.run("rename", "db", "base", check=0)
    assert "'db'" in machine.run("app", "web", "--", "true", check=125).stderr
    machine.run("create", "web", "--network", "link:db", user=single_user, check=0)
    assert "without root" in machine.run("app", "web", "--", "true", user=single_user, check=125).stderr
    gone(machine)
