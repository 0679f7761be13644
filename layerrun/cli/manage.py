"""``create``, ``rename`` and ``remove``: what apps there are."""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import RunVerb, Verb, ask, ask_before, open_store
from layerrun.cli.edit import from_option, read_manifest
from layerrun.cli.options import app_argument, base_option, kill_option, yes_option
from layerrun.cli.output import plural, say
from layerrun.cli.policy import asked_policy, env_option, health_option, policy_options, warn_of_limits
from layerrun.cli.sizes import sized
from layerrun.cli.userns import id_mode, no_userns_option, warn_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from layerrun.model import App, AppConfig
    from layerrun.store.store import Store

__all__ = ["create", "remove", "rename"]


@click.command(
    cls=RunVerb,
    runs=False,
    examples=[
        (
            "layerrun create web --share /srv/www:/var/www:ro -- nginx -g 'daemon off;'",
            "an app over the host",
        ),
        ("layerrun create db --base debian --home fresh", "an app over an imported base"),
        ("layerrun create quiet --hide /etc/ssh --network none", "hide a path, and no network"),
        ("layerrun create paint --preset desktop --share ~/Pictures -- gimp", "windows, sound, its pictures"),
        ("layerrun show web --toml | layerrun create shop --from -", "another app like web"),
    ],
)
@app_argument()
@base_option
@click.option(
    "--share", "shares", multiple=True, metavar="SRC[:DST][:ro]", help="Bind a host path; a reset spares it."
)
@click.option("--hide", "hides", multiple=True, metavar="PATH", help="Make a path empty inside.")
@click.option(
    "--home",
    type=click.Choice(["overlay", "fresh", "share"]),
    default="overlay",
    show_default=True,
    help="The base's home under the app's layer, an empty one of its own, or the real one.",
)
@click.option(
    "--cache", "caches", multiple=True, metavar="PATH", help="A path that clear-cache drops as well."
)
@policy_options
@env_option
@health_option
@click.option("--command", metavar="LINE", help="The app's own command, split into words as a shell would.")
@from_option("Take all of this from a TOML file, as `show --toml` prints it (- is standard input).")
@no_userns_option
@click.option(
    "--ids",
    type=click.Choice(["range", "subids", "single", "self", "none"]),
    help="How ids inside relate to ids outside.  [default: what fits]",
)
def create(
    *,
    name: str,
    base: str,
    shares: tuple[str, ...],
    hides: tuple[str, ...],
    home: str,
    caches: tuple[str, ...],
    env: tuple[str, ...],
    health: tuple[str, ...],
    command: str | None,
    no_userns: bool,
    ids: str | None,
    source: str | None,
    argv: tuple[str, ...] | None,
    **policy: Any,
) -> int:
    """Make the app NAME without running it; CMD becomes its own command."""
    from layerrun.cli.run import env_words
    from layerrun.model import AppConfig, Home, IdMode, Share, check_name, check_path

    if command is not None and argv is not None:
        raise click.UsageError("the command is given twice: by --command and after --")
    check_name(name)
    if source is not None:
        config = _from_file(source, argv)
    else:
        config = AppConfig(
            base=base,
            shares=tuple(Share.parse(share) for share in shares),
            hides=tuple(check_path(path, "--hide") for path in hides),
            home=Home(home),
            caches=tuple(check_path(path, "--cache") for path in caches),
            command=argv or _words(command),
            env=env_words(env),
            health=health,
            policy=asked_policy(policy),
        )
    with open_store() as store:
        from layerrun.runtime import apps

        mode = id_mode(no_userns, IdMode(ids) if ids else None)
        made = apps.create(store, name, config, ids=mode)
        say(f"created app {name} over {config.base}")
        warn_of(made)
        warn_of_limits(store, made)
        for path in store.kept(name):
            say(f"the data of an earlier {name} is still kept in {path}")
    return 0


def _from_file(source: str, argv: tuple[str, ...] | None) -> AppConfig:
    """Return the configuration in a file, which excludes the options that say the same, with the command after --."""
    import attrs
    from click.core import ParameterSource

    from layerrun.config.manifest import from_toml

    ctx = click.get_current_context()
    beside = ("name", "source", "argv", "no_userns", "ids")
    for param in ctx.command.params:
        if (
            param.name not in beside
            and ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        ):
            raise click.UsageError(f"--from says everything, and excludes {param.opts[0]}")
    config = from_toml(read_manifest(source), source)
    return config if argv is None else attrs.evolve(config, command=argv)


def _words(command: str | None) -> tuple[str, ...]:
    if command is None:
        return ()
    try:
        words = tuple(shlex.split(command))
    except ValueError as error:
        raise click.UsageError(f"bad --command {command!r}: {error}") from error
    if not words:
        raise click.UsageError("bad --command: it is empty")
    return words


@click.command(
    cls=Verb,
    examples=[
        ("layerrun rename web shop", "web is called shop from now on, and web@work shop@work"),
        ("layerrun rename web@work web@home", "a profile, which stays with its app"),
    ],
)
@app_argument("old")
@click.argument("new", metavar="NEW")
def rename(old: str, new: str) -> int:
    """Give the app or throwaway OLD the name NEW; its data stays. Its profiles go along."""
    from layerrun.model import check_app_name, check_name

    # Before the store is opened: of a profile's new name the store knows more.
    check_app_name(new) if "@" in old else check_name(new)
    with open_store() as store:
        store.rename_app(old, new)
    return 0


@click.command(
    cls=Verb,
    examples=[
        ("layerrun remove web", "ask, then remove web and its data"),
        ("layerrun remove -y web db", "remove two, without asking"),
        ("layerrun remove -y --kill web", "end web if it runs, then remove it"),
        ("layerrun remove --keep-data web", "remove the app, put its data aside in the store"),
    ],
)
@app_argument("names", many=True)
@click.option("--keep-data", is_flag=True, help="Put the data aside in the store, and say where.")
@kill_option
@yes_option
def remove(names: tuple[str, ...], keep_data: bool, kill: bool, yes: bool) -> int:
    """Remove apps, with their profiles, or throwaways, with all their data; none may be running.

    Shares are not touched.
    """
    # Data that is kept is no loss; then there is nothing to ask.
    asking = not keep_data and ask_before("remove destroys data", yes=yes)
    from layerrun.runtime import instances, squash

    with open_store() as store:
        found, along = _found(store, names)
        if asking:
            _ask_to_remove(store, found.values(), along)
        for app in found.values():
            going = [app, *(p for p in along.values() if p.parent == app.id)]
            gone = partial(squash.remove, store, going, keep_data=keep_data, along=along)
            for path in instances.ended_first(store, going, gone, kill=kill):
                say(f"kept the data of {path.rpartition('/')[2].rpartition('-')[0]} in {path}")
    return 0


def _found(store: Store, names: Sequence[str]) -> tuple[dict[str, App], dict[str, App]]:
    """Return the apps meant, and the profiles that go along with one of them, by id."""
    apps = {name: store.app(name) for name in names}
    along = {p.id: p for app in apps.values() for p in store.profiles(app)}
    return {name: app for name, app in apps.items() if app.id not in along}, along


def _ask_to_remove(store: Store, apps: Iterable[App], along: Mapping[str, App]) -> None:
    """Name what would be destroyed, the profiles beneath their apps."""
    shown = [one for app in apps for one in (app, *(p for p in along.values() if p.parent == app.id))]
    also = f", and {plural(len(along), 'profile')} along" if along else ""
    ask(f"Remove with all data{also}?", sized(store, shown))
