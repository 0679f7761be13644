"""``edit``: give an app another configuration, by options, from a file, or in an editor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import RunVerb, has_terminal, open_store
from layerrun.cli.options import app_argument, kill_option
from layerrun.cli.output import say
from layerrun.cli.policy import changed_policy, env_option, health_option, policy_options, warn_of_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from layerrun.model import App, AppConfig
    from layerrun.policy import Policy

__all__ = ["edit", "from_option", "read_manifest"]

# What an --unset KEY=VALUE names of a list's entry, and the list's name in the configuration.
_KEYED: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "env": ("env", lambda word: word.partition("=")[0]),
    "share": ("shares", lambda share: share.target),
    "hide": ("hides", str),
    "cache": ("caches", str),
    "health": ("health", str),
}
_KEYED_POLICY: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "publish": ("publish", str),
    "socket": ("sockets", lambda socket: socket.kind),
    "device": ("devices", str),
    "allow": ("allow", str),
    "deny": ("deny", str),
    "limit": ("limits", lambda limit: limit.name),
}
_SINGLE_POLICY = ("preset", "network", "user", "max-size")
_UNSET = (*_KEYED, "home", "command", *_KEYED_POLICY, *_SINGLE_POLICY)


def from_option(help_text: str) -> Callable[[Any], Any]:
    """Return a decorator that adds ``--from``."""
    return click.option("--from", "source", metavar="FILE", type=click.Path(allow_dash=True), help=help_text)


def read_manifest(path: str) -> str:
    """Return the text of a manifest; ``-`` is standard input."""
    from layerrun.errors import UsageError

    try:
        with click.open_file(path, encoding="utf-8") as file:
            text: str = file.read(1024**2 + 1)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"cannot read {path!r}: {why}") from None
    if len(text) > 1024**2:
        raise UsageError(f"{path!r} is no manifest: it is too long")
    return text


@click.command(
    cls=RunVerb,
    runs=False,
    examples=[
        ("layerrun edit web --network private --publish 8080:80", "what is said is changed, the rest stays"),
        ("layerrun edit web --unset share=/srv --unset limit=memory", "take single things back"),
        ("layerrun edit web --unset policy", "the preset default, and nothing beside it"),
        ("layerrun edit web", "all of it, in your editor"),
        ("layerrun show web --toml | layerrun edit shop --from -", "the same for shop"),
    ],
)
@app_argument()
@click.option("--share", "shares", multiple=True, metavar="SRC[:DST][:ro]", help="Bind a host path as well.")
@click.option("--hide", "hides", multiple=True, metavar="PATH", help="Make a path empty inside, too.")
@click.option("--home", type=click.Choice(["overlay", "fresh", "share"]), help="The home inside.")
@click.option("--cache", "caches", multiple=True, metavar="PATH", help="Another path that clear-cache drops.")
@policy_options
@env_option
@health_option
@click.option(
    "--unset",
    "unset",
    multiple=True,
    metavar="KEY[=VALUE]",
    help="Take back what an option of that name had set, or one value of it; policy: all of the policy.",
)
@from_option("Take the whole configuration from a TOML file (- is standard input).")
@kill_option
def edit(
    *,
    name: str,
    source: str | None,
    unset: tuple[str, ...],
    kill: bool,
    argv: tuple[str, ...] | None,
    **given: Any,
) -> int:
    """Change the configuration of the app NAME, which must not be running; its data stays.

    Without options it opens in $VISUAL or $EDITOR, as TOML. CMD becomes the app's own command. What is given in a list
    (shares, limits) is added to it, or replaces what is there of the same name. The base and the layers stay.
    """
    from layerrun.model import AppKind

    given = {key: value for key, value in given.items() if value not in (None, ())}
    if source is not None and (given or unset or argv is not None):
        raise click.UsageError("--from says everything, and excludes the other options")
    with open_store() as store:
        from layerrun.config.manifest import from_toml
        from layerrun.runtime import apps, instances

        app = store.app(name, AppKind.APP)
        if source is not None:
            config = from_toml(read_manifest(source), source)
        elif given or unset or argv is not None:
            config = _changed(app.config, given, unset, argv)
        else:
            config = _in_editor(app)
        if config == app.config:
            say(f"{name} is like that already")
            return 0
        family = [app, *store.profiles(app)]
        now = instances.ended_first(store, family, lambda: apps.configure(store, app, config), kill=kill)
        say(f"changed {name}: {', '.join(_differences(app.config, config))}")
        warn_of_limits(store, now)
    return 0


def _changed(
    config: AppConfig, given: dict[str, Any], unset: Iterable[str], argv: tuple[str, ...] | None
) -> AppConfig:
    import attrs

    from layerrun.cli.run import env_words
    from layerrun.model import Share, check_path
    from layerrun.policy import Policy

    policy = config.policy
    for word in unset:
        if word == "policy":
            policy = Policy()
        else:
            config, policy = _without(config, policy, word)
    values: dict[str, Any] = {}
    if "shares" in given:
        values["shares"] = _merged(config.shares, map(Share.parse, given.pop("shares")), "share")
    if "env" in given:
        values["env"] = _merged(config.env, env_words(given.pop("env")), "env")
    for option in ("hide", "cache"):
        key = f"{option}s"
        if key in given:
            paths = (check_path(path, f"--{option}") for path in given.pop(key))
            values[key] = _merged(getattr(config, key), paths, option)
    if "health" in given:
        values["health"] = _merged(config.health, given.pop("health"), "health")
    if "home" in given:
        values["home"] = given.pop("home")
    if argv is not None:
        values["command"] = argv
    return attrs.evolve(config, policy=changed_policy(policy, given), **values)


def _merged(old: Iterable[Any], new: Iterable[Any], option: str) -> tuple[Any, ...]:
    key = _KEYED[option][1]
    return tuple({key(one): one for one in (*old, *new)}.values())


def _without(config: AppConfig, policy: Policy, word: str) -> tuple[AppConfig, Policy]:
    """Return both without what ``word``, KEY or KEY=VALUE, names."""
    import attrs

    from layerrun.cli.common import nearest
    from layerrun.errors import UsageError

    key, equals, value = word.partition("=")
    if key not in _UNSET:
        guess = nearest(key, _UNSET)
        raise UsageError(
            f"bad --unset {word!r}: there is nothing called {key!r}",
            hint=f"did you mean {guess[0]}?" if guess else "one of: policy, " + ", ".join(_UNSET),
        )
    if key in ("home", "command") or key in _SINGLE_POLICY:
        if equals:
            raise UsageError(f"bad --unset {word!r}: {key} has one value", hint=f"--unset {key}")
        if key == "home":
            return attrs.evolve(config, home="overlay"), policy
        if key == "command":
            return attrs.evolve(config, command=()), policy
        single: dict[str, Any] = {key.replace("-", "_"): "default" if key == "preset" else None}
        return config, attrs.evolve(policy, **single)
    of_policy = key in _KEYED_POLICY
    field, name = (_KEYED_POLICY if of_policy else _KEYED)[key]
    old = getattr(policy if of_policy else config, field)
    kept = tuple(one for one in old if equals and value not in (name(one), str(one)))
    if len(kept) == len(old):
        there = ", ".join(name(one) for one in old) or "nothing"
        raise UsageError(f"nothing to --unset: there is no {word}", hint=f"there is: {there}")
    values: dict[str, Any] = {field: kept}
    if of_policy:
        return config, attrs.evolve(policy, **values)
    return attrs.evolve(config, **values), policy


def _in_editor(app: App) -> AppConfig:
    """Let the user change it; what makes no sense is shown and may be changed again."""
    from layerrun.config.manifest import from_toml, to_toml
    from layerrun.errors import UsageError

    if not has_terminal():
        raise UsageError(
            "there is no terminal for an editor",
            hint=f"layerrun edit {app.name} --from FILE, or with options",
        )
    text: str | None = f"# {app.name}: an empty file changes nothing.\n" + to_toml(app.config)
    while True:
        text = click.edit(text, extension=".toml")
        if text is None or not text.strip():
            return app.config
        try:
            return from_toml(text)
        except UsageError as error:
            say(str(error))
            if error.hint:
                say(error.hint)
            if not click.confirm("Edit it again?", default=True, err=True):
                raise


def _differences(old: AppConfig, new: AppConfig) -> list[str]:
    before, after = old.to_json(), new.to_json()
    first, second = before.pop("policy"), after.pop("policy")
    pairs = [(before, after), (first, second)]
    return [key.replace("_", "-") for one, two in pairs for key in one if one[key] != two[key]]
