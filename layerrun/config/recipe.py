"""A recipe as a TOML document, read. docs/build.md describes it for people.

What it says makes a `layerrun.building.recipe.Recipe`; the table ``app`` is as in the file of an app's configuration.
"""

from __future__ import annotations

import os
import posixpath
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from layerrun.building.recipe import DROPPED, EPOCH, Add, Recipe, Run, Step
from layerrun.config.manifest import config_of
from layerrun.errors import UsageError
from layerrun.layers.globs import Globs
from layerrun.model import HOST_BASE, check_name, check_path
from layerrun.policy import Policy

__all__ = ["FILE", "MOST", "read_recipe", "recipe_from", "recipe_of"]

FILE = "build.toml"
MOST = 1 << 20  # bytes of a recipe

_TOP = ("app", "base", "drop", "env", "name", "network", "source-date-epoch", "step", "user", "workdir")
_RUN = ("run", "env", "workdir", "user", "network", "cache")
_ADD = ("add", "to", "owner", "mode", "exclude")
_WRITE = ("write", "text", "owner", "mode")
_NETWORKS = ("none", "host", "private")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_STEPS = 200
_MOST_CACHES = 16
_MOST_SECONDS = 1 << 33


def recipe_from(text: str, what: str = "the recipe", *, folder: str | None = None) -> Recipe:
    """Make a recipe from TOML; ``folder`` is where the files lie that it adds.

    Raises:
        UsageError: it is no TOML, or says something that makes no sense; ``what`` names it.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{what} is not valid TOML: {error}") from None
    return recipe_of(data, what, folder=folder)


def recipe_of(data: Mapping[str, Any], what: str = "the recipe", *, folder: str | None = None) -> Recipe:
    """Make a recipe from what TOML would be read as. Raises `UsageError`; ``what`` names it."""
    try:
        return _recipe(data, folder)
    except UsageError as error:
        raise UsageError(f"{what}: {error}", hint=error.hint) from None


def read_recipe(path: str) -> Recipe:
    """Read the recipe in a file, or in the folder that has it as `FILE`. Raises `UsageError`."""
    if os.path.isdir(path):
        path = os.path.join(path, FILE)
    try:
        with open(path, "rb") as file:
            data = file.read(MOST + 1)
    except OSError as error:
        raise UsageError(
            f"the recipe {path!r} cannot be read: {error.strerror}", hint="layerrun build NAME -f FILE"
        ) from None
    if len(data) > MOST:
        raise UsageError(f"{path!r} is no recipe: it has more than {MOST >> 20} MiB")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{path!r} is no recipe: it is not UTF-8") from None
    return recipe_from(text, path, folder=os.path.dirname(os.path.realpath(path)))


def _recipe(data: Mapping[str, Any], folder: str | None) -> Recipe:
    _check_known(data, _TOP, "the recipe")
    base = _string(data, "base")
    if base is None:
        raise UsageError('it does not say its base: base = "NAME"')
    if check_name(base, "name of a base") == HOST_BASE:
        raise UsageError("the machine's own / changes all the time, so nothing can be built over it")
    name = _string(data, "name")
    steps = data.get("step", [])
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise UsageError("steps are tables: [[step]]")
    if len(steps) > _MOST_STEPS:
        raise UsageError(f"it has {len(steps)} steps, more than {_MOST_STEPS}", hint="put some together")
    made = []
    for number, step in enumerate(steps, 1):
        try:
            made.append(_step(step, data))
        except UsageError as error:
            raise UsageError(f"step {number}: {error}", hint=error.hint) from None
    drop = _strings(data, "drop", DROPPED)
    Globs(drop)
    return Recipe(
        base=base,
        steps=tuple(made),
        name=None if name is None else check_name(name),
        epoch=_epoch(data),
        drop=drop,
        app=_app(data),
        folder=folder,
    )


def _epoch(data: Mapping[str, Any]) -> int:
    """Return the time that files get: the recipe's, else $SOURCE_DATE_EPOCH, else one that never changes."""
    found = data.get("source-date-epoch", os.environ.get("SOURCE_DATE_EPOCH") or EPOCH)
    if isinstance(found, str) and found.isdecimal():
        found = int(found[:12])
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < _MOST_SECONDS:
        raise UsageError(f"bad source-date-epoch {found!r}: it is a number of seconds since 1970")
    return found


