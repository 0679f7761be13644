"""An app's configuration as a TOML document, both ways. docs/policy.md describes it for people.

The keys are those of `AppConfig` and, in the table ``policy``, of `Policy`, with ``-`` for ``_``; limits are a table of
their own. TOML is Unicode: a name that is not valid UTF-8 cannot be written down.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import attrs

from layerrun.errors import UsageError
from layerrun.model import AppConfig, Share, check_name, check_path
from layerrun.policy import Limit, Policy, format_size

__all__ = ["config_of", "from_toml", "to_toml"]

# What lies in the upper depends on these: they are fixed when an app is made.
_LISTS = ("layers", "command", "env", "health", "shares", "hides", "caches")
_POLICY_LISTS = ("publish", "sockets", "devices", "allow", "deny")


def to_toml(config: AppConfig) -> str:
    """Return the configuration as TOML, with every key, so that there is something to change.

    Raises:
        UsageError: a name is not valid UTF-8.
    """
    import tomlkit

    data = config.to_json()
    asked = data.pop("policy")
    document = tomlkit.document()
    for key, value in data.items():
        document.add(key, tomlkit.item(value))
    policy = tomlkit.table()
    for key, value in asked.items():
        if key != "limits" and value is not None:
            policy.add(key.replace("_", "-"), format_size(value) if key == "max_size" else value)
    limits = tomlkit.table()
    for limit in config.policy.limits:
        limits.add(limit.name, str(limit).partition("=")[2])
    policy.add("limits", limits)
    document.add("policy", policy)
    text = tomlkit.dumps(document).rstrip("\n") + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError("a name in the configuration is not valid UTF-8, which TOML cannot hold") from None
    return text


def from_toml(text: str, what: str = "the manifest") -> AppConfig:
    """Make a configuration from TOML; what it does not say is as if nothing had been said of it.

    Raises:
        UsageError: it is no TOML, or says something that makes no sense; ``what`` names it.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{what} is not valid TOML: {error}") from None
    try:
        return config_of(data)
    except UsageError as error:
        raise UsageError(f"{what}: {error}", hint=error.hint) from None


def config_of(data: Mapping[str, Any]) -> AppConfig:
    """Make a configuration from what TOML holds, or a table of it. Raises `UsageError`."""
    values = {key.replace("-", "_"): value for key, value in data.items()}
    policy = values.pop("policy", {})
    if not isinstance(policy, dict):
        raise UsageError("policy must be a table: [policy]")
    _check_known(values, {field.name for field in attrs.fields(AppConfig)})
    for key in _LISTS:
        values[key] = _strings(values, key)
    for key in ("base", "home"):
        if key in values and not isinstance(values[key], str):
            raise UsageError(f"{key} must be a string")
    if "base" in values:
        check_name(values["base"].partition("@")[0], "name of a base")
    values["shares"] = tuple(Share.parse(share) for share in values["shares"])
    for key in ("hides", "caches"):
        values[key] = tuple(check_path(path, key) for path in values[key])
    try:
        return AppConfig(**values, policy=_policy(policy))
    except UsageError:
        raise
    except ValueError as error:  # of an enum
        raise UsageError(str(error)) from None


def _policy(data: Mapping[str, Any]) -> Policy:
    values = {key.replace("-", "_"): value for key, value in data.items()}
    limits = values.pop("limits", {})
    _check_known(values, {field.name for field in attrs.fields(Policy)})
    for key in _POLICY_LISTS:
        values[key] = _strings(values, key)
    for key in ("preset", "network", "user", "max_size"):
        if not isinstance(values.get(key, ""), str):
            raise UsageError(f"policy.{key} must be a string")
    if not isinstance(limits, dict):
        raise UsageError("policy.limits must be a table: [policy.limits]")
    return Policy(limits=tuple(Limit.parse(f"{name}={value}") for name, value in limits.items()), **values)


def _check_known(values: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(values) - known)
    if unknown:
        raise UsageError(f"unknown keys: {', '.join(unknown)}", hint="known are: " + ", ".join(sorted(known)))


def _strings(values: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = values.get(key, ())
    if not isinstance(found, list | tuple) or not all(
        isinstance(one, str) and "\0" not in one for one in found
    ):
        raise UsageError(f"{key} must be a list of strings")
    return tuple(found)
