"""Whether a version of a base is well: the commands that must succeed over it, in throwaways."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import attrs

from layerrun.model import App, Base
from layerrun.store.store import Store
from layerrun.updates.checker import COULD_NOT, Request, words

__all__ = ["NETWORK", "NETWORKS", "TIMEOUT", "Check", "Outcome", "checks_of", "run_check", "run_checks"]

TIMEOUT = 60.0
NETWORK = "none"
# An app's check may have a link to another app; what belongs to no app has none.
NETWORKS = ("none", "host", "private")
# Of what a check says the end is kept; it may say as much as it likes.
_KEPT = 4096
_PATIENCE = 10.0


@attrs.frozen
class Check:
    """A command line of /bin/sh that must succeed: of the base itself, or (with an app) in what that app would be.

    ``network`` is that of the base's own; an app's check has the app's.
    """

    command: str
    app: App | None = None
    network: str = NETWORK

    @property
    def of(self) -> str:
        """Whose check it is: the name of an app, or ``base``."""
        return "base" if self.app is None else self.app.name


@attrs.frozen
class Outcome:
    """How a check ended. ``why`` is empty where it went well; ``output`` is the end of what it said."""

    check: Check
    why: str
    output: str
    seconds: float

    @property
    def is_well(self) -> bool:
        """Whether it succeeded."""
        return not self.why


def checks_of(store: Store, name: str, more: Iterable[str] = (), *, network: str = NETWORK) -> list[Check]:
    """Return what a new version of a base must pass: its own checks, ``more``, and those of the apps upon it."""
    slot = store.catalog.slot(name)
    own = () if slot is None else slot.health
    found = [Check(command, network=network) for command in dict.fromkeys((*own, *more))]
    for id_ in store.catalog.slot_apps(name):
        app = store.catalog.app_by_id(id_)
        if app is not None and not app.ephemeral:
            found += [Check(command, app) for command in app.config.health]
    return found


def run_checks(
    store: Store,
    base: Base,
    checks: Iterable[Check],
    *,
    timeout: float = TIMEOUT,
    layers: Mapping[str, tuple[str, ...]] | None = None,
    told: Callable[[Check], None] = lambda _check: None,
) -> list[Outcome]:
    """Run checks over a version, one after the other, up to the first that fails; return how they ended.

    ``layers``: those that an app is to have over it, by its id (its profiles have them too). ``told`` hears of each
    check before it runs.
    """
    found: list[Outcome] = []
    for check in checks:
        told(check)
        found.append(run_check(store, base, check, timeout=timeout, layers=layers))
        if not found[-1].is_well:
            break
    return found


def run_check(
    store: Store,
    base: Base,
    check: Check,
    *,
    timeout: float = TIMEOUT,
    layers: Mapping[str, tuple[str, ...]] | None = None,
) -> Outcome:
    """Run one check. What takes longer than ``timeout`` seconds is killed with all that it started, and failed."""
    app = check.app
    fitting = () if app is None else (layers or {}).get(app.parent or app.id, app.config.layers)
    request = Request(
        store.path, base.full_name, check.command, app.id if app else None, fitting, check.network
    )
    began = time.monotonic()
    process = subprocess.Popen(
        words(request),
        stdin=subprocess.PIPE,  # while it is open, we are there
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # what a terminal sends is for us, who end it then
        cwd="/",
    )
    try:
        output, ended = _listen(process, began + timeout)
        why = _why(process.wait(), output) if ended else f"it did not end within {timeout:g} s"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        _sweep(store)
    return Outcome(check, why, output.decode(errors="replace"), time.monotonic() - began)


def _listen(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bool]:
    """Read what a check says until it has ended, or the time is over; return the end of it, and whether it ended."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    os.set_blocking(fd, False)
    said = b""
    pidfd = os.pidfd_open(process.pid)
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(fd, selectors.EVENT_READ)
            selector.register(pidfd, selectors.EVENT_READ)
            while True:
                left = deadline - time.monotonic()
                ready = {key.fd for key, _ in selector.select(max(left, 0))}
                if fd in ready:
                    data = os.read(fd, 65536)
                    said = (said + data)[-_KEPT:]
                    if not data:
                        selector.unregister(fd)
                elif pidfd in ready:
                    return said, True
                # Looked at in any case: what never stops talking is not to be listened to for ever.
                if time.monotonic() >= deadline and pidfd not in ready:
                    return said, False
    finally:
        os.close(pidfd)


def _why(status: int, output: bytes) -> str:
    """Say why a check failed; ``""`` if it did not."""
    if status == 0:
        return ""
    if status == COULD_NOT:
        said = output.decode(errors="replace").strip().rpartition("\n")[2]
        return f"it could not be started: {said}" if said else "it could not be started"
    if status < 0 or status > 128:
        number = -status if status < 0 else status - 128
        with suppress(ValueError):
            return f"it was ended by {signal.Signals(number).name}"
    return f"exit status {status}"


def _sweep(store: Store) -> None:
    """Remove what checks left behind that were killed, once all in them has ended."""
    deadline = time.monotonic() + _PATIENCE
    while any(
        app.name.startswith("check-")
        for app in map(store.catalog.app_by_id, store.catalog.ephemeral())
        if app
    ):
        store.sweep()
        if time.monotonic() > deadline:
            return  # the next command does it
        time.sleep(0.02)