def _app(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the recipe says of the app's configuration, and no more, as plain JSON data."""
    said = data.get("app", {})
    if not isinstance(said, dict):
        raise UsageError("app must be a table: [app]")
    for key in ("base", "layers"):
        if key in said:
            raise UsageError(f"app.{key}: that is what the recipe says by itself")
    try:
        whole = config_of(said).to_json()
    except UsageError as error:
        raise UsageError(f"app: {error}", hint=error.hint) from None
    return {key: whole[key] for key in (word.replace("-", "_") for word in said)}


def _step(step: Mapping[str, Any], top: Mapping[str, Any]) -> Step:
    kinds = [key for key in ("run", "add", "write") if key in step]
    if len(kinds) != 1:
        raise UsageError(
            "it is one of run, add and write" if not kinds else f"{' and '.join(kinds)} are two steps"
        )
    if kinds == ["run"]:
        return _run(step, top)
    if kinds == ["add"]:
        return _add(step)
    _check_known(step, _WRITE, "write")
    text = _string(step, "text")
    if text is None:
        raise UsageError('write needs a text: text = "..."')
    target = _target(step, "write")
    if target.endswith("/"):
        raise UsageError(f"write {target!r}: a file is written, and this is a folder")
    return Add(target, text=text, owner=_owner(step), mode=_mode(step))


def _run(step: Mapping[str, Any], top: Mapping[str, Any]) -> Run:
    _check_known(step, _RUN, "run")
    said = {key: step.get(key, top.get(key)) for key in ("workdir", "user", "network")}
    command = step["run"]
    if isinstance(command, str):
        argv: tuple[str, ...] = ("/bin/sh", "-ec", command) if command.strip() else ()
    else:
        argv = _strings(step, "run", ())
    if not argv or not argv[0]:
        raise UsageError("the command is empty")
    if any("\0" in word for word in argv):
        raise UsageError("the command holds a NUL byte")
    network = _string(said, "network") or "none"
    if network not in _NETWORKS:
        raise UsageError(f"bad network {network!r}", hint="one of " + ", ".join(_NETWORKS))
    user = _string(said, "user")
    Policy(network=network, user=user)
    workdir = check_path(_string(said, "workdir") or "/", "workdir")
    env = {**_env(top), **_env(step)}
    words = tuple(f"{key}={value}" for key, value in sorted(env.items()))
    return Run(argv, words, workdir, user, network, _cache(step))


def _cache(step: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the folders that are kept between builds, none of which lies in another."""
    found = sorted({check_path(path, "cache") for path in _strings(step, "cache", ())})
    for path in found:
        if path == "/" or path.split("/")[1] in ("proc", "dev", "sys"):
            raise UsageError(f"{path!r} cannot be a cache")
        inside = [other for other in found if other.startswith(f"{path}/")]
        if inside:
            raise UsageError(f"the cache {inside[0]!r} lies in the cache {path!r}")
    if len(found) > _MOST_CACHES:
        raise UsageError(f"it has {len(found)} caches, more than {_MOST_CACHES}")
    return tuple(found)


def _add(step: Mapping[str, Any]) -> Add:
    _check_known(step, _ADD, "add")
    source = _string(step, "add") or ""
    parts = source.split("/")
    if not source or source.startswith("/") or ".." in parts or "\0" in source:
        raise UsageError(
            f"bad add {source!r}: it is a path in the recipe's folder", hint="put the files beside the recipe"
        )
    target = _target(step, "to")
    exclude = _strings(step, "exclude", ())
    return Add(target, posixpath.normpath(source), None, _owner(step), _mode(step), exclude)


def _target(step: Mapping[str, Any], key: str) -> str:
    found = _string(step, key)
    if found is None:
        raise UsageError(f'it does not say where to: {key} = "/PATH"')
    path = check_path(found, key)
    return path + "/" if found.endswith("/") and path != "/" else path


def _owner(step: Mapping[str, Any]) -> tuple[int, int]:
    found = _string(step, "owner") or "0:0"
    match = re.fullmatch(r"(\d{1,5})(?::(\d{1,5}))?", found)
    if match is None or max(ids := [int(match[1]), int(match[2] or match[1])]) > 65535:
        raise UsageError(f"bad owner {found!r}", hint="UID:GID, two numbers up to 65535, as seen inside")
    return ids[0], ids[1]


def _mode(step: Mapping[str, Any]) -> int | None:
    found = _string(step, "mode")
    if found is None:
        return None
    if not re.fullmatch(r"0?[0-7]{3,4}", found):
        raise UsageError(f"bad mode {found!r}", hint='octal digits: mode = "0644"')
    return int(found, 8)


def _env(data: Mapping[str, Any]) -> dict[str, str]:
    found = data.get("env", {})
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise UsageError('env is a table of strings: env = { NAME = "VALUE" }')
    for name, value in found.items():
        if not _NAME.fullmatch(name) or "\0" in value:
            raise UsageError(f"bad variable {name!r}")
    return found


def _string(data: Mapping[str, Any], key: str) -> str | None:
    found = data.get(key)
    if found is not None and not isinstance(found, str):
        raise UsageError(f"{key} must be a string")
    return found


def _strings(data: Mapping[str, Any], key: str, default: tuple[str, ...]) -> tuple[str, ...]:
    found = data.get(key, default)
    if not isinstance(found, list | tuple) or not all(isinstance(one, str) for one in found):
        raise UsageError(f"{key} must be a list of strings")
    return tuple(found)


def _check_known(data: Mapping[str, Any], known: tuple[str, ...], what: str) -> None:
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise UsageError(
            f"unknown keys: {', '.join(unknown)}", hint=f"{what} has: " + ", ".join(sorted(known))
        )
