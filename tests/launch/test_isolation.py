"""What the command can reach: system calls, capabilities, ids, /proc, /dev, /sys. Asked from inside."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess

import pytest
from support import probes, users

# Runs inside. Each answer is an errno, or 0 for "it was let through".
ASK = r'''
import ctypes, fcntl, json, os, struct, sys, termios
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    return ctypes.get_errno() if result == -1 else 0
def status(name):
    return next(line.split(":")[1].strip() for line in open("/proc/self/status") if line.startswith(name + ":"))
def attempt(path, flags):
    try:
        os.close(os.open(path, flags))
        return 0
    except OSError as error:
        return error.errno
def node(path):
    try:
        os.mknod(path, 0o20666, os.makedev(1, 3))
        return 0
    except OSError as error:
        return error.errno
NULL = None
calls = {
    "mount": call(165, b"none", b"/mnt", b"tmpfs", 0, NULL),
    "umount2": call(166, b"/proc", 0),
    "remount": call(165, b"none", b"/", NULL, 32 | 4096, NULL),
    "pivot_root": call(155, b"/", b"/"),
    "setns": call(308, 0, 0),
    "unshare": call(272, 0x10000000),
    "unshare-mount": call(272, 0x20000),
    "unshare-time": call(272, 0x80),
    "clone-user": call(56, 0x10000000 | 17, 0, 0, 0, 0),
    "clone-user-high": call(56, 0x10000000 | 17 | 1 << 40, 0, 0, 0, 0),
    "clone3": call(435, 0, 0),
    "open_tree": call(428, -100, b"/", 1),
    "move_mount": call(429, -100, b"/", -100, b"/", 0),
    "fsopen": call(430, b"tmpfs", 0),
    "fsconfig": call(431, 0, 0, 0, 0, 0),
    "fsmount": call(432, 0, 0, 0),
    "fspick": call(433, -100, b"/", 0),
    "mount_setattr": call(442, -100, b"/", 0, 0, 0),
    "open_tree_attr": call(467, -100, b"/", 1, 0, 0),
    "statmount": call(457, 0, 0, 0, 0),
    "listmount": call(458, 0, 0, 0, 0),
    "open_by_handle_at": call(304, 0, 0, 0),
    "keyctl": call(250, 0, 0),
    "add_key": call(248, b"user", b"x", b"x", 1, -1),
    "request_key": call(249, b"user", b"x", NULL, 0),
    "bpf": call(321, 0, 0, 0),
    "perf_event_open": call(298, 0, 0, 0, 0, 0),
    "userfaultfd": call(323, 0),
    "io_uring_setup": call(425, 1, 0),
    "kexec_load": call(246, 0, 0, 0, 0),
    "init_module": call(175, 0, 0, b""),
    "reboot": call(169, 0, 0, 0, 0),
    "swapon": call(167, b"/x", 0),
    "acct": call(163, NULL),
    "syslog": call(103, 10, 0, 0),
    "pidfd_getfd": call(438, 0, 0, 0),
    "settimeofday": call(164, 0, 0),
    "iopl": call(172, 3),
    "unknown": call(9999),
    "x32": call(0x40000000 | 39),
    "tiocsti": call(16, 0, termios.TIOCSTI, b"x"),
    "tiocsti-high": call(16, 0, termios.TIOCSTI | 1 << 32, b"x"),
    "tioclinux": call(16, 0, 0x541C, b"\2"),
    "mknod": node("/tmp/null"),
}
W = os.O_WRONLY
files = {path: attempt(path, W) for path in """
    /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/drop_caches /proc/sys/kernel/hostname
    /proc/sys/user/max_user_namespaces /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger
    /proc/irq/default_smp_affinity /proc/sys/fs/binfmt_misc/register /proc/kcore /proc/kmsg /proc/mtrr
    /proc/1/mem /proc/1/oom_score_adj""".split()}
READ = "/proc/kcore /proc/1/environ /proc/1/fd /proc/1/exe /dev/kmsg /dev/mem".split()
reads = {path: attempt(path, os.O_RDONLY) for path in READ}
masked = [path for path in ("/proc/keys", "/proc/timer_list") if os.path.exists(path)]
contents = {path: len(open(path, "rb").read(100)) for path in masked}
NAMES = "Seccomp NoNewPrivs CapInh CapPrm CapEff CapBnd CapAmb Uid Gid Groups".split()
print(json.dumps({
    "calls": calls, "write": files, "read": reads, "contents": contents,
    "status": {name: status(name) for name in NAMES},
    "uid_map": open("/proc/self/uid_map").read().split(), "gid_map": open("/proc/self/gid_map").read().split(),
    "setgroups": open("/proc/self/setgroups").read().strip(),
    "dev": sorted(os.listdir("/dev")), "sys": os.listdir("/sys"),
    "shm": os.listdir("/dev/shm"), "mqueue": os.listdir("/dev/mqueue"), "pts": sorted(os.listdir("/dev/pts")),
    "pids": sorted(int(p) for p in os.listdir("/proc") if p.isdecimal()),
    "cgroup": open("/proc/self/cgroup").read(),
    "fork": [s for s in [os.popen("grep -h Seccomp: /proc/self/status").read().split()[-1]]],
}))
'''
EPERM, EACCES, ENOSYS, EROFS, ENOENT = 1, 13, 38, 30, 2
DEVICES = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()


@pytest.fixture
def answers(layerrun, who):
    done = layerrun("app", "a", "--", "python3", "-c", ASK, user=who, check=0)
    return json.loads(done.out)


def test_what_a_command_is_refused(answers, who):
    probes.need("x86-64")  # the numbers of the calls are its own
    allowed = {name: code for name, code in answers["calls"].items() if code not in {EPERM, ENOSYS}}
    assert not allowed
    said_missing = {name for name, code in answers["calls"].items() if code == ENOSYS}
    assert {"clone3", "keyctl", "unknown", "x32"} <= said_missing


def test_what_a_command_sees(answers, who):
    let_through = {
        path: code for path, code in answers["write"].items() if code not in {EPERM, EACCES, EROFS, ENOENT}
    }
    # Masked ones are /dev/null.
    assert set(let_through) <= {"/proc/kcore"}
    for path in ("/proc/1/environ", "/proc/1/fd", "/dev/kmsg", "/dev/mem"):
        assert answers["read"][path] in {EACCES, EPERM, ENOENT}, path
    assert set(answers["contents"].values()) <= {0}
    assert answers["dev"] == DEVICES
    assert answers["sys"] == answers["shm"] == answers["mqueue"] == []
    assert answers["pts"] == ["ptmx"]
    assert answers["pids"][:2] == [1, 2]
    assert len(answers["pids"]) == 2
    assert {line.split(":")[2] for line in answers["cgroup"].splitlines()} == {"/"}


def test_who_a_command_is(answers, who):
    found = answers["status"]
    assert (found["Seccomp"], found["NoNewPrivs"]) == ("2", "1")
    assert answers["fork"] == ["2"]
    assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
    expected = 0 if who else 0x800404FB
    assert {int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {expected}
    inside, outside, count = map(int, answers["uid_map"])
    if who:
        assert (inside, outside, count) == (who.uid, who.uid, 1)
        assert answers["setgroups"] == "deny"
        assert set(found["Uid"].split()) == {str(who.uid)}
    else:
        assert (inside, count) == (0, 65536)
        assert 524288 <= outside < 1878982656
        assert answers["gid_map"] == answers["uid_map"]
        assert set(found["Uid"].split()) == set(found["Gid"].split()) == {"0"}
        assert found["Groups"] == "0" or not found["Groups"]


def test_who_a_command_is_over_a_base(layerrun, tree, who):
    layerrun("base", "import", "small", tree(who), user=who, check=0)
    layerrun("create", "a", "--base", "small", user=who, check=0)
    done = layerrun("app", "a", "--", "sh", "-c", "cat /proc/self/uid_map; id -u", user=who, check=0)
    *lines, uid = done.out.splitlines()
    assert uid == "0"
    maps = [tuple(map(int, line.split())) for line in lines]
    assert all(outside > 0 for _, outside, _ in maps), "host root is mapped"
    assert maps[0][1] == (who.uid if who else maps[0][1])
    if who:
        assert len(maps) == (2 if who.kind == users.PLAIN else 1)


def test_two_apps_have_ranges_of_their_own(layerrun, inside):
    ranges = [int(inside("cat /proc/self/uid_map", app=name).out.split()[1]) for name in ("a", "b", "c")]
    assert sorted(ranges) == ranges
    assert ranges[1] - ranges[0] == ranges[2] - ranges[1] == 65536


def test_owners_outside(layerrun, inside, folder):
    """On disk an app's files have the plain owners; its processes are nobody's root."""
    path = "/var/tmp/layerrun-test-owners"
    inside(f"touch {path} && chown 33:44 {path} && stat -c %u:%g {path}")
    app = json.loads(layerrun("show", "a", "--json").out)["id"]
    found = os.stat(f"{layerrun.store()}/apps/{app}/data/upper{path}")
    assert (found.st_uid, found.st_gid) == (33, 44)


def test_an_app_cannot_read_what_only_the_hosts_root_may(inside, layerrun, folder):
    """As root the app has the files of the base; through /proc it must not reach those of the machine."""
    with open(f"{folder}/secret", "w") as file:
        file.write("secret")
    os.chmod(f"{folder}/secret", 0o600)
    fd = os.open(f"{folder}/secret", os.O_RDONLY)
    try:
        done = layerrun(
            "app", "a", "--hide", "x", "--", "true", pass_fds=[fd]
        )  # no such option: nothing runs
        assert done.rc in {2, 125}
        script = (
            f"for p in /proc/[0-9]*/fd/{fd} /proc/[0-9]*/root/..{folder}/secret; do readlink $p; done; true"
        )
        assert folder not in layerrun("app", "a", "--", "sh", "-c", script, pass_fds=[fd]).out
    finally:
        os.close(fd)


@pytest.mark.compiler
def test_32_bit_calls_are_refused(layerrun, folder, either):
    """int 0x80 speaks to the i386 table, whose numbers are others."""
    source = f"{folder}/int80.c"
    with open(source, "w") as file:
        file.write(
            '#include <errno.h>\nint main(void) { long r; __asm__ volatile("int $0x80" : "=a"(r) : '
            '"a"(20 /* getpid */) : "memory", "r8", "r9", "r10", "r11"); return r == -ENOSYS ? 0 : 1; }\n'
        )
    subprocess.run(["cc", "-static", "-o", f"{folder}/int80", source], check=True)
    assert subprocess.run([f"{folder}/int80"]).returncode == 1, "this kernel has no i386 table"
    layerrun("app", "a", "--", f"{folder}/int80", user=either, check=0)


def test_a_setuid_program_gains_nothing(inside, either):
    """no_new_privs and nosuid: su(1) and the like stay what their caller is."""
    script = "cp /usr/bin/id /var/tmp/id-test; chmod 6755 /var/tmp/id-test; /var/tmp/id-test -u; /var/tmp/id-test -g"
    found = inside(script, either).out.split()
    assert found == ([str(either.uid), str(either.gid)] if either else ["0", "0"])


def test_no_character_reaches_the_callers_terminal(layerrun, either):
    """With a terminal the command has one of its own; TIOCSTI is refused on it, and on /dev/tty."""
    script = (
        "import fcntl, os, termios\n"
        "for fd in (0, os.open('/dev/tty', os.O_RDWR)):\n"
        "    for op in (termios.TIOCSTI,):\n"
        "        try: fcntl.ioctl(fd, op, b'x'); print('LET THROUGH')\n"
        "        except OSError as error: print('errno', error.errno)\n"
    )
    master, slave = pty.openpty()
    argv = [
        "setsid",
        "--ctty",
        "--wait",
        *layerrun.argv("app", "a", "--", "python3", "-c", script, user=either),
    ]
    process = subprocess.Popen(
        argv, env=layerrun.env(either), stdin=slave, stdout=slave, stderr=slave, cwd="/"
    )
    os.close(slave)
    text = b""
    try:
        while chunk := os.read(master, 4096):
            text += chunk
    except OSError:
        pass
    os.close(master)
    assert process.wait(30) == 0
    assert re.findall(rb"errno (\d+)", text) == [b"1", b"1"]


def test_a_planted_device_is_dead(layerrun, inside):
    """What somebody put into the upper from outside is not a device inside."""
    inside("true")
    app = json.loads(layerrun("show", "a", "--json").out)["id"]
    upper = f"{layerrun.store()}/apps/{app}/data/upper"
    os.makedirs(f"{upper}/opt", exist_ok=True)
    os.mknod(f"{upper}/opt/null", 0o20666, os.makedev(1, 3))
    os.chmod(f"{upper}/opt/null", 0o666)
    assert "Permission denied" in inside("echo x >/opt/null", check=2).err


def test_the_overlay_is_nodev_and_the_rest_nosuid(inside, who):
    for line in inside("cat /proc/self/mountinfo", who).out.splitlines():
        fields = line.split()
        target, options = fields[4], fields[5].split(",")
        kind = line.split(" - ")[1].split()[0]
        if not target.startswith("/dev") and fields[3] != "/null":  # a mask of a file is /dev/null
            assert "nodev" in options, line
        if kind != "overlay":
            assert "nosuid" in options, line
        if target == "/sys":
            assert "ro" in options, line


def test_processes_outside_are_out_of_reach(inside, who):
    done = inside(f"kill -0 {os.getpid()}; ls /proc/{os.getpid()}; kill -9 -1; echo still", who, check=None)
    assert "No such process" in done.err
    assert os.getpid() > 0


def test_shared_memory_and_queues_are_its_own(layerrun, inside, either):
    done = subprocess.run(["ipcmk", "-Q"], capture_output=True, text=True, check=True)
    queue = done.stdout.split()[-1]
    try:
        assert queue not in inside("cat /proc/sysvipc/msg", either).out.split()[20:]
        assert len(inside("cat /proc/sysvipc/msg", either).out.splitlines()) == 1
    finally:
        subprocess.run(["ipcrm", "-q", queue], check=True)
