"""The environment of what runs inside."""

from __future__ import annotations

from collections.abc import Mapping

from layerrun.model import HOST_BASE, App
from layerrun.runtime.identity import Person
from layerrun.runtime.plan import Plan

__all__ = ["NOTIFY", "add_environment"]

# Where what a command says to the service manager is taken, inside.
NOTIFY = "/run/notify"

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT = (
    "TERM COLORTERM LANG LANGUAGE LC_* TZ NO_COLOR http_proxy https_proxy ftp_proxy no_proxy all_proxy "
    "HTTP_PROXY HTTPS_PROXY FTP_PROXY NO_PROXY ALL_PROXY"
).split()


def add_environment(
    plan: Plan,
    app: App,
    who: Person,
    *,
    inherits: bool,
    notifies: bool,
    values: Mapping[str, str],
    extra: Mapping[str, str],
) -> None:
    """Add the environment: all of the caller's if it ``inherits``, as a throwaway over the host, else a short list.

    ``values`` are the session's, ``extra`` are set over all others. ``notifies``: a service manager waits for word.
    """
    over_host = app.config.base == HOST_BASE
    set_ = {"LAYERRUN_APP": app.shown_name}
    # Over the host the caller's PATH leads to what the caller has; over a base it would lead nowhere.
    for name in ["*"] if inherits else [*_KEPT, *(["PATH"] if over_host else [])]:
        plan.add("keepenv", name)
    if not inherits:
        set_ |= {
            "HOME": who.home,
            "USER": who.name,
            "LOGNAME": who.name,
            "SHELL": who.shell,
            "PATH": _PATH,
            "XDG_RUNTIME_DIR": f"/run/user/{who.uid}",
        }
        if over_host:
            del set_["PATH"]
    set_ |= values
    if notifies:
        set_["NOTIFY_SOCKET"] = NOTIFY
        plan.add("keepenv", "WATCHDOG_USEC")
    for word in app.config.env:
        name, equals, value = word.partition("=")
        if equals:
            set_[name] = value
        else:
            set_.pop(name, None)
            plan.add("keepenv", name)
    set_ |= extra
    for name, value in set_.items():
        plan.add("env", f"{name}={value}")
