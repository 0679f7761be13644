"""The configuration of an image: what it is made for, what its layers are, and what a container of it is to run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from layerrun.images.documents import MAX_LAYERS, check_digest, parse_object, refuse
from layerrun.images.platform import Platform

__all__ = ["Config", "parse_config"]

# Characters of all that a base remembers of a configuration.
_MAX_KEPT = 128 << 10


@attrs.frozen
class Config:
    """What matters of a configuration. ``diff_ids`` are the digests of the layers as plain tars, the lowest first.

    ``entrypoint`` then ``cmd`` are the command; ``env`` are ``NAME=value``; ``workdir`` is absolute
    or ``""``; ``user`` is a name or a number, with a group after a colon perhaps, ``""`` for root.
    """

    platform: Platform
    diff_ids: tuple[str, ...]
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return what a base remembers (`layerrun.model.Base.origin`, ``config``)."""
        return {
            "env": list(self.env),
            "entrypoint": list(self.entrypoint),
            "cmd": list(self.cmd),
            "workdir": self.workdir,
            "user": self.user,
        }


def parse_config(data: bytes, layers: int) -> Config:
    """Read the configuration of an image of so many layers, or raise `ArchiveError`."""
    document = parse_object(data, "a configuration")
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, Mapping) or rootfs.get("type") != "layers":
        refuse("has a configuration that does not say what its layers are")
    found = rootfs.get("diff_ids") or []
    if not isinstance(found, list) or len(found) > MAX_LAYERS:
        refuse(f"has more than {MAX_LAYERS} layers")
    diff_ids = tuple(check_digest(one) for one in found)
    if len(diff_ids) != layers:
        refuse(f"has {layers} layers, and digests of {len(diff_ids)} in its configuration")
    settings = document.get("config") or {}
    if not isinstance(settings, Mapping):
        refuse("has strange settings in its configuration")
    config = Config(
        platform=Platform.from_json(document),
        diff_ids=diff_ids,
        env=_env(_words(settings, "Env")),
        entrypoint=_words(settings, "Entrypoint"),
        cmd=_words(settings, "Cmd"),
        workdir=_folder(_word(settings, "WorkingDir")),
        user=_word(settings, "User"),
    )
    if sum(len(word) for key in ("env", "entrypoint", "cmd") for word in getattr(config, key)) > _MAX_KEPT:
        refuse(f"has settings of more than {_MAX_KEPT:,} characters")
    return config


def _words(settings: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = settings.get(key)
    if found is None:
        return ()
    if not isinstance(found, Sequence) or isinstance(found, str):
        refuse(f"has {found!r:.60} for {key} in its configuration")
    return tuple(_checked(word, key) for word in found)


def _word(settings: Mapping[str, Any], key: str) -> str:
    found = settings.get(key)
    return "" if found is None else _checked(found, key)


def _checked(word: object, key: str) -> str:
    """Return a text that the kernel can be given, or raise `ArchiveError`."""
    # JSON can name half a character, U+D800 to U+DFFF.
    if not isinstance(word, str) or re.search("[\0\ud800-\udfff]", word):
        refuse(f"has {word!r:.60} for {key} in its configuration")
    return word


def _env(words: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out what is no variable, as other tools do; of those that come twice the last counts.

    A name without a value would be, to an app, a variable of whoever starts it, and that is not for images to ask for.
    """
    return tuple({word.partition("=")[0]: word for word in words if word.find("=") > 0}.values())


def _folder(text: str) -> str:
    """Return a folder inside as an absolute path without dots, ``""`` for none."""
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts) if text else ""
