"""``push``, ``pull``, ``base push``, ``base pull``: apps and bases to registries and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from layerrun.cli.common import Verb, open_store
from layerrun.cli.options import app_argument, base_argument, json_option
from layerrun.cli.output import emit, plural, quoted, say, size, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from layerrun.bases.manifest import Progress
    from layerrun.fleet.pull import Wish
    from layerrun.fleet.push import Pushed
    from layerrun.images.transport import Access

__all__ = ["access_of", "base_pull", "base_push", "pull", "push", "registry_options"]

_MANY = 10  # files that are named

F = TypeVar("F", bound="Callable[..., Any]")


def registry_options(function: F) -> F:
    """Add the options that say how to reach a registry; `access_of` reads them."""
    for option in (
        click.option(
            "--auth-file",
            metavar="FILE",
            type=click.Path(readable=False),
            help="Credentials, as `podman login` keeps them, instead of the usual files.",
        ),
        click.option(
            "--cert-dir",
            metavar="DIR",
            type=click.Path(readable=False),
            help="Authorities (*.crt) and certificates of one's own (*.cert, *.key).",
        ),
        click.option(
            "--insecure", is_flag=True, help="Take any certificate, and HTTP where there is no TLS."
        ),
    ):
        function = option(function)
    return function


def access_of(insecure: bool, cert_dir: str | None, auth_file: str | None) -> Access:
    """Return how to reach registries, as the options of `registry_options` say."""
    from layerrun.images.transport import Access

    return Access(insecure=insecure, cert_dir=cert_dir, auth_file=auth_file)


_gzip_option = click.option(
    "--gzip", is_flag=True, help="Compress layers by gzip, for what is older than 2021, instead of zstd."
)


_dry_run_option = click.option(
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
@_dry_run_option
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
@_dry_run_option
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


def _wish(access: dict[str, Any], platform: str | None, progress: Progress, **more: Any) -> Wish:
    from layerrun.fleet.pull import Wish
    from layerrun.images.platform import parse_platform

    return Wish(
        access=access_of(**access),
        platform=parse_platform(platform) if platform else None,
        progress=progress,
        fetching=lambda count, _total: progress(0, count),
        **more,
    )


_platform_option = click.option(
    "--platform",
    metavar="OS/ARCH",
    help="Of an image for several, the one for this.  [default: this machine]",
)


@click.command(
    cls=Verb,
    examples=[
        ("layerrun pull web oci://registry.example.org/apps/web:1.4", "an app that layerrun push has sent"),
        (
            "layerrun pull web oci://docker.io/library/nginx:1.27",
            "any other image: a base, and an app over it",
        ),
        (
            "layerrun pull web oci://registry.example.org/apps/web:1.4 --grants",
            "with its shares, its network and so on",
        ),
    ],
)
@app_argument()
@click.argument("reference", metavar="oci://HOST/NAME[:TAG][@DIGEST]")
@click.option(
    "--base",
    "base_name",
    metavar="NAME",
    help="What to call the base if it is not here.  [default: as the image says] Of layers alone: what they go over.",
)
@click.option(
    "--grants",
    is_flag=True,
    help="Give the app what it asks for of this machine: shares, devices, sockets and so on",
)
@_platform_option
@registry_options
@json_option
def pull(
    *,
    name: str,
    reference: str,
    base_name: str | None,
    grants: bool,
    platform: str | None,
    as_json: bool,
    **access: Any,
) -> int:
    """Pull an image from a registry and make the app NAME of it.

    What `layerrun push` has sent is the same app again, but for what it may reach of this machine: that takes
    --grants. What `push --layers` has sent is put over the base that it was made for, which must be here, or over
    --base. Of any other image all layers become a base, and the app runs the image's command. Layers and bases that are
    here already are not read again.
    """
    from layerrun.cli.progress import counter

    with open_store() as store, counter(f"pulling {name}") as progress:
        from layerrun.fleet.pull import pull_app

        wish = _wish(access, platform, progress, base_name=base_name, grants=grants)
        done = pull_app(store, name, reference, wish)
    if as_json:
        emit(
            {
                "name": done.app.name,
                "reference": reference,
                "digest": done.digest,
                "base": done.base.name,
                "base_digest": done.base.digest,
                "base_made": done.base_made,
                "layers": list(done.app.config.layers),
                "left_out": list(done.left_out),
                "privileged": list(done.privileged),
            }
        )
        return 0
    here = "" if done.base_made else ", which was here"
    say(f"pulled {name}: {plural(len(done.app.config.layers), 'layer')} over the base {done.base.name}{here}")
    for what in done.left_out:
        say(f"left out: {what} (--grants takes it over)")
    for path in done.privileged[:_MANY]:
        say(f"gives rights to whoever runs it: {quoted(path)}")
    if len(done.privileged) > _MANY:
        say(f"and {len(done.privileged) - _MANY} more files that give rights")
    return 0


@click.command(
    "pull",
    cls=Verb,
    examples=[
        ("layerrun base pull debian oci://docker.io/library/debian:12", "the image as the base debian"),
        ("layerrun base pull debian oci://127.0.0.1:5000/debian --insecure", "without TLS"),
        (
            "layerrun base pull web oci://registry.example.org/web@sha256:HEX --platform linux/arm64",
            "exactly that one",
        ),
    ],
)
@click.argument("name", metavar="NAME")
@click.argument("reference", metavar="oci://HOST/NAME[:TAG][@DIGEST]")
@_platform_option
@registry_options
@json_option
def base_pull(name: str, reference: str, platform: str | None, as_json: bool, **access: Any) -> int:
    """Pull an image from a registry into the store as the base NAME.

    Each byte is verified by its digest. A pull that was cut short goes on where it was, at the next try.
    """
    from layerrun.cli.progress import counter

    with open_store() as store, counter(f"pulling {name}") as progress:
        from layerrun.fleet.pull import pull_base

        known = {found.id for found in store.catalog.versions()}
        wish = _wish(access, platform, progress)
        made = pull_base(store, name, reference, wish)
    if as_json:
        emit(
            {
                "name": made.name,
                "id": made.id,
                "digest": made.digest,
                "source": made.source,
                "entries": made.entries,
                "size": made.size,
                "image": made.origin.get("digest"),
            }
        )
        return 0
    done = "is there already, with the same content" if made.id in known else "pulled"
    say(f"{name} {done}: {plural(made.entries, 'entry', 'entries')}, {size(made.size)}, {made.digest}")
    return 0


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
