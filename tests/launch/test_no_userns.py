"""--no-userns: as root without a user namespace. The layer catches every write; the rest is said to be no jail."""

from __future__ import annotations

import json
import os
import pathlib

import pytest

pytestmark = pytest.mark.root
WARNING = "an undo, not a jail"


def test_an_app_without_a_user_namespace(layerrun, folder):
    done = layerrun("app", "a", "--no-userns", "--", "sh", "-c", "cat /proc/self/uid_map; id -u", check=0)
    assert done.out.split() == ["0", "0", "4294967295", "0"]
    assert WARNING in done.err
    assert WARNING in layerrun("app", "a", "--", "true", check=0).err
    assert WARNING in layerrun("app", "a", "--", "true", check=0).err, "said at every start"
    assert json.loads(layerrun("show", "a", "--json", check=0).out)["ids"] == "none"


def test_the_hosts_files_are_unharmed(layerrun, folder):
    kept = pathlib.Path(folder, "kept")
    kept.write_text("host\n")
    kept.chmod(0o600)
    before = kept.stat()
    script = f"echo app >{kept}; chmod 777 {kept}; rm /etc/hostname; touch {folder}/new; cat {kept}"
    assert layerrun("app", "a", "--no-userns", "--", "sh", "-c", script, check=0).out == "app\n"
    assert kept.read_text() == "host\n"
    after = kept.stat()
    assert (after.st_mode, after.st_ino, after.st_ctime_ns) == (
        before.st_mode,
        before.st_ino,
        before.st_ctime_ns,
    )
    assert not os.path.exists(f"{folder}/new")
    assert os.path.exists("/etc/hostname")
    assert layerrun("app", "a", "--", "cat", kept, check=0).out == "app\n"
    letters = {line.split()[-1]: line.split()[0] for line in layerrun("diff", "a", check=0).out.splitlines()}
    assert letters[str(kept)] == "M"
    assert letters["/etc/hostname"] == "D"


def test_a_try(layerrun):
    done = layerrun("try", "--no-userns", "-n", "--", "sh", "-c", "echo x >/etc/layerrun-test", check=0)
    assert WARNING in done.err
    assert "/etc/layerrun-test" in done.out
    assert not os.path.exists("/etc/layerrun-test")
    assert layerrun("try", "--no-userns", "--", "true", check=0).out == ""


def test_the_machine_is_out_of_reach(layerrun):
    """Real root opens these by plain permission: they are read-only mounts, or covered."""
    paths = """/proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe /proc/sys/vm/drop_caches
        /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/mm/ksm/run
        /sys/power/state /proc/1/mem""".split()
    script = (
        'for p; do if (: >"$p") 2>/dev/null; then echo "$p"; fi; done;'
        "head -c1 /proc/kmsg | wc -c; wc -c </proc/kpagecount; find /dev -type b"
    )
    done = layerrun("app", "a", "--no-userns", "--", "sh", "-c", script, "sh", *paths, check=0)
    assert done.out.split() == ["0", "0"]


def test_capabilities_are_few(layerrun):
    script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status"
    done = layerrun("app", "a", "--no-userns", "--", "sh", "-c", script, check=0)
    found = dict(line.split(":\t") for line in done.out.splitlines())
    assert found["NoNewPrivs"] == "1"
    assert found["Seccomp"] == "2"
    assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
    assert {int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0x800404FB}


def test_what_is_refused_inside(layerrun):
    script = (
        "mount -t tmpfs x /mnt; umount /proc/sys; unshare -m true; mknod /tmp/x c 1 3; mount -o remount,rw /proc/sys;"
        f"kill -0 {os.getpid()}; ls {layerrun.store()}"
    )
    done = layerrun("app", "a", "--no-userns", "--", "sh", "-c", script, check=0)
    assert done.out == ""
    assert done.err.count("ermission denied") + done.err.count("not permitted") >= 4
    assert "No such process" in done.err


def test_over_a_base(layerrun, tree):
    made = tree()
    layerrun("base", "import", "small", made, check=0)
    done = layerrun("create", "a", "--base", "small", "--no-userns", check=0)
    assert WARNING in done.err
    assert (
        layerrun("app", "a", "--", "sh", "-c", "echo x >/etc/x; cat /etc/base /etc/x", check=0).out
        == "base\nx\n"
    )
    layerrun("base", "verify", "small", check=0)


def test_it_is_for_new_apps_of_root(layerrun, plain_user):
    layerrun("create", "a", check=0)
    done = layerrun("app", "a", "--no-userns", "--", "true", check=2)
    assert "new app" in done.err
    layerrun("create", "b", "--no-userns", "--ids", "range", check=2)
    done = layerrun("app", "a", "--no-userns", "--", "true", user=plain_user, check=2)
    assert "root only" in done.err
    assert layerrun("list", user=plain_user, check=0).out == ""
    layerrun("try", "--no-userns", "--", "true", user=plain_user, check=2)


@pytest.mark.parametrize("ids", ["self", "single", "subids"])
def test_the_machines_root_is_never_mapped(layerrun, ids):
    assert "plain users" in layerrun("create", "a", "--ids", ids, check=2).err
    assert layerrun("list", check=0).out == ""
