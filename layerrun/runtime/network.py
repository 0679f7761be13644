"""The network of a start: what is made for it before, and what the app's files say about it. See docs/network.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from layerrun.policy import Grants, NetworkKind
from layerrun.runtime import names, pasta

if TYPE_CHECKING:
    from layerrun.model import App
    from layerrun.store.store import Store

__all__ = ["Made", "is_given", "made", "write_files"]


@attrs.frozen
class Made:
    """What a start brings along, as `layerrun.native.launch.Start` has it."""

    net_fd: int = -1
    keep: tuple[int, ...] = ()


def is_given(grants: Grants) -> bool:
    """Say whether the namespace is made before the start, in Python and as root."""
    return grants.network.kind in (NetworkKind.PRIVATE, NetworkKind.LINK) and os.geteuid() == 0


def write_files(store: Store, app: App, grants: Grants) -> None:
    """Write the files of an app whose network is made by the C core: what they say is known before."""
    private = grants.network.kind is NetworkKind.PRIVATE
    name = names.host_name(app)
    names.write(store, app, "hosts", names.hosts(name, "127.0.1.1", of_host=private))
    if private:
        names.write(store, app, "resolv.conf", pasta.resolver(names.read_resolver()).text())


@contextmanager
def made(store: Store, app: App, grants: Grants) -> Iterator[Made]:
    """Make the network of a start of ``app``, which is locked, and give it back at the end.

    Then pid 1 holds it, or nobody does. Raises `layerrun.errors.LaunchError`.
    """
    if not is_given(grants):
        yield Made()
        return
    from layerrun.runtime import private

    network = private.make(app.id, grants.publish, names.read_resolver())
    try:
        name = names.host_name(app)
        names.write(store, app, "hosts", names.hosts(name, network.address, of_host=True))
        names.write(store, app, "resolv.conf", network.resolver.text())
        yield Made(network.net_fd, network.keep)
    finally:
        for fd in (network.net_fd, *network.keep):
            os.close(fd)
