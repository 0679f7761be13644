"""How the bases and their updates stand, as JSON data: `layerrun status`."""

from __future__ import annotations

from typing import Any

from layerrun.model import AppKind, Slot
from layerrun.store.store import Store

__all__ = ["standing"]


def standing(store: Store) -> dict[str, Any]:
    """Return ``bases`` (what is current, staged, failed, followed) and ``apps`` (those on trial, or fallen back)."""
    catalog = store.catalog
    return {"bases": [_base(store, slot) for slot in catalog.slots()], "apps": _apps(store)}


def _base(store: Store, slot: Slot) -> dict[str, Any]:
    versions = {base.id: base for base in store.catalog.versions(slot.name)}
    staged = None if slot.staged is None else versions[slot.staged].version
    apps = [name for name, kind in store.catalog.apps_on(slot.current) if kind is AppKind.APP]
    channel = store.catalog.channel(slot.name)
    return {
        "name": slot.name,
        "version": versions[slot.current].version,
        "digest": versions[slot.current].digest,
        "staged": staged,
        "failed": slot.failed or None,
        "versions": len(versions),
        "keep": slot.keep,
        "apps": apps,
        "channel": None if channel is None else channel.url,
        "refused": None if channel is None else channel.state.get("error"),
    }


def _apps(store: Store) -> list[dict[str, Any]]:
    found = []
    for trial in store.catalog.trials():
        app, back = store.catalog.app_by_id(trial.app_id), store.catalog.base_by_id(trial.base_id)
        if app is None or back is None:
            continue
        slot = store.catalog.slot(back.name)
        tried = None if slot is None else store.catalog.base_by_id(slot.current)
        found.append(
            {
                "name": app.name,
                "state": "fallen" if trial.fallen else "trial",
                "base": back.full_name if trial.fallen else app.config.base,
                "tried": None if tried is None else tried.full_name,
                "failures": trial.failures,
                "tries": trial.tries,
                "since": trial.since,
            }
        )
    return sorted(found, key=lambda one: str(one["name"]))
