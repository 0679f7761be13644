"""``pull``, ``base pull``: apps and bases from registries, and apps brought to what their image is now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import Verb, answer, ask_before, open_store
from layerrun.cli.options import access_of, app_argument, json_option, registry_options, yes_option
from layerrun.cli.output import emit, plural, printable, quoted, say, size, table
from layerrun.cli.registry import dry_run_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerrun.bases.manifest import Progress
    from layerrun.fleet.planning import Fetches
    from layerrun.fleet.pull import PulledApp, Wish
    from layerrun.fleet.refreshing import Newer, Refreshed
    from layerrun.updates.shadows import Shadow
    from layerrun.updates.update import Found

__all__ = ["base_pull", "pull"]

_MANY = 10  # files that are named

_platform_option = click.option(
    "--platform",
    metavar="OS/ARCH",
    help="Of an image for several, the one for this.  [default: this machine]",
)


def _wish(access: dict[str, Any], platform: str | None, progress: Progress, **more: Any) -> Wish:
    from layerrun.fleet.wish import Wish
    from layerrun.images.platform import parse_platform

    return Wish(
        access=access_of(**access),
        platform=parse_platform(platform) if platform else None,
        progress=progress,
        fetching=lambda count, _total: progress(0, count),
        **more,
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
        ("layerrun pull web oci://registry.example.org/apps/web:1.4 --dry-run", "what would be read"),
        ("layerrun pull --update web", "what the tag stands for now; what the app has written stays"),
    ],
)
@app_argument()
@click.argument("reference", metavar="[oci://HOST/NAME[:TAG][@DIGEST]]", required=False)
@click.option(
    "--update", "updating", is_flag=True, help="Bring the app, which is here, to what its image is now."
)
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
@dry_run_option
@registry_options
@json_option
@yes_option
def pull(
    *,
    name: str,
    reference: str | None,
    updating: bool,
    base_name: str | None,
    grants: bool,
    platform: str | None,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    **access: Any,
) -> int:
    """Pull an image from a registry and make the app NAME of it.

    What `layerrun push` has sent is the same app again, but for what it may reach of this machine: that takes
    --grants. What `push --layers` has sent is put over the base that it was made for, which must be here, or over
    --base. Of any other image all layers become a base, and the app runs the image's command. Layers and bases that are
    here already are not read again.

    With --update an app that was pulled gets the layers and the base that its image has now. What it has written, its
    settings and its shares stay.
    """
    if reference is None and not updating:
        raise click.UsageError(
            "name an image, oci://HOST/NAME[:TAG], or say --update for an app that was pulled"
        )
    if grants and updating:
        raise click.UsageError("--grants is for a new app: --update leaves the settings as they are")
    asking = updating and not dry_run and ask_before("pull --update changes what the app stands on", yes=yes)
    from layerrun.cli.progress import counter

    with open_store() as store, counter(f"pulling {name}") as progress:
        wish = _wish(access, platform, progress, base_name=base_name, grants=grants)
        if updating:
            from layerrun.fleet import refreshing

            if dry_run:
                _say_newer(*refreshing.look(store, name, reference, wish), as_json=as_json)
                return 0
            work = _Asking(asking=asking, quiet=as_json)
            agree, told = progress.between(work.agree), progress.between(work.told)
            brought = refreshing.refresh(store, name, reference, wish, agree=agree, told=told)
        elif dry_run:
            from layerrun.fleet.planning import plan_app

            _say_fetches(plan_app(store, name, str(reference), wish), as_json=as_json)
            return 0
        else:
            from layerrun.fleet.pull import pull_app

            _say_pulled(pull_app(store, name, str(reference), wish), str(reference), as_json=as_json)
            return 0
    _say_brought(brought, as_json=as_json)
    return 0


def _say_pulled(done: PulledApp, reference: str, *, as_json: bool) -> None:
    name = done.app.name
    if as_json:
        emit(
            {
                "name": name,
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
        return
    here = "" if done.base_made else ", which was here"
    say(f"pulled {name}: {plural(len(done.app.config.layers), 'layer')} over the base {done.base.name}{here}")
    for what in done.left_out:
        say(f"left out: {what} (--grants takes it over)")
    _say_privileged(done.privileged)


def _say_privileged(paths: Sequence[str]) -> None:
    for path in paths[:_MANY]:
        say(f"gives rights to whoever runs it: {quoted(path)}")
    if len(paths) > _MANY:
        say(f"and {len(paths) - _MANY} more files that give rights")


def _fetches(plan: Fetches) -> dict[str, Any]:
    return {
        "digest": plan.digest,
        "base": plan.base,
        "base_here": plan.base_here,
        "missing_bytes": plan.missing,
        "parts": [
            {"digest": one.digest, "size": one.size, "missing": one.missing, "of_base": one.of_base}
            for one in plan.layers
        ],
        "dry_run": True,
    }


def _say_fetches(plan: Fetches, *, as_json: bool) -> None:
    if as_json:
        emit(_fetches(plan))
        return
    table(
        ["LAYER", "OF", ">SIZE", ">TO READ"],
        (
            [
                one.digest,
                "base" if one.of_base else "app",
                size(one.size),
                size(one.missing) if one.missing else "-",
            ]
            for one in plan.layers
        ),
    )
    here = "is here" if plan.base_here else "would be made"
    say(f"would read {size(plan.missing)}; the base {plan.base} {here}; {plan.digest}")


def _newer(newer: Newer) -> dict[str, Any]:
    return {
        "name": newer.app.name,
        "reference": newer.reference,
        "digest": newer.digest,
        "base": newer.base.full_name,
        "new_base": newer.new_base,
        "new_layers": newer.new_layers,
        "image_layers": len(newer.layers),
        "own_layers": list(newer.own),
        "differs": list(newer.differs),
        "apps": list(newer.apps),
    }


def _say_newer(newer: Newer, plan: Fetches, *, as_json: bool) -> None:
    if as_json:
        emit({**_newer(newer), **_fetches(plan)})
        return
    if not newer.is_new:
        say(f"{newer.app.name} is what {newer.reference} stands for: {newer.digest}")
        return
    _say_fetches(plan, as_json=False)
    _describe(newer)


def _describe(newer: Newer) -> None:
    name = newer.app.name
    if newer.new_base:
        say(
            f"{name} stands on {newer.base.full_name}; the image has another base, which becomes its next version"
        )
        if newer.said.digest and newer.said.base_name != newer.base.name:
            say(f"the image calls its base {printable(newer.said.base_name)}")
    if newer.apps:
        say(f"these move to the image's base too: {', '.join(newer.apps)}")
    if newer.new_layers:
        say(f"the image has {plural(len(newer.layers), 'layer')} over its base, others than {name} has")
    if newer.own:
        say(f"{plural(len(newer.own), 'layer')} that were committed to {name} stay above them")
    if newer.differs:
        say(f"the settings of {name} stay; the image has other ones for: {', '.join(newer.differs)}")


class _Asking:
    """Shows what is about to change, and asks."""

    def __init__(self, *, asking: bool, quiet: bool) -> None:
        self._asking, self._quiet = asking, quiet

    def told(self, text: str) -> None:
        if not self._quiet:
            say(printable(text))

    def agree(self, newer: Newer, found: Found | None, hidden: Sequence[Shadow]) -> bool:
        if not self._quiet:
            from layerrun.cli.updating import say_hidden, show

            _describe(newer)
            if found is not None:
                show(found, None)
            else:
                say_hidden(newer.app.name, hidden)
        return not self._asking or answer(f"Bring {newer.app.name} to it? [y/N] ") in ("y", "yes")


def _say_brought(done: Refreshed, *, as_json: bool) -> None:
    from layerrun.cli.updating import say_switched, shadow_record

    newer, name = done.newer, done.app.name
    if as_json:
        emit(
            {
                **_newer(newer),
                "changed": newer.is_new,
                "layers": list(done.app.config.layers),
                "version": None if done.switched is None else done.switched.new.version,
                "running": [] if done.switched is None else list(done.switched.running),
                "snapshot": done.snapshot,
                "hidden": [shadow_record(one) for one in done.hidden],
                "privileged": list(done.privileged),
            }
        )
        return
    if not newer.is_new:
        say(f"{name} is what {newer.reference} stands for already")
        return
    if done.switched is not None:
        say_switched(done.switched)
    say(f"{name} is what {newer.reference} stands for now: {newer.digest}")
    back = (
        f"layerrun base rollback {newer.base.name}"
        if done.switched is not None
        else f"layerrun rollback {name}"
    )
    say(f"{back}  takes it back")
    _say_privileged(done.privileged)


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
@dry_run_option
@registry_options
@json_option
def base_pull(
    name: str, reference: str, *, platform: str | None, dry_run: bool, as_json: bool, **access: Any
) -> int:
    """Pull an image from a registry into the store as the base NAME.

    Each byte is verified by its digest. A pull that was cut short goes on where it was, at the next try.
    """
    from layerrun.cli.progress import counter

    with open_store() as store, counter(f"pulling {name}") as progress:
        wish = _wish(access, platform, progress)
        if dry_run:
            from layerrun.fleet.planning import plan_base

            _say_fetches(plan_base(store, name, reference, wish), as_json=as_json)
            return 0
        from layerrun.fleet.pull import pull_base

        known = {found.id for found in store.catalog.versions()}
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
