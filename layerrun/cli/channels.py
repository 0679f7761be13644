"""``base follow|unfollow`` and ``update``: bases that keep up with a signed channel."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import Verb, answer, ask, ask_before, has_terminal, open_store, settings
from layerrun.cli.options import base_argument, complete_from, json_option, yes_option
from layerrun.cli.output import emit, say, table

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from layerrun.fleet.release import Release
    from layerrun.fleet.updating import News
    from layerrun.store.store import Store
    from layerrun.updates.switching import Switched
    from layerrun.updates.update import Found

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
        ("layerrun update", "bring every base that follows a channel up to date, and ask before each"),
        ("layerrun update --check", "only say what there is"),
        (
            "layerrun update --stage",
            "as a timer does: get it and check it; the next start of an app switches",
        ),
        ("layerrun update debian --apply", "switch now to what is staged"),
        ("layerrun update --timer /etc/systemd/system", "write a timer that stages every day"),
    ],
)
@click.argument("names", metavar="[NAME]...", nargs=-1, shell_complete=_complete_followers)
@click.option("--check", "how", flag_value="check", help="Say what there is, and fetch nothing.")
@click.option(
    "--stage", "how", flag_value="stage", help="Get it; the next start of an app of the base switches."
)
@click.option("--apply", "how", flag_value="apply", help="Ask nobody; switch to what is staged.")
@click.option(
    "--test", "checks", metavar="CMD", multiple=True, help="A command that must go well over it, too."
)
@click.option(
    "--timeout",
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(min=0.1),
    help="For each check.",
)
@click.option(
    "--timer",
    metavar="DIR",
    type=click.Path(file_okay=False),
    help="Write systemd's units for it into DIR, and do nothing else.",
)
@json_option
@yes_option
def update(
    *,
    names: tuple[str, ...],
    how: str | None,
    checks: tuple[str, ...],
    timeout: float,
    timer: str | None,
    as_json: bool,
    yes: bool,
) -> int:
    """Bring the bases NAME, or all that follow a channel, to what their channels offer.

    A new version is fetched, imported beside the current one and checked as `base update` does; what runs keeps what it
    has. If a base cannot be brought there the others are, and the exit status says so: 4 for a check that failed. What
    failed is not tried again until the channel has something newer, or it is named. A base that is not there yet is
    imported.
    """
    if timer is not None:
        return _write_timer(timer)
    asking = how is None and ask_before("update changes what apps stand on", yes=yes)
    with open_store() as store:
        from layerrun.fleet import following

        wanted = [following.channel_of(store, name) for name in names] or store.catalog.channels()
        work = _Work(store, how, checks, timeout, named=bool(names), asking=asking, quiet=as_json)
        results = [work.bring(channel.slot) for channel in wanted]
    if as_json:
        emit({"bases": results})
    else:
        table(
            ["BASE", "CHANNEL", "VERSION", "STATE"],
            (
                [one["name"], one.get("channel", "-"), one.get("version", "-"), one["state"]]
                for one in results
            ),
        )
    return max([work.status], default=0)


def _write_timer(folder: str) -> int:
    from layerrun.fleet import timer
    from layerrun.store.paths import default_store

    store = settings().store
    timer.write_units(folder, os.path.abspath(store) if store else default_store())
    user = "" if os.geteuid() == 0 else " --user"
    say(f"wrote {' and '.join(timer.UNITS)}; to enable it: systemctl{user} enable --now {timer.UNITS[1]}")
    return 0


class _Work:
    """One call of `update`: what is done to each base, and the worst exit status so far."""

    def __init__(
        self,
        store: Store,
        how: str | None,
        checks: tuple[str, ...],
        timeout: float,
        *,
        named: bool,
        asking: bool,
        quiet: bool,
    ) -> None:
        self.status = 0
        self._store, self._how, self._checks, self._timeout = store, how, checks, timeout
        self._named, self._asking, self._quiet = named, asking, quiet

    def bring(self, name: str) -> dict[str, Any]:
        """Bring one base along; return what became of it, as JSON."""
        from layerrun.cli.exits import report, status_of
        from layerrun.errors import LayerrunError

        try:
            return {"name": name, **(self._apply(name) if self._how == "apply" else self._ask(name))}
        except (LayerrunError, OSError) as error:
            report(error)
            self.status = max(self.status, status_of(error))
            return {"name": name, "state": _word(error), "error": str(error)}

    def _apply(self, name: str) -> dict[str, Any]:
        from layerrun.fleet import updating

        switched = updating.apply(self._store, name)
        if switched is None:
            return {"state": "current"}
        self._said(switched)
        return {"state": "updated", "base": switched.new.full_name}

    def _ask(self, name: str) -> dict[str, Any]:
        from layerrun.fleet import updating

        news = updating.check(self._store, name)
        state = news.state
        if self._how != "check":
            if state == "staged" and self._how is None:
                return {**self._apply(name), **_release(news.release)}
            if state == "available" or (state == "failed" and self._named):
                state = self._get(news)
        return {"state": state, **_release(news.release)}

    def _get(self, news: News) -> str:
        from layerrun.cli.progress import counter
        from layerrun.fleet import updating

        name = news.channel.slot
        wanted = updating.Wanted(self._how == "stage", self._checks, self._timeout)
        with counter(f"getting {name}") as progress:
            state, _, switched = updating.get(
                self._store,
                news,
                wanted,
                progress=progress,
                agree=progress.between(self._agree),
                told=progress.between(self._tell),
            )
        if switched is not None:
            self._said(switched)
        return state

    def _tell(self, text: str) -> None:
        if not self._quiet:
            say(text)

    def _said(self, switched: Switched) -> None:
        from layerrun.cli.updating import say_switched

        if not self._quiet:
            say_switched(switched)

    def _agree(self, found: Found) -> bool:
        from layerrun.cli.updating import show

        if not self._quiet:
            show(found, None)
        return not self._asking or answer(f"Switch to {found.new.full_name}? [y/N] ") in ("y", "yes")


def _word(error: Exception) -> str:
    """Return one word for why a base was not brought along."""
    from layerrun.errors import BusyError, HealthError, TrustError, UnreachableError

    words = {TrustError: "refused", UnreachableError: "unreachable", HealthError: "failed", BusyError: "busy"}
    return next((word for kind, word in words.items() if isinstance(error, kind)), "error")
