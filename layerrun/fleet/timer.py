"""systemd's unit and timer for `layerrun update --stage`: written with the paths of this machine."""

from __future__ import annotations

import os
import sys

from layerrun.errors import UsageError
from layerrun.store.fs import DIR_FLAGS, explain, write_file

__all__ = ["UNITS", "write_units"]

UNITS = ("layerrun-update.service", "layerrun-update.timer")


def _quoted(path: str) -> str:
    """Return a path as one word of systemd.service(5), whatever is in it."""
    if any(ord(char) < 32 or "\ud800" <= char <= "\udfff" for char in path):
        raise UsageError(f"{path!r} cannot be named in a unit of systemd")
    text = path.replace("%", "%%").replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def write_units(folder: str, store: str) -> None:
    """Write the unit and the timer for the store at ``store`` into ``folder``, such as /etc/systemd/system."""
    program = os.path.join(os.path.dirname(sys.executable), "layerrun")
    if not os.access(program, os.X_OK):
        raise UsageError(f"there is no {program!r} that a unit could start")
    source = os.path.join(os.path.dirname(__file__), "units")
    with explain("write the units into", folder):
        os.makedirs(folder, exist_ok=True)
        fd = os.open(folder, DIR_FLAGS & ~os.O_NOFOLLOW)
        try:
            for name in UNITS:
                with open(os.path.join(source, name), encoding="utf-8") as file:
                    text = file.read()
                text = text.replace("@LAYERRUN@", _quoted(program)).replace("@STORE@", _quoted(store))
                write_file(fd, name, text)
                os.chmod(name, 0o644, dir_fd=fd)
            os.fsync(fd)
        finally:
            os.close(fd)
