"""``push``, ``pull``, ``base push``, ``base pull``: apps and bases to registries and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from layerrun.cli.common import Verb, app_argument, base_argument, json_option, open_store
from layerrun.cli.output import emit, plural, quoted, say, size

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


def _say(pushed: Pushed, what: str, as_json: bool) -> None:
    if as_json:
        emit(
            {
                "name": what,
                "reference": str(pushed.reference),
                "digest": pushed.digest,
                "layers": list(pushed.layers),
                "sent": pushed.sent,
                "sent_bytes": pushed.sent_bytes,
            }
        )
        return
    total = plural(len(pushed.layers), "layer")
    sent = f"{pushed.sent} sent, {size(pushed.sent_bytes)}" if pushed.sent else "all there already"
    say(f"pushed {what} to {pushed.reference}: {total}, {sent}; {pushed.digest}")


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
@registry_options
@json_option
def base_push(name: str, reference: str, gzip: bool, as_json: bool, **access: Any) -> int:
    """Push the base NAME to a registry, as an image of one layer.

    What the registry has is not sent again. Credentials are those of `podman login`.
    """
    return _push("push_base", name, reference, gzip=gzip, as_json=as_json, access=access)


@click.command(
    cls=Verb,
    examples=[
        ("layerrun commit web", "what the app has written becomes part of it"),
        ("layerrun push web oci://registry.example.org/apps/web:1.4", "push it, with the base it stands on"),
        ("layerrun push web oci://registry.example.org/apps/web:1.4 --gzip", "for old clients"),
        (
            "layerrun pull web oci://registry.example.org/apps/web:1.4",
            "and elsewhere it is the same app again",
        ),
    ],
)
@app_argument()
@click.argument("reference", metavar="oci://HOST/NAME[:TAG]")
@_gzip_option
@registry_options
@json_option
def push(name: str, reference: str, gzip: bool, as_json: bool, **access: Any) -> int:
    """Push the app NAME to a registry, as an image: its base, the layers of its factory state, its command.

    What it has written since is not sent. What the registry has is not sent again.
    """
    return _push("push_app", name, reference, gzip=gzip, as_json=as_json, access=access)


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
    help="What to call the base if it is not here.  [default: as the image says]",
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
    --grants. Of any other image all layers become a base, and the app runs the image's command. Layers and bases that
    are here already are not read again.
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


def _push(
    function: str, name: str, reference: str, *, gzip: bool, as_json: bool, access: dict[str, Any]
) -> int:
    from layerrun.cli.progress import counter
    from layerrun.images.reference import Reference

    target = Reference.parse(reference)
    with open_store() as store, counter(f"pushing {name}") as progress:
        from layerrun.fleet import push as fleet
        from layerrun.fleet.writing import GZIP, ZSTD

        done = getattr(fleet, function)(
            store,
            name,
            target,
            access_of(**access),
            compression=GZIP if gzip else ZSTD,
            progress=lambda _what, count, _total: progress(0, count),
        )
    _say(done, name, as_json)
    return 0
