"""``push``, ``base push``: apps and bases to registries. How they come back is in `layerrun.cli.pulling`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import click

from layerrun.cli.common import Verb, open_store
from layerrun.cli.options import access_of, app_argument, base_argument, json_option, registry_options
from layerrun.cli.output import emit, plural, say, size, table

if TYPE_CHECKING:
    from layerrun.fleet.push import Pushed

__all__ = ["base_push", "dry_run_option", "push"]


_gzip_option = click.option(
    "--gzip",
    is_flag=True,
    help="Compress layers by gzip instead of zstd: for Docker before 23, umoci and the like.",
)


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Ask the registry, say what would be done, and do nothing."
)


def _say(pushed: Pushed, what: str, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        emit(
            {
                "name": what,
                "reference": str(pushed.reference),
                "digest": pushed.digest,
                "layers": [part.digest for part in pushed.layers],
                "parts": [
                    {"digest": part.digest, "size": part.size, "sent": part.sent} for part in pushed.layers
                ],
                "sent": pushed.sent,
                "sent_bytes": pushed.sent_bytes,
                "changed": pushed.changed,
                "dry_run": dry_run,
            }
        )
        return
    total = plural(len(pushed.layers), "layer")
    sent = f"{pushed.sent} sent, {size(pushed.sent_bytes)}" if pushed.sent else "all there already"
    if not dry_run:
        say(f"pushed {what} to {pushed.reference}: {total}, {sent}; {pushed.digest}")
        return
    rows = [[part.digest, size(part.size), "to send" if part.sent else "there"] for part in pushed.layers]
    table(["LAYER", ">SIZE", "STATE"], rows)
    tag = "the tag would move" if pushed.changed else "the tag stands for it already"
    say(f"would send {pushed.sent} of {total}, {size(pushed.sent_bytes)}; {tag}; {pushed.digest}")


@click.command(
    "push",
    cls=Verb,
    examples=[
        (
            "layerrun base push debian oci://registry.example.org/bases/debian:12",
            "as an image with one layer",
        ),
        ("layerrun base push debian@2 oci://127.0.0.1:5000/debian --insecure", "a version; without TLS"),
    ],
)
@base_argument
@click.argument("reference", metavar="oci://HOST/NAME[:TAG]")
@_gzip_option
@dry_run_option
@registry_options
@json_option
def base_push(name: str, reference: str, *, gzip: bool, dry_run: bool, as_json: bool, **access: Any) -> int:
    """Push the base NAME to a registry, as an image of one layer.

    What the registry has is not sent again. Credentials are those of `podman login`.
    """
    return _push("push_base", name, reference, _How(gzip, dry_run, as_json), access)


@click.command(
    cls=Verb,
    examples=[
        ("layerrun commit web", "what the app has written becomes part of it"),
        ("layerrun push web oci://registry.example.org/apps/web:1.4", "push it, with the base it stands on"),
        ("layerrun push web oci://registry.example.org/apps/web:1.4 --gzip", "for old clients"),
        (
            "layerrun push web oci://registry.example.org/layers/web:1.4 --layers",
            "without its base, which may be the machine's /",
        ),
        (
            "layerrun pull web oci://registry.example.org/apps/web:1.4",
            "and elsewhere it is the same app again",
        ),
    ],
)
@app_argument()
@click.argument("reference", metavar="oci://HOST/NAME[:TAG]")
@click.option(
    "--layers",
    is_flag=True,
    help="Send what lies over the base alone, which names it: for machines that have the base, and for apps over /.",
)
@_gzip_option
@dry_run_option
@registry_options
@json_option
def push(
    name: str, reference: str, *, layers: bool, gzip: bool, dry_run: bool, as_json: bool, **access: Any
) -> int:
    """Push the app NAME to a registry, as an image: its base, the layers of its factory state, its command.

    What it has written since is not sent. What the registry has is not sent again. With --layers nobody can run what is
    sent: `layerrun pull` puts it over the base where that is.
    """
    how = _How(gzip, dry_run, as_json)
    return _push("push_layers" if layers else "push_app", name, reference, how, access)


class _How(NamedTuple):
    """How to push, and how to say what came of it."""

    gzip: bool
    dry_run: bool
    as_json: bool


def _push(function: str, name: str, reference: str, how: _How, access: dict[str, Any]) -> int:
    from layerrun.cli.progress import counter
    from layerrun.images.reference import Reference

    target = Reference.parse(reference)
    with open_store() as store, counter(f"pushing {name}") as progress:
        from layerrun.fleet import push as fleet
        from layerrun.fleet.writing import GZIP, ZSTD
        from layerrun.model import HOST_BASE

        wanted = fleet.Wanted(
            access=access_of(**access),
            compression=GZIP if how.gzip else ZSTD,
            dry_run=how.dry_run,
            progress=lambda _what, count, _total: progress(0, count),
        )
        if function == "push_layers" and store.app(name).config.base == HOST_BASE:
            say(f"note: {name} lies over this machine's own /: what it copied from there is sent as well")
        done = getattr(fleet, function)(store, name, target, wanted)
    _say(done, name, dry_run=how.dry_run, as_json=how.as_json)
    return 0
