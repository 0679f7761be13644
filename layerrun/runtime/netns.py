"""Network namespaces as root makes them: one that belongs to the machine's user namespace, and what is set in it."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from layerrun.errors import LaunchError
from layerrun.native.syscalls import CLONE_NEWNET, setns, unshare

__all__ = ["inside", "make", "set_sysctls"]

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1
_OWN = "/proc/thread-self/ns/net"
# A new namespace copies much from the machine's own. Nothing is routed through an app; and an app's root, who is nobody
# out here, may listen below 1024 and ping.
_SYSCTLS = {
    "ipv4/ip_forward": "0",
    "ipv4/ip_unprivileged_port_start": "0",
    "ipv4/ping_group_range": "0 2147483647",
    "ipv6/conf/all/disable_ipv6": "0",
}


@contextmanager
def inside(fd: int) -> Iterator[None]:
    """Be in another network namespace, with this thread alone. Sockets that are opened there stay there."""
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(own, CLONE_NEWNET)
    finally:
        os.close(own)


def set_sysctls(values: Mapping[str, str]) -> None:
    """Set parameters of the current network namespace, by their paths beneath /proc/sys/net; some kernels lack some."""
    for name, value in values.items():
        try:
            with open(f"/proc/sys/net/{name}", "r+", encoding="ascii") as file:
                if file.read().split() != value.split():
                    file.seek(0)
                    file.write(value)
        except FileNotFoundError:
            pass


def _loopback_up() -> None:
    import fcntl
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        # struct ifreq of netdevice(7)
        fcntl.ioctl(one, _SIOCSIFFLAGS, struct.pack("16sH14x8x", b"lo", _IFF_UP))


def make() -> int:
    """Make a network namespace and return its descriptor; its loopback is up. Raises `LaunchError`."""
    own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
    try:
        unshare(CLONE_NEWNET)
        try:
            set_sysctls(_SYSCTLS)
            _loopback_up()
            return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        finally:
            setns(own, CLONE_NEWNET)
    except OSError as error:
        hint = None
        if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
            hint = "in a container this takes CAP_SYS_ADMIN, CAP_NET_ADMIN and a /proc/sys/net that can be written"
        elif error.errno == errno.ENOSPC:
            hint = "a limit is reached: see sysctl user.max_net_namespaces"
        raise LaunchError(f"cannot make a network namespace: {error.strerror}", hint=hint) from None
    finally:
        os.close(own)
