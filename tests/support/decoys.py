"""What is put up outside for somebody inside to reach: sockets, memory, keys, processes, programs, devices."""

from __future__ import annotations

import ctypes
import glob
import os
import shutil
import socket
import subprocess

from support.sandbox import small_tree

# A group that nobody has: the decoy of a disk's or docker's.
GROUP = 42424
SECRET = "layerrun-secret"
ADD_KEY, KEYCTL = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
IPC_CREAT, IPC_RMID = 0o1000, 0


def _syscall(number, *args):
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(
        ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    )
    if result < 0:
        raise OSError(ctypes.get_errno(), f"system call {number}")
    return result


class Decoys:
    """All of them; ``path`` is the folder for those that lie somewhere, ``sources`` that of the programs."""

    def __init__(self, path, sources):
        self.path, self.sources = path, sources
        self.name = f"layerrun-decoy-{os.getpid()}"
        self.sockets = []
        self.listeners = {}

    def put_up(self):
        """Compile the programs and put everything up."""
        self._programs()
        self._sockets()
        self._memory()
        # The key lies in a session keyring of the tests' own process, which every start inherits.
        _syscall(KEYCTL, 1, b"layerrun-test")
        self.key = _syscall(ADD_KEY, b"user", self.name.encode(), b"secret", 6, -3)
        # Whoever possesses the keyring may read the key, whatever their id.
        _syscall(KEYCTL, 5, self.key, 0x3F3F0000)
        self.sleeper = subprocess.Popen(["sleep", "infinity"], stdin=subprocess.DEVNULL)

    def _programs(self):
        flags = ["-std=gnu11", "-D_GNU_SOURCE=", "-O1", "-static"]
        parts = sorted(glob.glob(f"{self.sources}/probe*.c"))
        subprocess.run(["cc", *flags, "-o", f"{self.path}/probe", *parts], check=True)
        self.i386 = os.uname().machine == "x86_64"
        if self.i386:
            flags = ["-m32", "-nostdlib", "-static", "-no-pie"]
            subprocess.run(["cc", *flags, "-o", f"{self.path}/i386", f"{self.sources}/i386.S"], check=True)
        for name in ("setuid", "capable"):
            shutil.copy(f"{self.path}/probe", f"{self.path}/{name}")
        os.chmod(f"{self.path}/setuid", 0o6755)
        subprocess.run(["setcap", "cap_net_raw,cap_sys_admin+ep", f"{self.path}/capable"], check=True)
        self._nodes(self.path)
        with open(f"{self.path}/grouped", "w") as file:
            file.write(SECRET)
        os.chown(f"{self.path}/grouped", 0, GROUP)
        os.chmod(f"{self.path}/grouped", 0o640)

    @staticmethod
    def _nodes(folder):
        os.mknod(f"{folder}/char", 0o20666, os.makedev(1, 3))
        os.mknod(f"{folder}/block", 0o60666, os.makedev(7, 0))
        for name in ("char", "block"):
            os.chmod(f"{folder}/{name}", 0o666)

    def _listen(self, address, family=socket.AF_UNIX, kind=socket.SOCK_STREAM):
        one = socket.socket(family, kind)
        one.bind(address)
        if kind == socket.SOCK_STREAM:
            one.listen(64)
        self.sockets.append(one)
        return one

    def _sockets(self):
        self._listen(f"\0{self.name}")
        self._listen(f"\0{self.name}d", kind=socket.SOCK_DGRAM)
        self.port = self._listen(("127.0.0.1", 0), socket.AF_INET).getsockname()[1]
        self.in_tmp = f"/tmp/{self.name}"
        for path in (f"{self.path}/socket", self.in_tmp):
            self._listen(path)
            os.chmod(path, 0o777)

    def _memory(self):
        libc = ctypes.CDLL(None, use_errno=True)
        self.shm_key = 0x4C520000 | os.getpid() & 0xFFFF
        self.shm = libc.shmget(self.shm_key, 4096, IPC_CREAT | 0o666)
        assert self.shm >= 0, os.strerror(ctypes.get_errno())
        with open(f"/dev/shm/{self.name}", "w") as file:
            file.write(SECRET)
        os.chmod(f"/dev/shm/{self.name}", 0o666)
        self.queue = libc.mq_open(f"/{self.name}".encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
        assert self.queue >= 0, os.strerror(ctypes.get_errno())

    def take_down(self):
        """Remove what lies outside of the folder."""
        libc = ctypes.CDLL(None)
        for one in self.sockets:
            one.close()
        os.unlink(self.in_tmp)
        libc.shmctl(self.shm, IPC_RMID, None)
        os.unlink(f"/dev/shm/{self.name}")
        os.close(self.queue)
        libc.mq_unlink(f"/{self.name}".encode())
        _syscall(KEYCTL, 21, self.key)  # invalidate
        self.sleeper.kill()
        self.sleeper.wait()

    def tree(self, user):
        """Return a root file system of ``user``'s with the probe in it, to be imported."""
        root = f"{self.path}/tree"
        small_tree(root)
        for name in ("probe", "tmp", "var/tmp"):
            os.makedirs(f"{root}/{name}")
        for name in ("probe", *(["i386"] if self.i386 else [])):
            shutil.copy(f"{self.path}/{name}", f"{root}/probe/{name}")
        subprocess.run(["chown", "-Rh", f"{user.uid}:{user.gid}", root], check=True)
        return root

    def plant(self, upper, user):
        """Put devices, and setuid programs of other ids, into the upper of an app over a base of ``user``'s."""
        if user is None:
            return  # over the machine's / they are there
        with open("/etc/subuid") as file:
            start = next(int(line.split(":")[1]) for line in file if line.startswith(f"{user.name}:"))
        os.makedirs(f"{upper}/probe")
        os.chown(f"{upper}/probe", user.uid, user.gid)
        self._nodes(f"{upper}/probe")
        for name in ("setuid", "capable"):
            shutil.copy(f"{self.path}/{name}", f"{upper}/probe/{name}")
            os.chown(f"{upper}/probe/{name}", start + 1000, start + 1000)
        os.chmod(f"{upper}/probe/setuid", 0o6755)
        subprocess.run(["setcap", "cap_net_raw+ep", f"{upper}/probe/capable"], check=True)
        shutil.copy(f"{self.path}/grouped", f"{upper}/probe/grouped")
        os.chown(f"{upper}/probe/grouped", user.uid + 1 if user.uid < 2**31 else 0, GROUP)
        os.chmod(f"{upper}/probe/grouped", 0o640)

    def words(self, inside):
        """Return the words that tell the probe of all this; ``inside`` says where a file lies for it."""
        files = ("setuid", "capable", "char", "block", "grouped", *(["i386"] if self.i386 else []))
        words = {name: inside(name) for name in files}
        words |= {
            "pid": self.sleeper.pid,
            "pidns": os.readlink("/proc/self/ns/pid"),
            "key": self.name,
            "keyid": self.key,
            "port": self.port,
            "abstract": self.name,
            "socket": f"{self.path}/socket",
            "socket2": self.in_tmp,
            "shm": self.shm_key,
            "name": self.name,
        }
        return [f"{key}={value}" for key, value in words.items()]

    def in_surroundings(self, run, user):
        """Call ``run`` with options of `subprocess.run` for odd surroundings: descriptors 3 to 200, a group more."""
        opened = [
            os.open(self.path, os.O_RDONLY),
            os.open("/", os.O_PATH),
            os.open("/etc/hostname", os.O_RDONLY),
        ]
        wanted = range(3, 200)
        taken = {int(name) for name in os.listdir("/proc/self/fd")}
        made = [fd for fd in wanted if fd not in taken]
        for fd in made:
            os.dup2(opened[fd % 3], fd, inheritable=True)
        options = {"pass_fds": sorted(set(made) | set(opened))}
        if user:
            setpriv = ["setpriv", "--reuid", user.name, "--regid", str(user.gid), "--groups", str(GROUP)]
            options["prefix"] = [*setpriv, "--inh-caps=-all"]
        else:
            options["extra_groups"] = [GROUP]
        try:
            return run(options)
        finally:
            for fd in {*made, *opened}:
                os.close(fd)
