"""What a program over an imported base finds of the host's taste: time zone, language, fonts, themes, icons.

Over the host itself all of it is there anyway. See docs/desktop.md.
"""

from __future__ import annotations

import os
import struct

import attrs

from layerrun.runtime.plan import Plan, Policy
from layerrun.runtime.resolve import resolve_in_root
from layerrun.runtime.session import Session

__all__ = ["Surroundings"]

_ZONES = "/usr/share/zoneinfo"
_UTC = ("Etc/UTC", "UTC", "Etc/UCT", "Etc/Universal", "Etc/Zulu")  # what is the case without any zone
_HOST = "/run/host"
_SHARED = ("fonts", "icons", "themes")
_FONTS = f"""<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir>{_HOST}/share/fonts</dir>
  <dir>{_HOST}/local/fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
"""
_CATEGORIES = (
    "LC_CTYPE LC_NUMERIC LC_TIME LC_COLLATE LC_MONETARY LC_MESSAGES LC_PAPER LC_NAME LC_ADDRESS LC_TELEPHONE "
    "LC_MEASUREMENT LC_IDENTIFICATION LC_ALL"
).split()
_ARCHIVE_MAGIC = 0xDE020109


def _codeset(name: str) -> str:
    """Return a locale's name as glibc files it: de_DE.UTF-8 as de_DE.utf8."""
    base, at, modifier = name.partition("@")
    base, dot, codeset = base.partition(".")
    return base + dot + "".join(c for c in codeset.lower() if c.isalnum()) + at + modifier


def _archived(path: str) -> set[str]:
    """Return the locales in glibc's archive: the names of its string table (locale/locarchive.h)."""
    try:
        with open(path, "rb") as file:
            head = struct.unpack("=8I", file.read(32))
            if head[0] != _ARCHIVE_MAGIC:
                return set()
            file.seek(head[5])
            return set(os.fsdecode(file.read(min(head[6], 1 << 20))).split("\0"))
    except (OSError, struct.error):
        return set()


@attrs.define
class Surroundings:
    """Works them out for the base at ``root``. ``ops`` come after the plan's own /run; ``env``: is set."""

    plan: Plan
    session: Session
    root: str
    ops: list[tuple[str, ...]] = attrs.field(factory=list)
    env: dict[str, str] = attrs.field(factory=dict)

    def _there(self, path: str) -> bool:
        return resolve_in_root(self.root, path)[1]

    def zone(self) -> None:
        """Add the host's time zone, if the caller names none: by name where the base knows it, else as a file."""
        self.plan.seen["file", "/etc/localtime"] = self._state("/etc/localtime")
        if self.session.variable("TZ") is not None or not os.path.exists("/etc/localtime"):
            return
        real = os.path.realpath("/etc/localtime")
        if real.startswith(_ZONES + "/"):
            base, there = resolve_in_root(self.root, "/etc/localtime")
            if base == real or (not there and real.removeprefix(_ZONES + "/") in _UTC):
                return
            if self._there(real):
                self.env["TZ"] = real[len(_ZONES) + 1 :]
                return
        self.ops += [
            ("dir", _HOST, "0755"),
            ("file", f"{_HOST}/localtime", "0444"),
            ("bind", real, f"{_HOST}/localtime", "ro,nosuid,nodev,noexec,try"),
        ]
        self.env["TZ"] = f":{_HOST}/localtime"

    @staticmethod
    def _state(path: str) -> str:
        from layerrun.store.plans import signature

        return signature(path)

    def looks(self) -> None:
        """Add the host's fonts, icons and themes, behind what the base has of its own."""
        self.ops += [("dir", path, "0755") for path in (_HOST, f"{_HOST}/share", f"{_HOST}/local")]
        for source, target in (
            *((f"/usr/share/{name}", f"{_HOST}/share/{name}") for name in _SHARED),
            ("/usr/local/share/fonts", f"{_HOST}/local/fonts"),
        ):
            real = self.session.real(source)
            if real is not None and os.path.isdir(real):
                self.ops += [("dir", target, "0755"), ("bind", real, target, "ro,nosuid,nodev,noexec,try")]
                self.plan.note(target, Policy.SHARED, f"the host's, read-only: {real}")
        self.ops.append(("text", f"{_HOST}/fonts.conf", "0444", _FONTS))
        self.env["FONTCONFIG_FILE"] = f"{_HOST}/fonts.conf"
        self.env["XDG_DATA_DIRS"] = f"/usr/local/share:/usr/share:{_HOST}/share"
        self.env["XCURSOR_PATH"] = (
            f"~/.local/share/icons:~/.icons:/usr/share/icons:/usr/share/pixmaps:{_HOST}/share/icons"
        )

    def language(self) -> None:
        """Put C.UTF-8 in the place of a locale that the base has not: programs would fall back to ASCII, and say so."""
        known = _archived(self.root + resolve_in_root(self.root, "/usr/lib/locale/locale-archive")[0])
        for name in ("LANG", *_CATEGORIES):
            value = self.session.variable(name)
            if value is None or value in ("C", "POSIX") or value.upper().startswith("C.UTF"):
                continue
            filed = _codeset(value)
            if filed in known or self._there(f"/usr/lib/locale/{filed}"):
                continue
            self.env[name] = "C.UTF-8"
