"""What holds alone holds together: every way of starting, joining, nesting, networks and limits."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import sys

import pytest
from support import reach
from support.answers import Answers
from support.checks import APPS

check = pytest.mark.check
REFUSED = {"EPERM", "EACCES", "EROFS", "ENOSYS", "ENOENT", "ECONNREFUSED"}
GROUPS = ("p5", "p6", "p7", "p10", "p12", "p18", "p19", "p20")

API = """
import sys, layerrun
with layerrun.Store() as store:
    done = store.app("a").run(sys.argv[1:], capture_output=True, text=True)
sys.stdout.write(done.stdout)
sys.exit(done.returncode)
"""


def judge(answers, mode, *, abstract=True):
    """Assert that a command is confined as the first one of a default app is."""
    caps = {name: int(value, 16) for name, value in answers.of(5).items()}
    assert {caps["CapInh"], caps["CapAmb"]} == {0}
    assert caps["CapBnd"] == (0 if mode == "one-id" else 0x800404FB)
    assert answers.of(6)["NoNewPrivs"] == "1"
    assert set(answers.of(7).values()) == {"2"}
    assert answers.of(20)["our descriptors"] == "0 1 2"
    reached = answers.of(18)
    wanted = [what for what in reached if "abstract" in what] if abstract else []
    for found in (answers.of(10), answers.of(12), answers.of(19), {what: reached[what] for what in wanted}):
        assert not {what: got for what, got in found.items() if got not in REFUSED}


def words_of(place, mode):
    return [place.inside(mode, "probe"), *GROUPS, *place.decoys.words(lambda name: place.inside(mode, name))]


@check(7, only=APPS)
@pytest.mark.parametrize("way", ["python", "profile", "ephemeral", "detach", "api"])
def test_every_way_of_starting(place, mode, way, seen):
    place.make(mode)
    words = words_of(place, mode)
    if way == "api":
        python = reach.translate([sys.executable])
        argv = [*place.prefix(mode), *python, "-c", API, *words]
        done = subprocess.run(
            argv, env=place.env(mode), capture_output=True, text=True, cwd="/", stdin=subprocess.DEVNULL
        )
    elif way == "detach":
        place.layerrun(mode, "app", "a", "-d", "--", *words, check=0)
        done = place.layerrun(mode, "app", "a", "--", "/bin/sh", "-c", "sleep 0.3")
        done = place.layerrun(mode, "logs", "a", check=0)
    else:
        options = {"python": [], "profile": ["--profile", "p"], "ephemeral": ["--ephemeral"]}[way]
        env = {"LAYERRUN_FRONT_DOOR": "0"} if way == "python" else {}
        done = place.layerrun(mode, "app", "a", *options, "--", *words, env=env)
    judge(Answers(done), mode)
    seen(f"{way}: as the first")


@check(7, only=APPS)
def test_who_joins_tries_it_all(place, mode, seen):
    """Landlock's domain, the empty keyring, no groups: pid 1 has them, and who joins descends from it."""
    place.make(mode)
    argv = place.argv(mode, "app", "a", "--", "/bin/sh", "-c", "echo ready; exec sleep 1000")
    first = subprocess.Popen(
        argv, env=place.env(mode), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd="/"
    )
    try:
        assert first.stdout.readline() == "ready\n"
        for verb in ("app", "enter"):

            def run(options, verb=verb):
                return place.layerrun(mode, verb, "a", "--", *words_of(place, mode), **options)

            judge(Answers(place.decoys.in_surroundings(run, None if mode == "root" else user(mode))), mode)
    finally:
        first.kill()
        first.wait(30)
        first.stdout.close()
    seen("by app and by enter: as the first")


def user(mode):
    from support import users

    return users.ensure(users.SINGLE if mode == "one-id" else users.PLAIN)


@check(53, only=APPS)
def test_limits_of_who_joins(place, mode, seen):
    """The app's limit holds for who joins with more, and not for who joins with less."""
    base = ["--base", "small"] if mode == "subids" else []
    place.make(mode)
    place.layerrun(mode, "create", "limited", *base, "--limit", "nofile=64", check=0)
    argv = place.argv(mode, "app", "limited", "--", "/bin/sh", "-c", "echo ready; exec sleep 1000")
    first = subprocess.Popen(
        argv, env=place.env(mode), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, cwd="/"
    )
    script = ["/bin/sh", "-c", "ulimit -Sn; ulimit -Hn"]
    try:
        assert first.stdout.readline() == "ready\n"
        for limit, found in (("512:512", "64"), ("32:32", "32")):
            prefix = [*place.prefix(mode), "prlimit", f"--nofile={limit}"]
            done = place.layerrun(mode, "app", "limited", "--", *script, prefix=prefix, check=0)
            assert done.stdout.split() == [found, found]
    finally:
        first.kill()
        first.wait(30)
        first.stdout.close()
    seen("the lower of the two")


