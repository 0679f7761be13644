"""Which version of a base a tree that came in becomes: its first, its next, or one that is there already."""

from __future__ import annotations

from layerrun.errors import ExistsError, UsageError
from layerrun.model import HOST_BASE, Base, check_name
from layerrun.store.store import Store

__all__ = ["add", "check_new", "known"]


def check_new(name: str) -> None:
    """Refuse, by `UsageError`, what no base that is imported can be called."""
    if check_name(name, "name of a base") == HOST_BASE:
        raise UsageError("the base 'host' is the machine's own / and cannot be imported")


def known(store: Store, name: str, digest: str, *, version: bool) -> Base | None:
    """Return the base that is there with this content, or one of its versions with ``version``.

    Raises `ExistsError` where the name stands for another content and no ``version`` is wanted.
    """
    if version:
        return next((one for one in store.catalog.versions(name) if one.digest == digest), None)
    found = store.catalog.base(name)
    if found is None or found.digest == digest:
        return found
    raise ExistsError(
        f"there is a base {found.name!r} already, with another content ({found.digest})",
        hint=f"layerrun base update {name} --from SRC  (makes it its next version), or choose another name",
    )


def add(store: Store, base: Base, *, version: bool) -> Base:
    """Record a base as the first version of a new one, or with ``version`` as its next; within a transaction.

    Return it with its number. Raises `ExistsError`, `NotFoundError`.
    """
    if version:
        return store.catalog.add_next_version(base)
    store.catalog.add_base(base)
    return base
