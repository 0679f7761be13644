"""A virtual machine with control groups of version 2: Debian's kernel in qemu, without KVM."""

from __future__ import annotations

import fcntl
import glob
import lzma
import os
import shutil
import subprocess
import sys
import sysconfig

import layerrun
from support.reach import CACHE

_PROGRAMS = (
    "bash sh cat cp dd echo env head id ls mkdir mount sleep stat sync tail touch true umount python3 mke2fs setpriv "
    "unshare losetup dmesg grep chown date"
).split()
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_MODULES = "virtio_pci virtio_blk loop overlay".split()
_INIT = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void)
{
    char line[256];
    FILE *list = fopen("/modules", "r");
    while (fgets(line, sizeof line, list)) {
        for (char *at = line; *at; at++)
            if (*at == '\n')
                *at = 0;
        int fd = open(line, O_RDONLY);
        if (syscall(SYS_finit_module, fd, "", 0))
            perror(line);
        close(fd);
    }
    mount("dev", "/dev", "devtmpfs", 0, "");
    for (int i = 0; i < 100 && access("/dev/vda", F_OK); i++)
        usleep(50000);
    if (mount("/dev/vda", "/root", "ext4", 0, ""))
        perror("mount the disk");
    mount("dev", "/root/dev", "devtmpfs", 0, "");
    mount("proc", "/root/proc", "proc", 0, "");
    mount("sys", "/root/sys", "sysfs", 0, "");
    mount("cgroup2", "/root/sys/fs/cgroup", "cgroup2", 0, "");
    mount("tmp", "/root/run", "tmpfs", 0, "");
    chdir("/root");
    mount(".", "/", NULL, MS_MOVE, NULL);
    chroot(".");
    chdir("/");
    if (!fork()) {
        char *argv[] = {"/bin/bash", "/guest", NULL};
        char *env[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", NULL};
        execve(argv[0], argv, env);
        perror("bash");
        _exit(1);
    }
    while (wait(NULL) > 0)
        ;
    sync();
    reboot(RB_POWER_OFF);
}
"""


_SOURCE = "deb [signed-by={key}] http://deb.debian.org/debian bookworm-backports main\n"
_KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"


def _apt(folder, *words):
    options = {
        "Dir::Etc::SourceList": f"{folder}/source",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State::Lists": f"{folder}/lists",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Sandbox::User": "root",
    }
    said = [f"-o{key}={value}" for key, value in options.items()]
    done = subprocess.run(
        [words[0], *said, *words[1:]], cwd=folder, capture_output=True, text=True, check=True, timeout=300
    )
    return done.stdout


def _fetch(folder):
    """Unpack a kernel of Debian's backports: that of bookworm itself is too old for overlays by descriptor."""
    os.makedirs(f"{folder}/lists/partial")
    with open(f"{folder}/source", "w") as file:
        file.write(_SOURCE.format(key=_KEY))
    _apt(folder, "apt-get", "-q", "update")
    names = _apt(folder, "apt-cache", "depends", "linux-image-cloud-amd64/bookworm-backports")
    name = next(line.split()[-1] for line in names.splitlines() if "Depends: linux-image-" in line)
    _apt(folder, "apt-get", "-q", "download", f"{name}/bookworm-backports")
    package = glob.glob(f"{folder}/{name}_*.deb")[0]
    subprocess.run(["dpkg-deb", "-x", package, f"{folder}/tree"], check=True)
    os.unlink(package)
    release = os.path.basename(glob.glob(f"{folder}/tree/boot/vmlinuz-*")[0]).removeprefix("vmlinuz-")
    subprocess.run(["depmod", "-b", f"{folder}/tree", release], check=True)


def kernel():
    """Return the folder with the machine's kernel; it is fetched once, and kept."""
    folder = f"{CACHE}/kernel"
    os.makedirs(CACHE, exist_ok=True)
    with open(f"{CACHE}/kernel.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not glob.glob(f"{folder}/tree/lib/modules/*/modules.dep"):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            _fetch(folder)
    return f"{folder}/tree"


def _libraries(files):
    found = set()
    for path in files:
        done = subprocess.run(["ldd", path], capture_output=True, text=True, check=False)
        found |= {word for word in done.stdout.split() if word.startswith("/")}
    return found


def _stage(top):
    """Fill a folder with what the guest runs: this machine's files, by the paths that they have here."""
    usr = os.path.realpath("/bin") == "/usr/bin"
    for (
        name
    ) in "dev proc sys run tmp etc root var/tmp var/lib srv boot usr/bin usr/sbin usr/lib usr/lib64".split():
        os.makedirs(f"{top}/{name}", exist_ok=True)
    if usr:
        for name in ("bin", "sbin", "lib", "lib64"):
            os.symlink(f"usr/{name}", f"{top}/{name}")
    programs = [os.path.realpath(shutil.which(name, path=_PATH)) for name in _PROGRAMS]
    stdlib = sysconfig.get_path("stdlib")
    here = os.path.dirname(os.path.dirname(os.path.abspath(layerrun.__file__)))
    site = sysconfig.get_path("purelib")
    trees = [stdlib, f"{here}/layerrun", *(f"{site}/{name}" for name in ("click", "attr", "attrs"))]
    backend = glob.glob(f"{site}/_cffi_backend*") + glob.glob(f"{site}/cffi")
    door = os.path.join(os.path.dirname(sys.executable), "layerrun")
    names = [shutil.which(name, path=_PATH) for name in _PROGRAMS]
    files = [*names, *programs, *backend, door, "/etc/passwd", "/etc/group"]
    prctl = glob.glob(f"{site}/*prctl*")
    venv = os.path.dirname(os.path.dirname(sys.executable))
    loose = [
        *glob.glob(f"{site}/__editable__*.pth"),
        *glob.glob(f"{site}/*layerrun*.pth"),
        *glob.glob(f"{site}/*.py"),
        f"{venv}/pyvenv.cfg",
        *glob.glob(f"{venv}/bin/python*"),
        *prctl,
    ]
    binaries = [
        *programs,
        door,
        *glob.glob(f"{stdlib}/lib-dynload/*.so"),
        *glob.glob(f"{here}/layerrun/native/*.so"),
    ]
    files += sorted(_libraries(binaries + [path for path in backend if path.endswith(".so")]))
    left_out = [f"--exclude={name}" for name in ("__pycache__", "test", "config-3*")]
    names = sorted({path.lstrip("/") for path in [*files, *trees, *loose]})
    subprocess.run(
        ["tar", "-C", "/", *left_out, "-cf", f"{top}.tar", *names], check=True, capture_output=True
    )
    # What names a library by a path through /lib is put where that leads.
    subprocess.run(["tar", "-C", top, "--keep-directory-symlink", "-xf", f"{top}.tar"], check=True)
    links = {path: os.path.realpath(path) for path in files if os.path.islink(path)}
    for real in links.values():
        os.makedirs(os.path.dirname(top + real), exist_ok=True)
        shutil.copy2(real, top + real)


def _cpio(entries):
    """Return an archive of (name, mode, data), cpio newc."""
    out = b""
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")]):
        fields = (number + 1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4)
    return out


def _modules():
    tree, found = kernel(), []
    release = os.listdir(f"{tree}/lib/modules")[0]
    for name in _MODULES:
        done = subprocess.run(
            ["modprobe", "-d", tree, "-S", release, "--show-depends", name],
            capture_output=True,
            text=True,
            check=False,
        )
        for line in done.stdout.splitlines():
            if line.startswith("insmod ") and line.split()[1] not in found:
                found.append(line.split()[1])
    assert found, "the kernel has no modules"
    return found


def make(folder):
    """Make what `run` needs, in a folder."""
    top = f"{folder}/top"
    os.mkdir(top)
    _stage(top)
    with open(f"{folder}/init.c", "w") as file:
        file.write(_INIT)
    subprocess.run(
        ["gcc", "-static", "-O1", "-o", f"{folder}/init", f"{folder}/init.c"], check=True, capture_output=True
    )
    entries = [(name, 0o40755, b"") for name in ("dev", "root", "m")]
    paths = _modules()
    names = [f"/m/{number}-{os.path.basename(path)}" for number, path in enumerate(paths)]
    for name, path in zip(names, paths, strict=True):
        with open(path, "rb") as file:
            data = file.read()
        entries.append((name[1:], 0o100644, lzma.decompress(data) if path.endswith(".xz") else data))
    entries.append(("modules", 0o100644, "".join(f"{name}\n" for name in names).encode()))
    with open(f"{folder}/init", "rb") as file:
        entries.append(("init", 0o100755, file.read()))
    with open(f"{folder}/initrd", "wb") as file:
        file.write(_cpio(entries))


def run(folder, script, *, timeout):
    """Run a bash script as pid 1's child in the machine; return what it wrote to the console."""
    with open(f"{folder}/top/guest", "w") as file:
        file.write(script)
    disk = f"{folder}/disk"
    if os.path.exists(disk):
        os.unlink(disk)
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-d", f"{folder}/top", disk, "1G"],
        check=True,
        capture_output=True,
    )
    # Without cx16: qemu 7.2 translates that instruction wrongly.
    words = (
        "-accel tcg,thread=multi -cpu max,-cx16 -m 768 -smp 2 -nographic -no-reboot -nodefaults -serial stdio"
    )
    options = {
        "-kernel": glob.glob(f"{kernel()}/boot/vmlinuz-*")[0],
        "-initrd": f"{folder}/initrd",
        "-append": "console=ttyS0 quiet panic=-1 mitigations=off",
        "-drive": f"file={disk},format=raw,if=virtio,cache=unsafe",
    }
    done = subprocess.run(
        ["qemu-system-x86_64", *words.split(), *(word for item in options.items() for word in item)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    return done.stdout.decode(errors="replace").replace("\r", "")
