"""A network of its own: the way out, names, published ports, what is out of reach; and that nothing of it stays."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest
from support.outside import GATEWAY, MACHINE, OUTSIDE
from support.sandbox import inside_of, wait_for

pytestmark = [pytest.mark.root, pytest.mark.idmap]


def gone(machine):
    wait_for(lambda: not machine.left(), what=f"left behind: {machine.left()}")


def test_the_way_out_and_names(machine, who):
    machine.resolver(OUTSIDE)
    machine.serve("dns", OUTSIDE, 53, f"server.test={OUTSIDE}", outside=True)
    machine.serve("tcp", OUTSIDE, 80, "hello", outside=True)
    machine.run("create", "a", "--network", "private", user=who, check=0)
    # Outside one sees the machine's address, by whatever way.
    assert machine.inside("a", "server.test", 80, user=who) == f"hello {MACHINE}"
    script = "hostname; getent hosts a; getent hosts localhost | head -1; touch /etc/hosts; echo $?"
    lines = machine.run("app", "a", "--", "sh", "-c", script, user=who, check=0).stdout.splitlines()
    assert lines[0] == "a"
    assert lines[1].split()[1] == "a"
    assert lines[2].split()[1] == "localhost"
    assert lines[3] != "0"
    gone(machine)


def test_a_resolver_of_the_machine_alone(machine, either):
    machine.resolver("127.0.0.53")
    machine.serve("dns", "127.0.0.53", 53, f"server.test={OUTSIDE}")
    machine.serve("tcp", OUTSIDE, 80, "hello", outside=True)
    machine.run("create", "a", "--network", "private", user=either, check=0)
    assert machine.inside("a", "server.test", 80, user=either) == f"hello {MACHINE}"


def test_published_ports(machine, either):
    machine.serve("tcp", "127.0.0.1", 80, "the machine")
    app = machine.app("a", "--network", "private", "--publish", "8080:80", says="inside", user=either)
    for where, outside in ((MACHINE, True), (MACHINE, False), ("127.0.0.1", False)):
        assert machine.ask(where, 8080, outside=outside).startswith("inside "), where
    (said,) = json.loads(machine.run("ps", "--json", user=either, check=0).stdout)["instances"]
    assert (said["network"], said["publish"]) == ("private", ["8080:80"])
    if either is None:
        assert machine.ask(said["address"], 80).startswith("inside ")
    # The port is one of the machine's, and nobody else's.
    machine.run("create", "b", "--network", "private", "--publish", "8080", user=either, check=0)
    taken = machine.run("app", "b", "--", "true", user=either, check=125)
    assert "8080" in taken.stderr
    assert "in use" in taken.stderr
    app.communicate(timeout=60)
    machine.run("app", "b", "--", "true", user=either, check=0)
    assert machine.ask("127.0.0.1", 80).startswith("the machine")


def test_published_udp_at_an_address(machine, either):
    options = ["--network", "private", "--publish", f"{MACHINE}:5353:53/udp"]
    machine.app("a", *options, says="inside", kind="udp", port=53, user=either)
    assert machine.ask(MACHINE, 5353, kind="udp", outside=True).startswith("inside ")
    if either is None:  # the app of a plain user has the machine's address itself
        assert machine.ask(MACHINE, 5353, kind="udp").startswith("inside ")
    assert machine.ask("127.0.0.1", 5353, kind="udp").startswith("no: ")


def test_apps_meet_by_published_ports_only(machine):
    machine.serve("tcp", "0.0.0.0", 81, "the machine")
    machine.app("a", "--network", "private", "--publish", "8080:80", says="inside")
    machine.app("b", "--network", "private")
    own = machine.run("app", "a", "--", "hostname", "-I", check=0).stdout.strip()
    assert machine.inside("b", MACHINE, 8080).startswith("inside ")
    assert machine.inside("a", MACHINE, 8080).startswith("inside ")  # itself, by the machine's address
    assert machine.inside("b", own, 80).startswith("no: ")
    # Of the machine's own services none.
    gateway = machine.run("app", "b", "--", "ip", "-o", "route", "get", OUTSIDE, check=0).stdout.split()[2]
    for address in (MACHINE, gateway, "127.0.0.1"):
        assert machine.inside("b", address, 81).startswith("no: "), address
    # From the machine's neighbours either, who know the way.
    machine.sh(f"ip route add {own}/32 via {MACHINE}", outside=True)
    assert machine.ask(own, 80, outside=True).startswith("no: ")
    assert machine.ask(own, 80).startswith("inside ")


def test_a_plain_user_does_not_reach_the_machine(machine, either):
    """By its loopback, its own address and the gateway."""
    machine.serve("tcp", "0.0.0.0", 81, "the machine")
    machine.app("a", "--network", "private", user=either)
    for address in (MACHINE, "127.0.0.1"):
        assert machine.inside("a", address, 81, user=either).startswith("no: "), address


def test_root_inside_listens_below_1024_and_changes_nothing(machine):
    machine.app("a", "--network", "private", says="inside", port=80)
    script = "ip link set eth0 down; ip addr add 10.0.0.1/8 dev eth0; nft list ruleset; echo $?"
    assert machine.run("app", "a", "--", "sh", "-c", script, check=0).stdout.split()[-1] != "0"


@pytest.mark.parametrize("victim", ["launcher", "pid 1", "command"])
def test_nothing_stays(machine, either, victim):
    app = machine.app("a", "--network", "private", "--publish", "8080:80", says="inside", user=either)
    assert machine.left()
    pid_1 = inside_of(app.pid)
    pid_1 = next(pid for pid in pid_1 if _namespaced(pid) == ["1"])
    if victim == "command":
        app.communicate(timeout=60)
    else:
        os.kill(app.pid if victim == "launcher" else pid_1, signal.SIGKILL)
        app.wait(60)
    gone(machine)
    machine.run("app", "a", "--", "true", user=either, check=0)
    gone(machine)


def _namespaced(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return line.split()[2:]
    return []


def test_nothing_stays_of_pasta(machine, single_user):
    either = single_user
    app = machine.app("a", "--network", "private", "--publish", "8080:80", says="inside", user=either)
    companion = machine.left()[-1]
    between = int(pathlib.Path(f"/proc/{companion}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(between, signal.SIGKILL)
    gone(machine)
    # The app goes on, alone.
    assert app.poll() is None
    assert machine.inside("a", "127.0.0.1", 80, user=either).startswith("inside ")
    app.communicate(timeout=60)


def test_in_the_background(machine, either):
    machine.run("create", "a", "--network", "private", user=either, check=0)
    machine.serve("tcp", OUTSIDE, 80, "hello", outside=True)
    machine.run("app", "a", "--detach", "--", "sleep", "600", user=either, check=0)
    assert machine.inside("a", OUTSIDE, 80, user=either) == f"hello {MACHINE}"
    machine.run("kill", "a", user=either, check=0)
    gone(machine)


@pytest.mark.long
def test_profiles_and_ephemeral_starts_have_their_own(machine):
    machine.app("a", "--network", "private", says="inside")
    machine.run("app", "a", "--profile", "p", "--", "hostname", check=0)
    own, other, third = (
        machine.run("app", *words, "--", "hostname", "-I", check=0).stdout.strip()
        for words in (["a"], ["a", "--profile", "p"], ["a", "--ephemeral"])
    )
    assert len({own, other, third}) == 3
    assert machine.run("app", "a@p", "--", "hostname", check=0).stdout == "a-p\n"


@pytest.mark.long
def test_addresses_that_the_machine_has_otherwise(machine):
    machine.run("create", "a", "--network", "private", check=0)
    machine.sh(f"ip route add 10.0.0.0/8 via {GATEWAY}; ip route add 172.16.0.0/12 via {GATEWAY}")
    assert machine.run("app", "a", "--", "hostname", "-I", check=0).stdout.startswith("192.168.2")
    machine.sh(f"ip route add 192.168.0.0/16 via {GATEWAY}")
    assert "no range of addresses" in machine.run("app", "a", "--", "true", check=125).stderr
    gone(machine)


def test_without_the_privilege(machine):
    machine.run("create", "a", "--network", "private", "--publish", "8080", check=0)
    argv = [
        "setpriv",
        "--bounding-set=-net_admin",
        "--inh-caps=-all",
        *machine.layerrun.argv("app", "a", "--", "true"),
    ]
    done = subprocess.run(
        [*machine.prefix(), *argv], env=machine.layerrun.env(), capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 125, done.stderr
    assert "CAP_NET_ADMIN" in done.stderr
    gone(machine)


def test_without_pasta(machine, single_user):
    machine.run("create", "a", "--network", "private", user=single_user, check=0)
    machine.sh("mount --bind /dev/null /usr/bin/pasta")
    done = machine.run("app", "a", "--", "true", user=single_user, check=125)
    assert "install passt" in done.stderr


def test_without_a_way_out(machine, single_user):
    """Where pasta itself fails, what it says is passed on."""
    machine.sh("ip route del default")
    machine.run("create", "a", "--network", "private", user=single_user, check=0)
    done = machine.run("app", "a", "--", "true", user=single_user, check=125)
    assert "pasta: " in done.stderr


def test_where_python_is_needed(machine, either):
    """As root for a start, which the front door leaves to it; never for what joins."""
    alone = {"LAYERRUN_FRONT_DOOR": "alone"}
    machine.run("create", "a", "--network", "private", user=either, check=0)
    machine.run("app", "a", "--", "true", user=either, check=0)
    done = machine.run("app", "a", "--", "echo", "up", user=either, env=alone)
    assert done.stdout == ("" if either is None else "up\n")
    app = machine.start("app", "a", "--", "python3", machine.inner_peer(), "wait", user=either)
    assert machine.run("app", "a", "--", "echo", "up", user=either, env=alone, check=0).stdout == "up\n"
    app.communicate(timeout=60)


def test_the_api(machine):
    machine.run("create", "a", "--network", "private", "--publish", "8080:80", check=0)
    script = (
        "import layerrun, sys; app = layerrun.Store().app('a'); sys.exit(app.run(sys.argv[1:]).returncode)"
    )
    words = [sys.executable, "-c", script, "sh", "-c", "hostname -I | wc -w"]
    done = subprocess.run(
        [*machine.prefix(), *words], env=machine.layerrun.env(), capture_output=True, text=True, cwd="/"
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
    gone(machine)


def test_no_network_has_names_too(layerrun, either):
    layerrun("create", "a", "--network", "none", user=either, check=0)
    script = "hostname; getent hosts a localhost; ls /sys/class/net 2>/dev/null; cat /proc/net/dev | wc -l"
    lines = layerrun("app", "a", "--", "sh", "-c", script, user=either, check=0).out.splitlines()
    assert lines[0] == "a"
    assert lines[1].split() == ["127.0.1.1", "a"]
    assert lines[-1] == "3"  # two lines of a head, and the loopback
