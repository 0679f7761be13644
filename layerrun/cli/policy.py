"""The options that say what an app may reach. ``create`` and ``edit`` have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.options import F
from layerrun.cli.output import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from layerrun.model import App
    from layerrun.policy import Policy
    from layerrun.store.store import Store

__all__ = [
    "asked_policy",
    "changed_policy",
    "env_option",
    "health_option",
    "policy_options",
    "warn_of_limits",
]

_OPTIONS: tuple[tuple[str, str, str, str], ...] = (
    (
        "preset",
        "preset",
        "NAME",
        "What is granted to begin with: strict, default, desktop, service or build.",
    ),
    ("network", "network", "KIND", "host, none, private or link:APP.  [default: the preset's]"),
    ("publish", "publish", "[ADDR:]PORT[:INSIDE][/udp]", "A port that leads inside, of a private network."),
    (
        "socket",
        "sockets",
        "KIND",
        "wayland, x11, fallback-x11, pulse, pipewire; session-bus[:talk=NAME,...].",
    ),
    ("device", "devices", "NAME", "dri, fuse, input, kvm, sound, tun, usb, video, or the path of a device."),
    ("allow", "allow", "WORD", "nesting, setuid and so on; cap:NAME, syscall:NAME."),
    ("deny", "deny", "WORD", "The contrary; socket:KIND and device:NAME, too."),
    ("limit", "limits", "NAME=VALUE", "memory=512M, pids=100, cpu=1.5, nofile=1024 and so on."),
    ("user", "user", "USER[:GROUP]", "Whom the command runs as, by names or numbers inside."),
    ("max-size", "max_size", "SIZE", "How much the app's layer may hold, as in 64M."),
)
_ONCE = ("preset", "network", "user", "max_size")


def policy_options(function: F) -> F:
    """Add the options; what was given of them reaches the callback under the names of `Policy`'s fields."""
    for option, name, value, meaning in reversed(_OPTIONS):
        many = name not in _ONCE
        function = click.option(f"--{option}", name, metavar=value, multiple=many, help=meaning)(function)
    return function


def env_option(function: F) -> F:
    """Add ``--env`` of what is set at each start."""
    return click.option(
        "-e",
        "--env",
        "env",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Set a variable at each start; without VALUE, pass on the caller's.",
    )(function)


def health_option(function: F) -> F:
    """Add ``--health``."""
    return click.option(
        "--health",
        "health",
        multiple=True,
        metavar="CMD",
        help="A command line that goes well in the app while it is well: a new version of its base must pass.",
    )(function)


def asked_policy(given: Mapping[str, Any]) -> Policy:
    """Return the policy that the options ask for."""
    from layerrun.policy import Policy

    return Policy(**{name: value for name, value in given.items() if value not in (None, ())})


def changed_policy(policy: Policy, given: Mapping[str, Any]) -> Policy:
    """Return a policy with what the options ask for: single values replaced, lists added to."""
    import attrs

    values: dict[str, Any] = {
        name: value if name in _ONCE else (*getattr(policy, name), *value) for name, value in given.items()
    }
    # What is allowed now is not denied any more, and the other way round.
    if "allow" in given:
        values["deny"] = [word for word in values.get("deny", policy.deny) if word not in given["allow"]]
    elif "deny" in given:
        values["allow"] = [word for word in policy.allow if word not in given["deny"]]
    changed: Policy = attrs.evolve(policy, **values)
    return changed


def warn_of_limits(store: Store, app: App) -> None:
    """Say of each limit that was asked for and that nothing on this machine holds."""
    from layerrun.runtime.limits import warnings

    if app.config.policy.limits:
        for text in warnings(app, store.app_dir(app)):
            say(text)
    if store.rootless and app.config.policy.max_size is not None:
        say("--max-size: without root it holds for --ephemeral starts alone, and others are refused")
