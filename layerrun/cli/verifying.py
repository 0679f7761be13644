"""``verify``: whether an app's layers are as they were built or pulled."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import Verb, open_store
from layerrun.cli.options import app_argument, json_option
from layerrun.cli.output import emit, lines, plural, quoted, say

if TYPE_CHECKING:
    from layerrun.building.verifying import Verified

__all__ = ["verify"]


@click.command(
    cls=Verb,
    examples=[
        ("layerrun verify web", "read every byte of its layers; 1 if anything differs"),
        ("layerrun verify web --json", "by layer, for a program"),
        ("layerrun build web --no-cache", "what puts right what a build has made"),
    ],
)
@app_argument()
@json_option
def verify(name: str, as_json: bool) -> int:
    """Read the layers of the app NAME again and name every path that is not as it was built or pulled.

    What the app has written since is not looked at, and no more are snapshots and commits, of which nobody has noted
    what they should be. `base verify` is for the base. The exit status is 1 if anything differs.
    """
    with open_store() as store:
        from layerrun.building.verifying import verify as library

        app = store.app(name)
        found = list(library(store, app))
    if as_json:
        emit({"name": app.name, "intact": not any(one.wrong for one in found), "layers": _records(found)})
    else:
        _tell(app.name, found)
    return 1 if any(one.wrong for one in found) else 0


def _records(found: list[Verified]) -> list[dict[str, Any]]:
    return [
        {
            "layer": one.layer.id,
            "what": _what(one),
            "digest": one.layer.digest,
            "intact": None if one.unlisted else not one.wrong,
            "problems": [{"kind": wrong.kind, "path": wrong.path or None} for wrong in one.wrong],
        }
        for one in found
    ]


def _what(one: Verified) -> str | None:
    """Return what a layer was made by: a step, or the reference that it was pulled from."""
    said = one.layer.origin.get("step") or one.layer.origin.get("reference")
    return None if said is None else str(said)


def _tell(name: str, found: list[Verified]) -> None:
    for one in found:
        if one.wrong:
            say(f"layer {one.layer.id} is not as it was made: {quoted(_what(one) or '-')}")
        lines(
            f"{wrong.kind:<8} {quoted(wrong.path) if wrong.path else '(its listing)'}" for wrong in one.wrong
        )
    unlisted = sum(one.unlisted for one in found)
    if any(wrong.path == "/" and wrong.kind == "missing" for one in found for wrong in one.wrong):
        say("try: layerrun doctor  (a layer is gone)")
    elif any(one.wrong for one in found):
        say(f"try: layerrun build {name} --no-cache  (or pull it again)")
    elif unlisted < len(found) and sys.stdout.isatty():
        say(f"{plural(len(found) - unlisted, 'layer')} of {name} are intact")
    if unlisted:
        say(
            f"not looked at: {plural(unlisted, 'layer')} that {name} has written, of which there is no listing"
        )
    elif not found:
        say(f"{name} has no layers; layerrun base verify is for its base")
