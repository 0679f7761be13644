"""The network of a start: what is made for it before, and what the app's files say about it. See docs/network.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import attrs

from layerrun.policy import Grants, NetworkKind
from layerrun.runtime import links, names, pasta

if TYPE_CHECKING:
    from layerrun.model import App
    from layerrun.runtime import private
    from layerrun.store.store import Store

__all__ = ["Made", "is_given", "made", "write_files"]


@attrs.frozen
class Made:
    """What a start brings along, as `layerrun.native.launch.Start` has it."""

    net_fd: int = -1
    keep: tuple[int, ...] = ()


def is_given(store: Store, app: App, grants: Grants) -> bool:
    """Say whether the namespace is made before the start, in Python and as root."""
    if os.geteuid() != 0 or grants.network.kind is NetworkKind.HOST:
        return False
    return grants.network.kind is not NetworkKind.NONE or links.is_marked(store, app)


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
    if grants.network.kind is NetworkKind.LINK:
        links.other_end(store, app)
    if not is_given(store, app, grants):
        yield Made()
        return
    network = _make(app, grants)
    try:
        linked = grants.network.kind is NetworkKind.LINK or links.is_marked(store, app)
        name = names.host_name(app)
        text = names.hosts(name, network.address, of_host=network.resolver is not None)
        names.write(store, app, "hosts", text)
        if network.resolver is not None:
            names.write(store, app, "resolv.conf", network.resolver.text())
        if linked:
            for there, other in links.connect(store, app, network.net_fd):
                names.tell(store, app, there, other)
        yield Made(network.net_fd, network.keep)
    finally:
        for fd in (network.net_fd, *network.keep):
            os.close(fd)


def _make(app: App, grants: Grants) -> private.Private:
    from layerrun.runtime import netns, private

    if grants.network.kind is NetworkKind.PRIVATE:
        return private.make(app.id, grants.publish, names.read_resolver())
    return private.Private(netns.make(), (), "127.0.1.1", None)
