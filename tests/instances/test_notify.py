"""systemd's readiness protocol: what a command says reaches whoever manages the launcher, and as the launcher's."""

from __future__ import annotations

import array
import contextlib
import os
import select
import socket
import struct

import pytest
from support import probes

SAY = """
import os, socket, sys
words = [word.encode().decode("unicode_escape").encode("latin-1") for word in sys.argv[1:]]
# become somebody else
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect(os.environ["NOTIFY_SOCKET"])
for word in words:
    s.send(word)
"""


class Manager:
    """A stand-in for systemd's socket: it notes what comes, and from whom."""

    def __init__(self, address, who):
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        if not address.startswith("@") and who:
            os.chown(address, who.uid, who.gid)

    def hear(self, seconds=30.0):
        """Return the next message and the pid of its sender; ``None`` if none comes in time."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return None
        data, ancillary, _, _ = self.socket.recvmsg(8192, 1024)
        pid = None
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                pid = struct.unpack("3i", value)[0]
            elif kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(value)
                for fd in fds:
                    os.close(fd)
                pytest.fail("a descriptor came along")
        return data.decode("latin-1"), pid


@pytest.fixture
def manager(own_folder):
    """A function from who to a manager of theirs; ``abstract``: in the abstract namespace."""
    made = []

    def make(who=None, *, abstract=False):
        folder = own_folder(who)
        name = f"@{folder}" if abstract else f"{folder}/notify"
        made.append(Manager(name, who))
        return made[-1]

    yield make
    for one in made:
        one.socket.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_readiness_comes_from_the_launcher(apps, layerrun, either, manager, abstract):
    boss = manager(either, abstract=abstract)
    layerrun("create", "a", "--network", "none" if abstract else "host", user=either, check=0)
    env = {"NOTIFY_SOCKET": boss.address}
    script = SAY + "sys.stdin.read()"
    for _ in range(2):  # worked out, and again
        run = apps.popen("python3", "-c", script, "READY=1\\nSTATUS=up", user=either, env=env, stdin=-1)
        assert boss.hear() == ("READY=1\nSTATUS=up", run.pid), run.stderr.read() if run.poll() else ""
        run.stdin.close()
        assert run.wait(60) == 0
    # Who has no manager is no worse off, and what is stored is not for a managed start.
    assert apps.run("echo ${NOTIFY_SOCKET-none}", user=either).out == "none\n"
    run = apps.popen("python3", "-c", SAY, "READY=1", user=either, env=env)
    assert boss.hear() == ("READY=1", run.pid)
    assert run.wait(60) == 0


def test_over_a_tree_as_another_user_inside(apps, layerrun, tree, manager):
    boss = manager()
    tree()
    run = apps.popen("sh", "-c", "ls -l $NOTIFY_SOCKET", env={"NOTIFY_SOCKET": boss.address})
    assert run.communicate(timeout=60)[0].startswith("srw-rw-rw-")
    script = SAY.replace("# become somebody else", "os.setgid(33); os.setuid(33)")
    run = apps.popen("python3", "-c", script, "READY=1", app="b", env={"NOTIFY_SOCKET": boss.address})
    assert boss.hear() == ("READY=1", run.pid), run.communicate()


def test_what_is_said_last(apps, manager, either):
    """All of it comes, in order, also what is said just before the end."""
    boss = manager(either)
    words = [
        "READY=1",
        "WATCHDOG=1",
        "RELOADING=1\\nMONOTONIC_USEC=5",
        "STATUS=a=b c",
        "STOPPING=1",
        "X_OWN=7",
    ]
    run = apps.popen("python3", "-c", SAY, *words, user=either, env={"NOTIFY_SOCKET": boss.address})
    wanted = [word.replace("\\n", "\n") for word in words]
    assert [boss.hear()[0] for _ in words] == wanted
    assert run.wait(60) == 0


def test_what_is_not_the_commands_to_say(apps, manager, either):
    boss = manager(either)
    words = [
        "MAINPID=1",
        "FDSTORE=1\\nFDNAME=x",
        "NOTIFYACCESS=all",
        "MAINPID=1\\nREADY=1\\nFDSTORE=1\\n",
        "nonsense",
        "=",
        "\\n\\n",
        " READY=1",
        "READY",
        "a" * 5000 + "\\nREADY=1",
        "STATUS=" + "b" * 4000,
        "STATUS=end",
    ]
    apps.popen("python3", "-c", SAY, *words, user=either, env={"NOTIFY_SOCKET": boss.address})
    heard = []
    while not heard or heard[-1] != "STATUS=end":
        heard.append(boss.hear()[0])
    assert heard == ["READY=1\n", "STATUS=" + "b" * 4000, "STATUS=end"]


def test_descriptors_and_barriers(apps, manager):
    """A barrier is over once what came before it has been passed on; no descriptor reaches the manager."""
    boss = manager()
    script = SAY + (
        "import array\n"
        "r, w = os.pipe()\n"
        "for word in (b'STATUS=with a descriptor', b'BARRIER=1', b'FDSTORE=1'):\n"
        "    s.sendmsg([word], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [w]))])\n"
        "os.close(w)\n"
        "assert os.read(r, 1) == b''\n"
        "print('over')\n"
    )
    run = apps.popen("python3", "-c", script, "READY=1", env={"NOTIFY_SOCKET": boss.address})
    assert run.communicate(timeout=60)[0] == "over\n"
    assert boss.hear()[0] == "READY=1"
    assert boss.hear()[0] == "STATUS=with a descriptor"
    assert boss.hear(0.2) is None


def test_a_manager_that_is_gone(apps, layerrun, either, manager):
    boss = manager(either)
    run = apps.ready(
        "python3", "-c", "print('ready', flush=True); input()\n" + SAY, "READY=1", "STOPPING=1",
        user=either, stdin=-1, env={"NOTIFY_SOCKET": boss.address},
    )  # fmt: skip
    boss.socket.close()
    run.stdin.write("\n")
    run.stdin.close()
    assert run.wait(60) == 0


@pytest.mark.parametrize("value", ["", "x", "@", "vsock:2:1234", "/" + "a" * 200])
def test_an_address_that_is_none(layerrun, value):
    """As a service without layerrun would: it runs, or it says why not."""
    done = layerrun("app", "a", "--", "true", env={"NOTIFY_SOCKET": value})
    if value:
        assert done.rc == 125
        assert "NOTIFY_SOCKET" in done.err
    else:
        assert (done.rc, "Traceback" in done.err) == (0, False)


def test_who_joins_has_no_say(apps, manager, either):
    """The first start's manager is not told what a guest says; a guest's own is not, either."""
    first, second = manager(either), manager(either, abstract=True)
    apps.first(user=either, env={"NOTIFY_SOCKET": first.address})
    guest = apps.popen(
        "sh", "-c", "echo ${NOTIFY_SOCKET-none}", user=either, env={"NOTIFY_SOCKET": second.address}
    )
    assert guest.communicate(timeout=60)[0] == "none\n"
    assert apps.run("echo ${NOTIFY_SOCKET-none}", user=either).out == "none\n"


def test_systemds_own_tool(apps, manager, either):
    probes.need("systemd-notify")
    boss = manager(either)
    run = apps.popen(
        "systemd-notify", "--ready", "--status=it runs", user=either, env={"NOTIFY_SOCKET": boss.address}
    )
    assert run.wait(60) == 0, run.stderr.read()
    message, pid = boss.hear()
    assert sorted(message.splitlines()) == ["READY=1", "STATUS=it runs"]
    assert pid == run.pid


def test_the_watchdog_is_known_inside(layerrun, manager):
    boss = manager()
    env = {"NOTIFY_SOCKET": boss.address, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "12345"}
    out = layerrun(
        "app", "a", "--", "sh", "-c", "echo $WATCHDOG_USEC ${WATCHDOG_PID-none}", env=env, check=0
    ).out
    assert out == "3000000 none\n"
    with contextlib.suppress(BlockingIOError):
        boss.socket.setblocking(False)
        assert not boss.socket.recv(10)
