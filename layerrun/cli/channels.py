"""``base follow|unfollow`` and ``update``: bases that keep up with a signed channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import (
    Verb,
    ask,
    base_argument,
    complete_from,
    has_terminal,
    json_option,
    open_store,
    yes_option,
)
from layerrun.cli.output import emit, say, size, table

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from layerrun.fleet.release import Release
    from layerrun.fleet.updating import News

__all__ = ["follow", "unfollow", "update"]


def _complete_followers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return complete_from(ctx, lambda store: (one.slot for one in store.catalog.channels()), incomplete)


def _release(found: Release) -> dict[str, Any]:
    return {
        "channel": found.channel,
        "arch": found.arch,
        "version": found.version,
        "sequence": found.sequence,
        "image": found.image.reference or found.image.file,
        "digest": found.image.digest,
        "size": found.image.size,
    }


@click.command(
    cls=Verb,
    examples=[
        (
            "layerrun base follow debian https://example.org/bases --root 1.root.json",
            "with the root you were given",
        ),
        (
            "layerrun base follow debian https://example.org/bases --fingerprint 3f2a91c0...",
            "or with its fingerprint",
        ),
        ("layerrun update debian", "and get what it offers"),
    ],
)
@base_argument
@click.argument("url", metavar="URL")
@click.option(
    "--channel", metavar="CHANNEL", default="stable", show_default=True, help="Which of its channels."
)
@click.option("--arch", metavar="ARCH", help="For which machines.  [default: this one's]")
@click.option(
    "--root", "root_file", metavar="FILE", type=click.Path(), help="The root to trust, N.root.json."
)
@click.option("--fingerprint", metavar="SHA256", help="What the channel's first root must be recognised by.")
@json_option
@yes_option
def follow(  # noqa: PLR0917  (click gives them by name)
    name: str,
    url: str,
    channel: str,
    arch: str | None,
    root_file: str | None,
    fingerprint: str | None,
    as_json: bool,
    yes: bool,
) -> int:
    """Let the base NAME, which need not be there yet, follow a signed channel at URL: http(s), or a folder.

    All trust begins with a root, a file that whoever runs the channel gives you by another way than the channel itself.
    Without --root and --fingerprint the first root that the channel has is shown, and you are asked. Nothing is
    imported until `layerrun update`.
    """
    from layerrun.fleet import following
    from layerrun.store.fs import explain

    if root_file is not None and fingerprint is not None:
        raise click.UsageError("--root and --fingerprint exclude each other")
    root = None
    if root_file is not None:
        with explain("read", root_file), open(root_file, "rb") as file:
            root = file.read(1 << 20)

    def agree(print_: str, ids: list[str], threshold: int) -> None:
        if yes:
            say(f"trusting the root with the fingerprint {print_}, since -y says so")
            return
        if not has_terminal():
            from layerrun.errors import UsageError

            raise UsageError(
                "nobody vouches for the root of this channel, and there is no terminal to ask on",
                hint=f"compare it, then say --fingerprint {print_}",
            )
        shown = [f"fingerprint {print_}", f"{threshold} of these keys sign it:", *(f"  {one}" for one in ids)]
        ask("Trust the root of this channel?", shown)

    with open_store() as store:
        made, found = following.follow(
            store, name, url, channel=channel, arch=arch, root=root, wanted=fingerprint, agree=agree
        )
    if as_json:
        emit({"name": name, "url": made.url, "root": made.state["root"], "offers": _release(found)})
    else:
        say(f"{name} follows {channel} at {made.url}, which offers {found.version}: layerrun update {name}")
    return 0


@click.command(cls=Verb, examples=[("layerrun base unfollow debian", "it stays as it is from now on")])
@base_argument
def unfollow(name: str) -> int:
    """Let the base NAME follow no channel any more. The base itself stays as it is."""
    from layerrun.fleet import following

    with open_store() as store:
        following.unfollow(store, name)
    return 0


@click.command(
    cls=Verb,
    examples=[
        ("layerrun update", "bring every base that follows a channel up to date"),
        ("layerrun update --check", "only say what there is"),
    ],
)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=_complete_followers)
@click.option("--check", "only_check", is_flag=True, help="Say what there is, and fetch nothing.")
@json_option
@yes_option
def update(*, names: tuple[str, ...], only_check: bool, as_json: bool, yes: bool) -> int:
    """Bring the bases NAME, or all that follow a channel, to what their channels offer."""
    from layerrun.cli.progress import counter
    from layerrun.errors import LayerrunError
    from layerrun.fleet import following, updating

    results: list[tuple[News, str]] = []
    with open_store() as store:
        wanted = [following.channel_of(store, name) for name in names] or store.catalog.channels()
        for channel in wanted:
            news = updating.check(store, channel.slot)
            done = "current" if not news.new else "available"
            if news.new and not only_check:
                if store.catalog.base(channel.slot) is not None:
                    raise LayerrunError("updates of bases that are there are not made yet")
                with counter(f"fetching {channel.slot}") as progress:
                    updating.get(store, news, progress=progress)
                done = "imported"
            results.append((news, done))
    if as_json:
        emit(
            {"bases": [{"name": n.channel.slot, "state": done, **_release(n.release)} for n, done in results]}
        )
        return 0
    table(
        ["BASE", "CHANNEL", "VERSION", ">SIZE", "STATE"],
        (
            [n.channel.slot, n.release.channel, n.release.version, size(n.release.image.size), done]
            for n, done in results
        ),
    )
    return 0
