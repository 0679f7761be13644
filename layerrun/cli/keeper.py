"""Starts in the background that are counted: a launcher stays beside the app, and learns how it ends.

What is started with ``--detach`` is nobody's child, so nobody would hear of its end. While its app is on trial it is
therefore started as in the foreground, by a process of its own without a terminal, which writes to the app's log.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from layerrun.cli.common import settings

if TYPE_CHECKING:
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["run"]

_LOG = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


def run(
    store: Store, app: App, argv: Sequence[str] | None, *, cwd: str | None, env: Mapping[str, str]
) -> int | None:
    """Start a command in the background; return 0 once it runs, else the status that says why not.

    ``None``: the app runs already, so this is no start of it.
    """
    from layerrun.errors import BusyError

    try:
        store.app_lock(app, "look").release()
    except BusyError:
        return None
    folder, values = store.open_app_dir(app), _environment(store)
    reader, writer = os.pipe()
    try:
        with suppress(FileNotFoundError):
            os.unlink("log.new", dir_fd=folder)
        log = os.open("log.new", _LOG, 0o600, dir_fd=folder)
        try:
            process = subprocess.Popen(
                _words(app, argv, writer, cwd, _env_words(env, values)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=values,
                pass_fds=(writer,),
                start_new_session=True,
            )
        finally:
            os.close(log)
            os.close(writer)
        if _began(reader):
            with suppress(FileNotFoundError):
                os.rename("log", "log.1", src_dir_fd=folder, dst_dir_fd=folder)
            os.rename("log.new", "log", src_dir_fd=folder, dst_dir_fd=folder)
            process.returncode = 0  # it stays, and is nobody's to wait for
            return 0
        status = process.wait()
        _tell(folder)
        return status if status >= 0 else 128 - status
    finally:
        os.close(reader)
        os.close(folder)


def _words(
    app: App, argv: Sequence[str] | None, status_fd: int, cwd: str | None, env: Sequence[str]
) -> list[str]:
    from layerrun.runtime import door

    found = door.locate()
    words = [found] if found else [sys.executable, "-I", "-m", "layerrun"]
    words += ["app", app.name, "--status-fd", str(status_fd)]
    words += [] if cwd is None else ["--cwd", cwd]
    for word in env:
        words += ["-e", word]
    return words if argv is None else [*words, "--", *argv]


def _env_words(env: Mapping[str, str], values: Mapping[bytes, bytes]) -> list[str]:
    """Return the variables as words; one that ``values``, the launcher's environment, has as well goes by its name.

    Everybody may read a command line, and it is there for as long as the app runs; an environment is its owner's.
    """
    return [
        name if values.get(os.fsencode(name)) == os.fsencode(value) else f"{name}={value}"
        for name, value in env.items()
    ]


def _environment(store: Store) -> dict[bytes, bytes]:
    from layerrun.runtime import handoff

    return handoff.environment() | {b"LAYERRUN_STORE": os.fsencode(store.path)}


def _began(reader: int) -> bool:
    """Wait until it is known whether the command runs, and pass on what is said of that."""
    said = b""
    while True:
        data = os.read(reader, 4096)
        said += data
        *lines, said = said.split(b"\n")
        for line in lines:
            if settings().status_fd is not None:
                os.write(settings().status_fd or 2, line + b"\n")
            if json.loads(line).get("event") in ("started", "failed"):
                return json.loads(line)["event"] == "started"  # type: ignore[no-any-return]
        if not data:
            return False


def _tell(folder: int) -> None:
    """Say what a start that came to nothing has said; its log goes."""
    with open(os.open("log.new", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        sys.stderr.write(file.read().decode(errors="replace"))
    os.unlink("log.new", dir_fd=folder)
