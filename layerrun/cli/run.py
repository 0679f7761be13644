"""``app`` and ``shell``: run something in an app."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from layerrun.cli.common import F, RunVerb, app_argument, open_store
from layerrun.cli.output import say
from layerrun.cli.undo import check_mode, id_mode, no_userns_option, warn_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from layerrun.model import App, IdMode
    from layerrun.store.store import Store

__all__ = ["app", "run_options", "shell", "variables"]


def run_options(function: F) -> F:
    """Add ``--cwd`` and ``--env``."""
    function = click.option(
        "-e",
        "--env",
        "env",
        multiple=True,
        metavar="NAME=VALUE",
        help="Set a variable inside; may be repeated.",
    )(function)
    return click.option(
        "--cwd", metavar="PATH", help="The working folder inside.  [default: this one, if it is there]"
    )(function)


def variables(env: Sequence[str]) -> dict[str, str]:
    """Return ``NAME=VALUE`` words as a mapping."""
    from layerrun.errors import UsageError

    result = {}
    for word in env:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise UsageError(f"bad variable {word!r}", hint="write NAME=VALUE")
        result[name] = value
    return result


@click.command(
    cls=RunVerb,
    examples=[
        ("layerrun app web -- apt-get install -y nginx", "make the app web over the host, install into it"),
        ("layerrun app web -- nginx -g 'daemon off;'", "run what was installed"),
        ("layerrun app web", "run its own command (create web -- CMD...)"),
    ],
)
@app_argument()
@no_userns_option
@run_options
def app(
    name: str, no_userns: bool, cwd: str | None, env: tuple[str, ...], argv: tuple[str, ...] | None
) -> int:
    """Run CMD in the app NAME; without CMD, the app's own command.

    With CMD an app that does not exist yet is made over the host's own /. What CMD writes stays in the app's
    layer. What follows -- reaches the program untouched. The exit status is the program's own, 128+N after
    signal N; 125: it could not be started, 126: CMD cannot be executed, 127: CMD is not there.
    """
    from layerrun.model import check_name

    check_name(name)
    given = variables(env)
    with open_store() as store:
        from layerrun.runtime import launch

        found, created = _find(store, name, create=argv is not None, ids=id_mode(no_userns))
        if argv is None and not found.config.command:
            from layerrun.errors import UsageError

            raise UsageError(
                f"app {name} has no command of its own",
                hint=f"layerrun app {name} -- CMD…\nlayerrun shell {name}",
            )
        warn_of(found)
        created = created or os.environ.get(_PASSED) == "created"
        door = None if cwd or given else _front_door(store, found, argv, created=created)
        if not created:
            return launch.run(store, found, argv, cwd=cwd, env=given, door=door)
        return _first_run(store, found, argv, door, cwd=cwd, env=given)


# Set for a front door that Python has passed a start back to, so that neither passes it on for ever.
_PASSED = "LAYERRUN_PASSED"


def _front_door(
    store: Store, app: App, argv: Sequence[str] | None, *, created: bool
) -> Callable[[], None] | None:
    """Return what runs the start through the front door, so that no Python stays behind the app."""
    door = os.path.join(os.path.dirname(sys.executable), "layerrun")
    unwanted = os.environ.get("LAYERRUN_FRONT_DOOR") == "0" or _PASSED in os.environ
    if unwanted or not os.access(door, os.X_OK):
        return None
    words = [door, "app", app.name, *(["--", *argv] if argv else [])]
    env = {**os.environ, "LAYERRUN_STORE": store.path, _PASSED: "created" if created else "yes"}
    return lambda: os.execve(door, words, env)  # noqa: S606  (a shell is what it must not be)


def _find(store: Store, name: str, *, create: bool, ids: IdMode | None) -> tuple[App, bool]:
    """Return the app and whether it was made just now."""
    from layerrun.errors import ExistsError, NotFoundError
    from layerrun.model import AppConfig, AppKind
    from layerrun.runtime import apps

    try:
        found = store.app(name, AppKind.APP)
        check_mode(found, ids)
        return found, False
    except NotFoundError:
        if not create:
            raise
    config = AppConfig()
    try:
        made = apps.create(store, name, config, ids=ids)
    except ExistsError:
        # Another start of the same new app was quicker.
        return store.app(name, AppKind.APP), False
    say(f"created app {name} over {config.base}")
    return made, True


def _first_run(
    store: Store,
    app: App,
    argv: Sequence[str] | None,
    door: Callable[[], None] | None,
    *,
    cwd: str | None,
    env: dict[str, str],
) -> int:
    """Run a new app; if its command never ran, take the app back: a typing error leaves nothing."""
    from layerrun.errors import LaunchError
    from layerrun.runtime import launch

    try:
        return launch.run(store, app, argv, cwd=cwd, env=env, door=door)
    except LaunchError:
        store.remove_app(app.name, only=app.id)
        say(f"removed app {app.name} again: its command never ran")
        raise


@click.command(
    cls=RunVerb,
    examples=[
        ("layerrun shell web", "a login shell inside web"),
        ("layerrun shell web --cwd /srv", "the same, in /srv"),
    ],
)
@app_argument()
@run_options
def shell(name: str, cwd: str | None, env: tuple[str, ...], argv: tuple[str, ...] | None) -> int:
    """Open a login shell in the app NAME.

    The exit status is the shell's own; 125: it could not be started.
    """
    from layerrun.model import AppKind

    if argv is not None:
        raise click.UsageError(f"a shell takes no command: layerrun app {name} -- CMD... does")
    given = variables(env)
    with open_store() as store:
        from layerrun.runtime import launch

        found = store.app(name, AppKind.APP)
        warn_of(found)
        return launch.run(store, found, None, cwd=cwd, env=given, shell=True)  # noqa: S604  (no subprocess)
