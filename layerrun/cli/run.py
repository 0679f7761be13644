"""``app`` and ``shell``: run something in an app."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from layerrun.cli import exits, trials
from layerrun.cli.common import RunVerb, front_door, open_store, settings
from layerrun.cli.options import F, app_argument, profile_option
from layerrun.cli.output import say
from layerrun.cli.userns import check_mode, id_mode, no_userns_option, warn_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerrun.model import App, IdMode
    from layerrun.runtime.handoff import Door, Ended
    from layerrun.store.store import Store

__all__ = ["app", "env_words", "run_options", "shell", "variables"]


def _take_status_fd(ctx: click.Context, param: click.Parameter, value: int | None) -> None:
    """Make sure of the descriptor now, before another file gets its number, and note it in the settings."""
    from layerrun.runtime import handoff

    if value is None or ctx.resilient_parsing or handoff.is_ended():  # the front door has told all there was
        return
    try:
        os.fstat(value)
    except OSError as error:
        raise click.BadParameter(f"{value}: {error.strerror}") from None
    if value > 2:
        os.set_inheritable(value, False)
    settings().status_fd = value


def run_options(function: F) -> F:
    """Add ``--cwd``, ``--env`` and ``--status-fd``."""
    function = click.option(
        "--status-fd",
        type=click.IntRange(1, 2**31 - 1),
        metavar="N",
        expose_value=False,
        is_eager=True,
        callback=_take_status_fd,
        help="Write to descriptor N when CMD has started and when it has ended, a JSON object a line.",
    )(function)
    function = click.option(
        "-e",
        "--env",
        "env",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Set a variable inside; without VALUE, pass on the caller's. May be repeated.",
    )(function)
    return click.option(
        "--cwd", metavar="PATH", help="The working folder inside.  [default: this one, if it is there]"
    )(function)


def env_words(env: Sequence[str]) -> tuple[str, ...]:
    """Return ``NAME=VALUE`` and ``NAME`` words checked, of each name the last one."""
    from layerrun.errors import UsageError

    result = {}
    for word in env:
        name, equals, _ = word.partition("=")
        if not name or (not equals and "*" in name):
            raise UsageError(
                f"bad variable {word!r}", hint="write NAME=VALUE, or NAME to pass on the caller's"
            )
        result[name] = word
    return tuple(result.values())


def variables(env: Sequence[str]) -> dict[str, str]:
    """Return the variables that such words come to now: one that the caller does not have is left alone."""
    result = {}
    for word in env_words(env):
        name, equals, value = word.partition("=")
        if equals:
            result[name] = value
        elif name in os.environ:
            result[name] = os.environ[name]
    return result


@click.command(
    cls=RunVerb,
    examples=[
        ("layerrun app web -- apt-get install -y nginx", "make the app web over the host, install into it"),
        ("layerrun app web -- nginx -g 'daemon off;'", "run what was installed"),
        ("layerrun app web", "run its own command (create web -- CMD...)"),
        ("layerrun app web -d -- nginx -g 'daemon off;'", "in the background: see layerrun logs web"),
        ("layerrun app web --profile work", "the same app with data of its own, called web@work"),
        ("layerrun app web --ephemeral -- sh", "look around in web as it was made, and leave no trace"),
    ],
)
@app_argument()
@profile_option
@click.option("--ephemeral", is_flag=True, help="With an empty layer that is thrown away at the end.")
@click.option(
    "-d",
    "--detach",
    is_flag=True,
    help="In the background: return once it runs. `logs` prints what it writes.",
)
@no_userns_option
@run_options
def app(
    *,
    name: str,
    profile: str | None,
    ephemeral: bool,
    detach: bool,
    no_userns: bool,
    cwd: str | None,
    env: tuple[str, ...],
    argv: tuple[str, ...] | None,
) -> int:
    """Run CMD in the app NAME; without CMD, the app's own command.

    With CMD an app that does not exist yet is made over the host's own /. What CMD writes stays in the app's
    layer. What follows -- reaches the program untouched. The exit status is the program's own, 128+N after
    signal N; 125: it could not be started, 126: CMD cannot be executed, 127: CMD is not there.

    A profile is called NAME@PROFILE, for every command. It has the app's configuration, at any time, and data
    of its own, so it runs beside the app. An ephemeral start ends with its command, and leaves nothing.
    """
    name, profile = _named(name, profile, ephemeral=ephemeral)
    if detach and ephemeral:
        raise click.UsageError("--detach and --ephemeral exclude each other")
    given = variables(env)
    from layerrun.runtime import handoff

    if end := handoff.ended():
        return _thrown_away(end) if ephemeral else trials.after(end, what=_what(argv))
    with open_store() as store:
        trials.switch_staged(store, name)
        from layerrun.runtime import launch

        if profile is not None or ephemeral:
            found, created = _above(store, name, argv, id_mode(no_userns)), False
        else:
            found, created = _find(store, name, create=argv is not None, ids=id_mode(no_userns))
        if argv is None and not found.config.command:
            from layerrun.errors import UsageError

            raise UsageError(
                f"app {name} has no command of its own",
                hint=f"layerrun app {name} -- CMD…\nlayerrun shell {name}",
            )
        warn_of(found)
        if ephemeral:
            door = front_door(after="ephemeral")
            return launch.run_ephemeral(
                store, found, argv, cwd=cwd, env=given, door=door, status_fd=settings().status_fd
            )
        if profile is not None:
            found, created = _find_profile(store, name, profile)
        new = created or handoff.passed() == ("created", found.id)
        status = (_first_run if new else _run)(store, found, argv, cwd=cwd, env=given, detach=detach)
    if detach and sys.stderr.isatty():
        say(f"{found.name} runs in the background: layerrun logs {found.name}")
    return status


def _run(
    store: Store,
    app: App,
    argv: Sequence[str] | None,
    *,
    cwd: str | None,
    env: dict[str, str],
    detach: bool,
    created: str | None = None,
) -> int:
    from layerrun.runtime import launch

    status_fd = settings().status_fd

    def start(door: Door | None) -> int:
        return launch.run(store, app, argv, cwd=cwd, env=env, door=door, status_fd=status_fd, detach=detach)

    if not trials.is_on(store, app):
        return start(front_door(created=created))
    if detach:
        from layerrun.cli import keeper

        status = keeper.run(store, app, argv, cwd=cwd, env=env)
        return start(front_door()) if status is None else status
    return trials.run(store, app, start, what=_what(argv))


def _what(argv: Sequence[str] | None) -> str:
    return "own" if argv is None else "given"


def _named(name: str, profile: str | None, *, ephemeral: bool) -> tuple[str, str | None]:
    """Return the app and the profile that are meant by NAME, which may be NAME@PROFILE, and the options."""
    from layerrun.errors import UsageError
    from layerrun.model import check_app_name, check_name

    app, named = check_app_name(name)
    if profile is not None:
        check_name(profile, "name of a profile")
        if named is not None:
            raise UsageError(f"the profile is given twice: in {name!r} and by --profile")
    profile = named or profile
    if ephemeral and profile is not None:
        raise UsageError(
            "--ephemeral and a profile exclude each other: an ephemeral start has a layer of its own",
            hint=f"layerrun app {app} --ephemeral\nlayerrun app {app} --profile {profile}",
        )
    return app, profile


def _thrown_away(end: Ended) -> int:
    """Remove what an ephemeral start was made for, and return how its command ended, whatever comes of that."""
    from layerrun.errors import LayerrunError

    os.close(end.lock_fd)
    try:
        open_store().close()  # who opens the store sweeps it
    except LayerrunError as error:
        exits.report(error)
    return end.status


def _above(store: Store, name: str, argv: Sequence[str] | None, ids: IdMode | None) -> App:
    """Return the app of a profile or of an ephemeral start, which must be there."""
    from layerrun.errors import NotFoundError
    from layerrun.model import AppKind

    try:
        found = store.app(name, AppKind.APP)
    except NotFoundError as error:
        words = "" if argv is None else f"\nlayerrun app {name} -- CMD…  (makes it)"
        raise NotFoundError(str(error), hint=f"{error.hint}{words}") from None
    check_mode(found, ids)
    return found


def _find_profile(store: Store, name: str, profile: str) -> tuple[App, bool]:
    """Return the profile and whether it was made just now."""
    from layerrun.runtime import apps

    found, created = apps.profile(store, name, profile)
    if created:
        say(f"created profile {found.name}")
    return found, created


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
    store: Store, app: App, argv: Sequence[str] | None, *, cwd: str | None, env: dict[str, str], detach: bool
) -> int:
    """Run a new app; if its command never ran, take the app back: a typing error leaves nothing."""
    from layerrun.errors import LaunchError

    try:
        return _run(store, app, argv, cwd=cwd, env=env, detach=detach, created=app.id)
    except LaunchError:
        store.remove_app(app.name, only=app.id)
        what = "app" if app.profile is None else "profile"
        say(f"removed {what} {app.name} again: its command never ran")
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
    from layerrun.runtime import handoff

    if end := handoff.ended():
        return trials.after(end, what="shell")
    with open_store() as store:
        trials.switch_staged(store, name)
        from layerrun.runtime import launch

        found = store.app(name, AppKind.APP)
        warn_of(found)
        status_fd = settings().status_fd

        def start(door: Door | None) -> int:
            return launch.run(  # noqa: S604  (no subprocess)
                store, found, None, cwd=cwd, env=given, shell=True, door=door, status_fd=status_fd
            )

        if trials.is_on(store, found):
            return trials.run(store, found, start, what="shell")
        return start(front_door())
