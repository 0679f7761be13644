"""The session's sockets in an app: what is bound where, and what the programs inside are told. See docs/desktop.md.

Each socket has one place inside, whatever it is called outside, and the variables lead there. What is granted and
is not there is noted (`Plan.lacks`); whether a start may go without it is for the start to say.
"""

from __future__ import annotations

import os
import re
import stat

import attrs

from layerrun.model import IdMode
from layerrun.policy import Grants, NetworkKind, Socket
from layerrun.runtime import bus, xauthority
from layerrun.runtime.plan import Bus, Lack, Plan, Policy
from layerrun.runtime.session import Session

__all__ = ["Desktop"]

# Inside a display has a number that no display of the host has: see _display.
_FIRST_DISPLAY = 1000
_PULSE = "autospawn = no\nenable-shm = no\n"
_NO_DISPLAY = (
    "start it from within a graphical session; without its windows: layerrun edit, --deny socket:KIND"
)


def _is_cookie(path: str) -> bool:
    """Say whether a file is what PulseAudio makes: 256 random bytes."""
    info = os.lstat(path)
    return stat.S_ISREG(info.st_mode) and info.st_size == 256


@attrs.define
class Desktop:
    """Works out the sockets of one start.

    ``ops`` come after the plan's own mounts of /run and /tmp; ``env`` is what is set inside. ``folder`` is the app's
    in the store; with ``make`` what is needed there is written. ``shown``: a display is there.
    """

    plan: Plan
    session: Session
    grants: Grants
    ids: IdMode
    uid: int
    folder: str
    make: bool
    ops: list[tuple[str, ...]] = attrs.field(factory=list)
    env: dict[str, str] = attrs.field(factory=dict)
    shown: bool = False
    bus: Bus | None = None

    @property
    def inside(self) -> str:
        """XDG_RUNTIME_DIR inside."""
        return f"/run/user/{self.uid}"

    def add(self) -> None:
        """Add every socket that is granted."""
        sockets = {socket.kind: socket for socket in self.grants.sockets}
        first = len(self.plan.lacks)
        wayland = "wayland" in sockets and self._wayland()
        if "x11" in sockets or ("fallback-x11" in sockets and not wayland):
            self._x11("x11" if "x11" in sockets else "fallback-x11")
        if self.shown:
            # One display will do, whichever was asked for.
            self.plan.lacks[first:] = [attrs.evolve(lack, asked=False) for lack in self.plan.lacks[first:]]
            self.env["XDG_SESSION_TYPE"] = "wayland" if wayland else "x11"
            self.plan.add("keepenv", "XDG_CURRENT_DESKTOP")
        if "pulse" in sockets:
            self._pulse()
        if "pipewire" in sockets:
            self._pipewire()
        if "session-bus" in sockets:
            self._session_bus(sockets["session-bus"])

    def lack(self, kind: str, why: str, hint: str | None = None) -> None:
        """Note that a socket is not there."""
        asked = any(
            grant.kind == "socket" and grant.value.partition(":")[0] == kind and grant.origin.startswith("--")
            for grant in self.grants.all
        )
        self.plan.lacks.append(Lack("socket", kind, why, asked, hint))

    def _bind(self, source: str, target: str, *, mapped: bool | None = None) -> None:
        """Show a file or a socket of the host at ``target``; its folder is there."""
        if mapped is None:
            # What everybody may write to needs no mapping, and an old tmpfs allows none.
            mapped = stat.S_IMODE(os.stat(source).st_mode) & 0o002 == 0
        words = ["ro", "nosuid", "nodev", "noexec"] + (
            ["idmap"] if mapped and self.ids is IdMode.RANGE else []
        )
        self.ops.append(("file", target, "0600"))
        self.ops.append(("bind", source, target, ",".join(words)))

    def _socket(self, kind: str, source: str, target: str) -> None:
        self._bind(source, target)
        self.plan.note(target, Policy.SHARED, f"the socket {kind}: {source}")

    def _wayland(self) -> bool:
        name, top = self.session.variable("WAYLAND_DISPLAY"), self.session.runtime_dir()
        if top is None and not (name or "").startswith("/"):
            self.lack("wayland", "XDG_RUNTIME_DIR is not set", _NO_DISPLAY)
            return False
        path = os.path.join(top or "", name or "wayland-0")
        source = self.session.socket(path)
        if source is None:
            self.lack("wayland", f"there is no socket {path}", _NO_DISPLAY)
            return False
        self._socket("wayland", source, f"{self.inside}/wayland-0")
        self.env["WAYLAND_DISPLAY"] = "wayland-0"
        self.shown = True
        return True

    def _x11(self, kind: str) -> None:
        display = self.session.variable("DISPLAY")
        if display is None:
            self.lack(kind, "DISPLAY is not set", _NO_DISPLAY)
            return
        local = re.fullmatch(r"(?:unix)?:(\d{1,5})(\.\d{1,3})?", display)
        forwarded = re.fullmatch(r"(?:localhost|127\.0\.0\.1):(\d{1,5})(\.\d{1,3})?", display)
        if local:
            self._display(kind, f"/tmp/.X11-unix/X{local[1]}", local[1], local[2] or "")
        elif display.startswith("/"):
            self._display(kind, display, "0", "")
        elif forwarded and self.grants.network.kind is NetworkKind.HOST:
            self._cookie(forwarded[1], forwarded[1])
            self.env["DISPLAY"], self.shown = display, True
        else:
            self.lack(kind, f"the display {display!r} is not one of this machine")

    def _display(self, kind: str, path: str, number: str, screen: str) -> None:
        """Show a display, under a number that the machine has not.

        libxcb tries the abstract socket of a display's name first, and gives up if that is there and not to be reached
        (Landlock: EPERM). Of this name there is none, so it goes on to the one that is bound.
        """
        source = self.session.socket(path)
        if source is None:
            self.lack(kind, f"there is no socket {path}", _NO_DISPLAY)
            return
        free = self.grants.network.kind is NetworkKind.HOST and self.grants.has("abstract-sockets")
        inside = number if free else str(_FIRST_DISPLAY + int(number))
        self.ops.append(("dir", "/tmp/.X11-unix", "1777"))
        self._socket(kind, source, f"/tmp/.X11-unix/X{inside}")
        self._cookie(number, inside)
        self.env["DISPLAY"], self.shown = f":{inside}{screen}", True

    def _cookie(self, number: str, inside: str) -> None:
        """Give the app the key to this display, and to no other."""
        home = self.session.variable("HOME")
        path = self.session.variable("XAUTHORITY") or (f"{home}/.Xauthority" if home else None)
        if path is None:
            return
        self.plan.seen["file", path] = xauthority.state(path)
        entries = xauthority.entries(path, number)
        if not entries:
            return
        own = os.path.join(self.folder, "xauthority")
        if self.make:
            xauthority.write(own, entries, inside)
        self._bind(own, f"{self.inside}/Xauthority", mapped=True)
        self.env["XAUTHORITY"] = f"{self.inside}/Xauthority"

    def _pulse(self) -> None:
        server, top = self.session.variable("PULSE_SERVER"), self.session.runtime_dir()
        place = self.session.variable("PULSE_RUNTIME_PATH") or (f"{top}/pulse" if top else None)
        if server is None and place is None:
            self.lack("pulse", "neither PULSE_SERVER nor XDG_RUNTIME_DIR is set")
            return
        found = re.fullmatch(r"(?:\{[^}]*\})?(?:unix:)?(/[^ ]*)", server) if server else None
        if server and not found:
            self.lack("pulse", f"the server {server!r} is not one of this machine")
            return
        path = found[1] if found else f"{place}/native"
        source = self.session.socket(path)
        if source is None:
            self.lack("pulse", f"there is no socket {path}")
            return
        self.ops.append(("dir", f"{self.inside}/pulse", "0755"))
        self._socket("pulse", source, f"{self.inside}/pulse/native")
        self.ops.append(("text", f"{self.inside}/pulse/client.conf", "0644", _PULSE))
        self.env["PULSE_SERVER"] = f"unix:{self.inside}/pulse/native"
        self.env["PULSE_CLIENTCONFIG"] = f"{self.inside}/pulse/client.conf"
        home = self.session.variable("HOME")
        cookies = [self.session.variable("PULSE_COOKIE")]
        cookies += [f"{home}/.config/pulse/cookie", f"{home}/.pulse-cookie"] if home else []
        for path in filter(None, cookies):
            # An app that may write to the home could have put a link there, to what it may not read.
            cookie = self.session.real(path)
            if cookie == path and os.access(cookie, os.R_OK) and _is_cookie(cookie):
                self._bind(cookie, f"{self.inside}/pulse/cookie", mapped=True)
                self.env["PULSE_COOKIE"] = f"{self.inside}/pulse/cookie"
                return

    def _pipewire(self) -> None:
        name = self.session.variable("PIPEWIRE_REMOTE") or "pipewire-0"
        top = self.session.variable("PIPEWIRE_RUNTIME_DIR") or self.session.runtime_dir()
        if top is None and not name.startswith("/"):
            self.lack("pipewire", "XDG_RUNTIME_DIR is not set")
            return
        path = os.path.join(top or "", name)
        source = self.session.socket(path)
        if source is None:
            self.lack("pipewire", f"there is no socket {path}")
            return
        self._socket("pipewire", source, f"{self.inside}/pipewire-0")
        self.env["PIPEWIRE_REMOTE"] = "pipewire-0"

    def _session_bus(self, socket: Socket) -> None:
        """Note the bus; its proxy makes the socket, in the app's folder, once a start is due."""
        address = self.session.variable("DBUS_SESSION_BUS_ADDRESS")
        top = self.session.runtime_dir()
        if address is None:
            path = None if top is None else self.session.socket(f"{top}/bus")
            if path is None:
                self.lack("session-bus", "DBUS_SESSION_BUS_ADDRESS is not set")
                return
            address = f"unix:path={path}"
        if not bus.is_installed():
            self.lack("session-bus", f"{bus.PROGRAM} is not installed", f"apt install {bus.PROGRAM}")
            return
        self.bus = Bus(socket, address)
        target = f"{self.inside}/bus"
        mapped = ",idmap" if self.ids is IdMode.RANGE else ""
        self.ops.append(("file", target, "0600"))
        self.ops.append(("bind", os.path.join(self.folder, "bus"), target, f"ro,nosuid,nodev,noexec{mapped}"))
        self.plan.note(target, Policy.SHARED, "the session's bus, through a filter")
        self.env["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={target}"
