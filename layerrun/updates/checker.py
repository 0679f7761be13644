"""A process that runs one check and ends with its status: what is killed when a check takes too long.

The check runs in an app of its own, made for it and gone with it: over the version to be looked at, with the layers of
the app that is asked about, and a copy of what that has written. Killed, this process takes all that runs with it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.errors import LayerrunError
from layerrun.model import App, AppConfig, AppKind, IdMode
from layerrun.policy import Policy

if TYPE_CHECKING:
    from layerrun.store.making import Beginning
    from layerrun.store.store import Store

__all__ = ["COULD_NOT", "Request", "words"]

COULD_NOT = 125
_BOOT = (
    "import sys; sys.path[:0] = sys.argv[2:]; "
    "from layerrun.updates.checker import main; sys.exit(main(sys.argv[1]))"
)


@attrs.frozen
class Request:
    """What to run: over which version (``base``, NAME@N), for which app (an id), with which layers of its.

    ``network`` is that of a check that belongs to no app.
    """

    store: str
    base: str
    command: str
    app: str | None = None
    layers: tuple[str, ...] = ()
    network: str = "none"


def words(request: Request) -> list[str]:
    """Return the words that start a checker. It ends when its standard input does: hold that open."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = [here, *(entry for entry in sys.path if os.path.isabs(entry) and entry != here)]
    return [sys.executable, "-I", "-c", _BOOT, json.dumps(attrs.asdict(request)), *path]


def main(text: str) -> int:
    """Run what is asked for; return its exit status, `COULD_NOT` with a line on stderr if it never ran."""
    from layerrun.store.store import Store

    asked: dict[str, Any] = json.loads(text)
    _end_with_parent()
    request = Request(**asked | {"layers": tuple(asked["layers"])})
    try:
        with Store.open(request.store, create=False) as store:
            return _run(store, request)
    except LayerrunError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status if error.exit_status in (126, 127) else COULD_NOT


def _end_with_parent() -> None:
    """Be killed when nobody holds the other end of standard input any more, which becomes /dev/null.

    Not by prctl(2): the kernel forgets the signal of a parent's death when the fsuid changes, as it does in a launch.
    """
    held = os.dup(0)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)

    def wait() -> None:
        with suppress(OSError):
            os.read(held, 1)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


def _run(store: Store, request: Request) -> int:
    from layerrun.runtime import identity, launch
    from layerrun.store import making

    base = store.base(request.base)
    app = None if request.app is None else store.catalog.app_by_id(request.app)
    if app is None:
        config = AppConfig(base=request.base, policy=Policy(network=request.network))
        ids, begin = identity.choose(base), None
    else:
        config, ids, begin = _config(app, request), app.ids, _beginning(store, app)
    made, lock = making.make_scratch(store, config, ids, begin, kind=AppKind.APP, called=making.CHECK)
    try:
        with lock:
            # Nothing is left to hold stdin for.
            return launch.run_locked(store, made, lock, ["/bin/sh", "-c", request.command])
    finally:
        store.sweep()


def _config(app: App, request: Request) -> AppConfig:
    """Return what an app is, over another version; what only one can have at a time is left out."""
    policy = attrs.evolve(app.config.policy, publish=(), max_size=None)
    return attrs.evolve(app.config, base=request.base, layers=request.layers, policy=policy)


def _beginning(store: Store, app: App) -> Beginning:
    """Return what a check begins with: the app's frozen layers, and a copy of its upper."""
    from layerrun.runtime import jobs
    from layerrun.store.fs import open_dir
    from layerrun.store.making import Beginning

    def dress(dir_fd: int, path: str) -> None:
        target, source = open_dir(dir_fd, path), store.open_data(app)
        try:
            jobs.on_files(
                app,
                jobs.melt_job,
                [store.fd, source, target],
                [],
                app.ids.userxattr,
                helped=app.ids is IdMode.SUBIDS,
            )
        finally:
            os.close(source)
            os.close(target)

    return Beginning(app.frozen, dress)
