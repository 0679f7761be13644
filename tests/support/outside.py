"""A machine with a network of its own for a test, and an internet outside of it: the real one stays untouched."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from support.sandbox import wait_for

HERE = pathlib.Path(__file__).parent.parent / "network"
MACHINE, GATEWAY, OUTSIDE = "198.51.100.1", "198.51.100.2", "203.0.113.1"
SETUP = f"""
ip link set lo up
ip link add up0 type veth peer name eth0 netns $OUTSIDE_PID
ip addr add {MACHINE}/24 dev up0
ip link set up0 up
ip route add default via {GATEWAY}
mount -t tmpfs none /run
nsenter -t $OUTSIDE_PID -n sh -ec 'ip link set lo up; ip link set eth0 up
ip addr add {GATEWAY}/24 dev eth0; ip addr add {OUTSIDE}/32 dev lo'
"""


class Machine:
    """A network namespace and a mount namespace in which layerrun runs, and one outside with servers."""

    def __init__(self, layerrun) -> None:
        self.layerrun = layerrun
        self.processes: list[subprocess.Popen] = []
        self.outside = self._holder("-n")
        self.inner = self._holder("-n", "-m", "--propagation", "private")
        env = {**os.environ, "OUTSIDE_PID": str(self.outside.pid)}
        subprocess.run([*self.prefix(), "sh", "-ec", SETUP], env=env, check=True, capture_output=True)

    def _holder(self, *flags: str) -> subprocess.Popen:
        process = subprocess.Popen(["unshare", *flags, "sleep", "infinity"], stdin=subprocess.DEVNULL)
        self.processes.append(process)
        mine = os.readlink("/proc/self/ns/net")
        wait_for(lambda: os.readlink(f"/proc/{process.pid}/ns/net") != mine)
        wait_for(lambda: pathlib.Path(f"/proc/{process.pid}/comm").read_text() == "sleep\n")
        return process

    def prefix(self, *, outside: bool = False) -> list[str]:
        """Return the words that run a command on the machine, or outside."""
        if outside:
            return ["nsenter", "-t", str(self.outside.pid), "-n", "--"]
        return ["nsenter", "-t", str(self.inner.pid), "-n", "-m", "--"]

    def sh(self, script: str, *, outside: bool = False, check: bool = True) -> str:
        """Run a shell script; return what it printed."""
        argv = [*self.prefix(outside=outside), "sh", "-ec", script]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, done.stderr
        return done.stdout.strip()

    def ask(self, address: str, port: int, *, kind: str = "tcp", outside: bool = False) -> str:
        """Return what a server says, as `peer.py` asks; ``no: …`` if it does not answer."""
        argv = [sys.executable, str(HERE / "peer.py"), "ask", kind, address, str(port)]
        argv += [OUTSIDE] if outside else []
        done = subprocess.run([*self.prefix(outside=outside), *argv], capture_output=True, text=True)
        return done.stdout.strip()

    def serve(self, kind: str, address: str, port: int, says: str, *, outside: bool = False) -> None:
        """Run a server that says something to everybody; kind is tcp, udp or dns."""
        argv = [sys.executable, str(HERE / "peer.py"), "serve", kind, address, str(port), says]
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([*self.prefix(outside=outside), *argv], **options)
        self.processes.append(process)
        assert process.stdout.readline() == "up\n"

    def resolver(self, address: str) -> None:
        """Let a server be the machine's resolver."""
        self.sh(
            f"echo nameserver {address} >/run/resolv.conf; mount --bind /run/resolv.conf /etc/resolv.conf"
        )

    def run(self, *words, user=None, check=None, env=None, **options):
        """Run layerrun on the machine and wait."""
        done = subprocess.run(
            [*self.prefix(), *self.layerrun.argv(*words, user=user)],
            env=self.layerrun.env(user, **(env or {})),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            timeout=120,
            **options,
        )
        said = f"{done.stdout}\n{done.stderr}"
        assert check is None or done.returncode == check, f"{words}: status {done.returncode}\n{said}"
        return done

    def start(self, *words, user=None) -> subprocess.Popen:
        """Start layerrun there with a command that says ``up`` and waits for a line."""
        process = subprocess.Popen(
            [*self.prefix(), *self.layerrun.argv(*words, user=user)],
            env=self.layerrun.env(user),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        self.processes.append(process)
        assert process.stdout.readline() == "up\n"
        return process

    def app(self, name, *options, says=None, kind="tcp", port=80, user=None) -> subprocess.Popen:
        """Start a new app whose command serves, or only waits; it ends when its stdin does."""
        self.run("create", name, *options, user=user, check=0)
        command = ["serve", kind, "0.0.0.0", str(port), says] if says else ["wait"]
        return self.start("app", name, "--", "python3", str(self.inner_peer()), *command, user=user)

    def inner_peer(self) -> str:
        """Return where `peer.py` is, for plain users and inside apps over the host."""
        path = os.path.join(self.layerrun.shared, "peer.py")
        if not os.path.exists(path):
            pathlib.Path(path).write_text((HERE / "peer.py").read_text())
            os.chmod(path, 0o644)
        return path

    def inside(self, name, address, port, *, kind="tcp", user=None) -> str:
        """Return what a server says to an app, as `ask`."""
        argv = ["python3", self.inner_peer(), "ask", kind, address, str(port)]
        return self.run("app", name, "--", *argv, user=user, check=0).stdout.strip()

    def left(self) -> list[str]:
        """Return what networks of apps have left on the machine."""
        found = self.sh("ip -o link | grep -o 'layerrun[0-9]*' || true").split()
        found += self.sh("nft list tables").splitlines()
        found += self.sh("ss -Hlntu").splitlines()
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
        net = os.readlink(f"/proc/{self.inner.pid}/ns/net")
        return found + [str(pid) for pid in pids if self._is_pasta(pid, net)]

    @staticmethod
    def _is_pasta(pid: int, net: str) -> bool:
        try:
            comm = pathlib.Path(f"/proc/{pid}/comm").read_text()
            return comm.startswith(("pasta", "passt")) and os.readlink(f"/proc/{pid}/ns/net") == net
        except OSError:
            return False

    def end(self) -> None:
        """End everything."""
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
            process.communicate()