@check(16, only=("one-id", "root"))
def test_nesting_gives_no_more(place, mode, seen):
    """With --allow nesting, and every capability in a namespace of its own, what is the machine's stays shut."""
    place.make(mode)
    place.layerrun(mode, "create", "nested", "--allow", "nesting", check=0)
    words = [
        place.inside(mode, "probe"),
        "p1",
        "p2",
        "p3",
        "p14",
        *place.decoys.words(lambda name: place.inside(mode, name)),
    ]
    script = """
        mount -t tmpfs x /mnt && mkdir /mnt/c /mnt/s && mount -t cgroup2 x /mnt/c
        mount -t sysfs x /mnt/s; mount -t proc x /proc && echo FRESH
        for d in debugfs tracefs securityfs configfs; do mount -t $d x /mnt/s && echo MOUNTED $d; done
        for f in c/cgroup.procs c/cgroup.kill c/release_agent s/kernel/uevent_helper s/power/state
        do (: >>/mnt/$f) && echo WRITABLE $f; done
        exec "$@" """
    argv = ["unshare", "-UrmpfnC", "/bin/sh", "-c", script, "sh", *words]
    done = place.layerrun(mode, "app", "nested", "--", *argv)
    answers = Answers(done)
    said = [
        line
        for line in done.stdout.splitlines()
        if line.split()[:1] and line.split()[0] in {"FRESH", "MOUNTED", "WRITABLE"}
    ]
    seen("nothing of the machine's" if not said else ", ".join(said))
    # A control group is the kernel's own file system, and its files belong to the machine's root.
    assert said == []
    for number in (1, 2, 14):
        found = answers.of(number)
        allowed = REFUSED | {"masked", "nothing", "no address"}
        assert not {what: got for what, got in found.items() if got not in allowed}, number


REACH = """
import socket, struct, sys
gateways = [socket.inet_ntoa(struct.pack("=I", int(line.split()[2], 16)))
            for line in open("/proc/net/route").read().splitlines()[1:] if line.split()[1] == "00000000"]
assert gateways
for address in {*gateways, "127.0.0.1", *sys.argv[2:]}:
    for port in sys.argv[1].split(","):
        with socket.socket() as one:
            one.settimeout(1)
            try:
                one.connect((address, int(port)))
            except OSError:
                continue
            print("REACHED", address, port)
print("done")
"""


@pytest.fixture
def forwarding():
    """Put the machine's forwarding back: here the decoys are its own, so the network is too."""
    path = pathlib.Path("/proc/sys/net/ipv4/ip_forward")
    before = path.read_text()
    yield
    path.write_text(before)


@check(18, only=("one-id", "root"))
@pytest.mark.usefixtures("forwarding")
def test_a_private_network(place, mode, seen):
    """Neither sockets without a path, nor what listens on the machine, on its loopback alone or everywhere."""
    place.make(mode)
    place.layerrun(mode, "create", "private", "--network", "private", "--allow", "abstract-sockets", check=0)
    words = [place.inside(mode, "probe"), "p18", *place.decoys.words(lambda name: place.inside(mode, name))]
    found = Answers(place.layerrun(mode, "app", "private", "--", *words)).of(18)
    seen(found)
    assert found["network devices"].split() == ["lo", "eth0"]
    for what in ("connect to an abstract socket of outside", "connect to a port of the machine's loopback"):
        assert found[what] == "ECONNREFUSED"
    assert found["AF_VSOCK"] in REFUSED | {"EAFNOSUPPORT"}
    with socket.create_server(("0.0.0.0", 0)) as everywhere:
        ports = f"{place.decoys.port},{everywhere.getsockname()[1]}"
        own = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()
        addresses = [address for address in own if ":" not in address]
        python = ["/usr/bin/python3", "-c", REACH, ports, *addresses]
        done = place.layerrun(mode, "app", "private", "--", *python, check=0)
        assert done.stdout == "done\n"
    if mode == "root":
        found = Answers(place.layerrun(mode, "app", "a", "--", *words)).of(18)
        assert found["connect to an abstract socket of outside"] == "EPERM"
