"""Devices of the host in an app's own /dev: which nodes, and what of /sys their drivers' libraries look at."""

from __future__ import annotations

import os
import stat

import attrs

from layerrun.errors import UsageError
from layerrun.model import IdMode
from layerrun.policy import DEVICES, Grants
from layerrun.runtime.plan import Lack, Plan, Policy
from layerrun.runtime.session import Session

__all__ = ["Devices"]

# Folders are shown whole where the host's permissions hold: what is plugged in later is seen.
_FOLDERS = {"dri": "/dev/dri", "input": "/dev/input", "sound": "/dev/snd", "usb": "/dev/bus/usb"}
_NODES = {"fuse": "/dev/fuse", "kvm": "/dev/kvm", "tun": "/dev/net/tun"}
_VIDEO = ("video", "media")
# In every sandbox's /dev anyway, csrc/mounts.c.
_COMMON = {f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx")}


def _is_device(path: str) -> bool:
    mode = os.lstat(path).st_mode
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


@attrs.define
class Devices:
    """Works out the devices of one start. ``ops`` come behind the plan's /dev, ``sys`` are entries of its /sys."""

    plan: Plan
    session: Session
    grants: Grants
    ids: IdMode
    ops: list[tuple[str, ...]] = attrs.field(factory=list)
    sys: list[tuple[str, ...]] = attrs.field(factory=list)

    def add(self) -> None:
        """Add every device that is granted. Raises `UsageError` for a path that is no device."""
        for grant in self.grants.all:
            if grant.kind != "device":
                continue
            asked = grant.origin.startswith("--")
            if not self._one(grant.value):
                where = "it" if grant.value.startswith("/") else DEVICES[grant.value].rpartition(": ")[2]
                lack = Lack("device", grant.value, f"{where} is not there", asked, "see ls -l /dev")
                self.plan.lacks.append(lack)

    def _one(self, value: str) -> bool:
        if value in _FOLDERS:
            return self._folder(value, _FOLDERS[value])
        if value == "video":
            names = [name for name in self.session.listing("/dev") if name.rstrip("0123456789") in _VIDEO]
            found = [self._node(f"/dev/{name}") for name in names if name[-1].isdecimal()]
            return any(found)
        path = _NODES.get(value, value)
        if path in _COMMON:
            return True
        real = self.session.real(path)
        if real is None:
            return False
        if real != path:
            raise UsageError(
                f"the device {path!r} is, or lies behind, a symbolic link to {real!r}",
                hint=f"a device is granted by its own name: --device {real}",
            )
        if not _is_device(path):
            known = next((name for name, folder in _FOLDERS.items() if folder == path), None)
            hint = (
                f"--device {known}"
                if known
                else "--device takes a device node, or one of: " + ", ".join(DEVICES)
            )
            raise UsageError(f"{path!r} is no device", hint=hint)
        return self._node(path)

    def _node(self, path: str) -> bool:
        if not _is_device(path):
            return False
        self.ops.append(("device", path, path, "try"))
        self.plan.note(path, Policy.SHARED, "a device")
        return True

    def _folder(self, name: str, path: str) -> bool:
        if self.session.real(path) != path or not os.path.isdir(path):
            return False
        if self.ids is IdMode.RANGE:
            # Mapped ids reach no node of the host's: each gets one of its own, see csrc/devices.c.
            found = [self._node(node) for node in self._nodes(path)]
            if not any(found):
                return False
        else:
            parts = path.split("/")
            self.ops += [("dir", "/".join(parts[:i]), "0755") for i in range(3, len(parts) + 1)]
            self.ops.append(("bind", path, path, "ro,nosuid,noexec"))
            self.plan.note(path, Policy.SHARED, f"the devices {name}")
        if name == "dri":
            self._drm(path)
        return True

    def _nodes(self, folder: str) -> list[str]:
        found = []
        for name in self.session.listing(folder):
            path = f"{folder}/{name}"
            if os.path.isdir(path) and not os.path.islink(path):
                found += self._nodes(path)
            elif not os.path.islink(path):
                found.append(path)
        return found

    def _drm(self, folder: str) -> None:
        """Show what libdrm asks of /sys to tell a card: its entry by number, and the folder of the device it is on."""
        shown: set[str] = set()
        for name in self.session.listing(folder):
            path = f"{folder}/{name}"
            if os.path.islink(path) or not _is_device(path):
                continue
            number = os.lstat(path).st_rdev
            link = f"/sys/dev/char/{os.major(number)}:{os.minor(number)}"
            entry = self.session.real(link)
            device = self.session.real(f"{link}/device")
            if entry is None or device is None:
                continue
            self._sys_link(os.readlink(link), link)
            if device not in shown:
                shown.add(device)
                self._sys_folder(device)
                self.sys.append(("bind", device, device, "ro,nosuid,nodev,noexec"))

    def _sys_folder(self, path: str) -> None:
        parts = path.split("/")
        for i in range(3, len(parts) + 1):
            op = ("dir", "/".join(parts[:i]), "0755")
            if op not in self.sys:
                self.sys.append(op)

    def _sys_link(self, text: str, path: str) -> None:
        self._sys_folder(os.path.dirname(path))
        self.sys.append(("symlink", text, path))
