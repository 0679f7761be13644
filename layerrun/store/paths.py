"""Where the store and the runtime files are."""

from __future__ import annotations

import os

__all__ = ["default_store", "runtime_dir"]


def default_store() -> str:
    """Return the absolute path of the store to use when none is named.

    ``$LAYERRUN_STORE``, else ``/var/lib/layerrun`` for root, else ``$XDG_DATA_HOME/layerrun``,
    else ``~/.local/share/layerrun`` (XDG base directory specification: a relative value is ignored).
    """
    named = os.environ.get("LAYERRUN_STORE")
    if named:
        return os.path.abspath(named)
    if os.geteuid() == 0:
        return "/var/lib/layerrun"
    data = os.environ.get("XDG_DATA_HOME", "")
    if not data.startswith("/"):
        data = os.path.join(_home(), ".local/share")
    return os.path.join(data, "layerrun")


def runtime_dir() -> str:
    """Return the folder for what need not outlive a reboot; it is not made here.

    ``/run/layerrun`` for root, else ``$XDG_RUNTIME_DIR/layerrun``, else ``/tmp/layerrun-UID``.
    """
    if os.geteuid() == 0:
        return "/run/layerrun"
    run = os.environ.get("XDG_RUNTIME_DIR", "")
    if run.startswith("/"):
        return os.path.join(run, "layerrun")
    # Anyone may make this name first: whoever uses the folder must check its owner and mode.
    return f"/tmp/layerrun-{os.geteuid()}"


def _home() -> str:
    home = os.environ.get("HOME", "")
    if home.startswith("/"):
        return home
    import pwd

    return pwd.getpwuid(os.geteuid()).pw_dir
