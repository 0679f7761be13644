"""Limits by the control group, in a machine that has one: this kernel may have none, or only version 1."""

from __future__ import annotations

import os
import re
import sys

import pytest
from support import machine, probes

# Root's apps without a user namespace: with one they need a newer kernel than the machine has.
SCRIPT = r"""
exec >/dev/ttyS0 2>&1
export LAYERRUN_STORE=/var/lib/store
L=LAYERRUN
G=/sys/fs/cgroup
say() { echo "== $*"; }

$L create web --no-userns --limit memory=64M --limit swap=0 --limit pids=20 --limit cpu=0.5 --limit io=1M
$L app web -- /bin/bash -c '
say() { echo "== $*"; }
sleep 1000 & other=$!
python3 -c "b = bytearray(128 << 20)"; say hog $?
kill -0 $other; say other $?
kill $other
python3 -c "
import os, time
n = 0
try:
    while n < 40:
        if not os.fork():
            time.sleep(30)
            os._exit(0)
        n += 1
except BlockingIOError:
    pass
print(\"== forks\", n)
os.kill(-1, 9)
"
'
say controllers $(cat $G/cgroup.subtree_control)
for file in memory.max memory.swap.max pids.max cpu.max io.max; do say $file $(cat $G/layerrun-*/$file); done
$L app web -- /bin/bash -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'
say throttled $(grep nr_throttled $G/layerrun-*/cpu.stat)
start=$(date +%s)
$L app web -- dd if=/dev/zero of=/var/tmp/big bs=64K count=64 oflag=direct
say seconds $(( $(date +%s) - start ))

# A group that was handed over to a plain user, who is in it.
mkdir $G/delegated $G/delegated/session
python3 -c "import os; os.setxattr('$G/delegated/session', 'user.delegate', b'1')"
echo '+memory +pids +cpu' >$G/cgroup.subtree_control
echo '+memory +pids +cpu' >$G/delegated/cgroup.subtree_control
chown 1000:1000 $G/delegated $G/delegated/session $G/delegated/*/cgroup.procs $G/delegated/cgroup.procs \
    $G/delegated/*/cgroup.subtree_control $G/delegated/cgroup.subtree_control
mkdir -p /home/user; chown 1000:1000 /home/user
echo 'user:x:1000:1000::/home/user:/bin/bash' >>/etc/passwd
cat >/user <<'END'
say() { echo "== $*"; }
export LAYERRUN_STORE=/home/user/store HOME=/home/user
$L create mine --limit memory=64M --limit pids=20
$L app mine -- /bin/bash -c 'python3 -c "b = bytearray(128 << 20)"; echo "== user hog $?"'
say user memory.max $(cat /sys/fs/cgroup/delegated/session/layerrun-*/memory.max)
END
export L
(echo $BASHPID >$G/delegated/session/cgroup.procs; exec setpriv --reuid 1000 --regid 1000 --clear-groups bash /user)
say end
"""


@pytest.mark.long
def test_the_control_group_holds_them(folder):
    probes.need("root")
    machine.make(folder)
    program = os.path.join(os.path.dirname(sys.executable), "layerrun")
    out = machine.run(folder, SCRIPT.replace("LAYERRUN\n", f"{program}\n", 1), timeout=400)
    seen = dict(re.findall(r"^== (user \S+|\S+) ?(.*)$", out, re.MULTILINE))
    assert "end" in seen, out
    assert {"memory", "pids", "cpu", "io"} <= set(seen["controllers"].split()), out
    assert (seen["memory.max"], seen["memory.swap.max"], seen["pids.max"]) == (str(64 << 20), "0", "20")
    assert seen["cpu.max"] == "50000 100000"
    assert "rbps=1048576 wbps=1048576" in seen["io.max"]
    assert seen["hog"] == "137", out
    assert seen["other"] == "0", out
    assert 10 < int(seen["forks"]) < 20, out
    assert int(seen["throttled"].split()[1]) > 0, out
    assert int(seen["seconds"]) >= 3, out  # 4 MiB at 1 MiB a second
    assert seen["user hog"] == "137", out
    assert seen["user memory.max"].split()[0] == str(64 << 20), out
