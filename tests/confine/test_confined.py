"""What a command is refused beside single calls: sockets without a path, namespaces, capabilities."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import uuid

import pytest
from support import users
from support.whose import whose

NESTED = "unshare -Ur sh -c 'cat /proc/self/uid_map' && echo NESTED"


@pytest.fixture(params=["root", users.PLAIN])
def who(request):
    return whose(request.param)


@pytest.fixture
def run(layerrun, who):
    """``run(script, "--allow", …)`` makes an app with these options and runs a shell script in it."""
    made = []

    def start(script, *options, check=0):
        name = f"a{len(made)}"
        made.append(name)
        layerrun("create", name, *options, user=who, check=0)
        return layerrun("app", name, "--", "sh", "-c", script, user=who, check=check)

    return start


@pytest.fixture
def abstract():
    """An abstract socket of the machine that takes connections: its name without the NUL."""
    name = f"layerrun-test-{uuid.uuid4().hex}"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        yield name


CONNECT = """exec python3 -c 'import socket
try:
    socket.socket(socket.AF_UNIX).connect("\\0%s"); print("CONNECTED")
except OSError as error: print("errno", error.errno)'"""


def test_abstract_sockets_of_the_machine(run, abstract):
    assert run(CONNECT % abstract).out.strip() == "errno 1"
    assert run(CONNECT % abstract, "--allow", "abstract-sockets").out.strip() == "CONNECTED"


def test_abstract_sockets_of_its_own(run):
    script = """exec python3 -c 'import socket
s = socket.socket(socket.AF_UNIX); s.bind("\\0layerrun-own"); s.listen()
socket.socket(socket.AF_UNIX).connect("\\0layerrun-own"); print("CONNECTED")'"""
    assert run(script).out.strip() == "CONNECTED"


def test_signals_by_the_owner_of_a_descriptor(run, layerrun, who):
    """fcntl(F_SETOWN) sends where a pipe is told to: within the app it works."""
    script = """exec python3 -c 'import os, signal, fcntl
got = []
signal.signal(signal.SIGIO, lambda *a: got.append(1))
r, w = os.pipe(); fcntl.fcntl(r, fcntl.F_SETOWN, os.getpid())
fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK); os.write(w, b"x"); print(len(got))'"""
    assert run(script).out.strip() == "1"


def test_user_namespaces_inside(run, who):
    plain = run(f"cat /proc/sys/user/max_user_namespaces; {NESTED}", check=1)
    assert plain.out.split()[0] == "0"
    assert "not permitted" in plain.err
    # The count alone holds as well, were the call let through.
    alone = run(NESTED, "--allow", "syscall:unshare", check=1)
    assert "No space left" in alone.err, alone.err
    assert "NESTED" in run(NESTED, "--allow", "nesting").out


def test_the_masks_cannot_be_shed(run):
    """A fresh /proc would show what is hidden: the kernel refuses it; and mounts that came from outside are locked."""
    script = """
unshare -Urmpf sh -c 'mount -t proc proc /mnt' && echo FRESH
unshare -Urm sh -c 'umount /proc/keys' && echo UNCOVERED
unshare -Urm sh -c 'mount -o remount,rw,bind /proc/sys' && echo WRITABLE
unshare -Urm sh -c 'mount -t tmpfs x /mnt && echo MOUNTED'
true"""
    assert run(script, "--allow", "nesting").out.split() == ["MOUNTED"]


def test_capabilities_that_are_asked_for(run, who):
    script = "grep -E 'Cap(Inh|Eff|Bnd|Amb)' /proc/self/status | cut -f2"
    found = [int(word, 16) for word in run(script, "--allow", "cap:net_raw").out.split()]
    asked = 1 << 13
    assert found == ([asked] * 4 if who else [0, 0x800404FB | asked, 0x800404FB | asked, 0])
    found = [int(word, 16) for word in run(script, "--deny", "cap:chown").out.split()]
    assert found == ([0] * 4 if who else [0, 0x800404FA, 0x800404FA, 0])


TRACE = """exec python3 -c 'import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.ptrace(0, 0, 0, 0), ctypes.get_errno())'"""


def test_words_about_system_calls(run, layerrun, who):
    assert run(TRACE).out.split() == ["0", "0"]
    for options in (["--deny", "ptrace"], ["--preset", "service"], ["--deny", "syscall:ptrace"]):
        assert run(TRACE, *options).out.split() == ["-1", "1"]
    bad = layerrun("create", "x", "--allow", "syscall:ptrac", user=who, check=2)
    assert "ptrace" in bad.err
    keys = "python3 -c 'import ctypes; print(ctypes.CDLL(None).syscall(250, 1, None))'"
    if os.uname().machine == "x86_64":
        assert run(keys).out.strip() == "-1"
        assert int(run(keys, "--allow", "keyring").out) > 0


SETUID = """
cp /usr/bin/id /var/tmp/id-test && chmod 4755 /var/tmp/id-test
setpriv --reuid 1000 --regid 1000 --clear-groups /var/tmp/id-test -u
grep -E 'NoNewPrivs|Seccomp:' /proc/self/status | cut -f2"""


def test_setuid_programs(run, layerrun, who):
    if who:
        layerrun("create", "x", "--allow", "setuid", user=who, check=0)
        done = layerrun("app", "x", "--", "true", user=who)
        assert done.rc not in {0, 1}
        assert "range of ids" in done.err
        return
    assert run(SETUID).out.split() == ["1000", "1", "2"]
    assert run(SETUID, "--allow", "setuid").out.split() == ["0", "0", "2"]


def test_contrary_words_are_refused(layerrun, who):
    layerrun("create", "x", "--allow", "nesting", "--allow", "cap:sys_admin", user=who, check=0)
    done = layerrun("app", "x", "--", "true", user=who)
    assert done.rc not in {0, 1}
    assert "do not go together" in done.err


def test_every_process_is_confined_alike(run):
    script = "exec python3 -c '" + (
        "import json, os, threading\n"
        'def look(): print(json.dumps([l.split()[1] for l in open("/proc/thread-self/status") '
        'if l.startswith(("NoNewPrivs", "Seccomp:"))]), flush=True)\n'
        "look(); t = threading.Thread(target=look); t.start(); t.join()\n"
        "if os.fork(): os.wait()\nelse: look()'"
    )
    assert [json.loads(line) for line in run(script).out.splitlines()] == [["1", "2"]] * 3
