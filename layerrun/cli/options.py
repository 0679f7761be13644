"""Options and arguments that several verbs have, and how they are completed from the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from click.shell_completion import CompletionItem

    from layerrun.images.transport import Access
    from layerrun.store.store import Store


__all__ = [
    "F",
    "access_of",
    "app_argument",
    "base_argument",
    "base_option",
    "complete_from",
    "complete_versions",
    "json_option",
    "kill_option",
    "nul_option",
    "profile_option",
    "registry_options",
    "version_argument",
    "yes_option",
]

F = TypeVar("F", bound="Callable[..., Any]")


def json_option(function: F) -> F:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")(function)


def nul_option(function: F) -> F:
    """Add ``-0``."""
    return click.option(
        "-0", "--null", "as_nul", is_flag=True, help="Print raw records, each ended by a NUL byte."
    )(function)


def yes_option(function: F) -> F:
    """Add ``-y``."""
    return click.option("-y", "--yes", is_flag=True, help="Do not ask.")(function)


def kill_option(function: F) -> F:
    """Add ``--kill``."""
    return click.option("--kill", is_flag=True, help="End them first if they run, at once.")(function)


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


def base_option(function: F) -> F:
    """Add ``--base``."""
    return click.option(
        "--base",
        default="host",
        show_default=True,
        metavar="BASE",
        shell_complete=_complete_bases,
        help="The base beneath; host is the machine's own /.",
    )(function)


def app_argument(name: str = "name", *, many: bool = False, required: bool = True) -> Callable[[F], F]:
    """Add the NAME of an app or a throwaway, completed from the store."""
    return click.argument(
        name,
        metavar=name.removesuffix("s").upper() + ("..." if many else ""),
        nargs=-1 if many else 1,
        required=required,
        shell_complete=_complete_apps,
    )


def profile_option(function: F) -> F:
    """Add ``--profile``, completed from the store."""
    return click.option(
        "--profile",
        metavar="PROFILE",
        shell_complete=_complete_profiles,
        help="With another layer, beside the app's own; a new PROFILE is made.",
    )(function)


def base_argument(function: F) -> F:
    """Add the NAME of a base, completed from the store."""
    return click.argument("name", metavar="NAME", shell_complete=_complete_bases)(function)


def version_argument(function: F) -> F:
    """Add the NAME@VERSION of a base, completed from the store."""
    return click.argument("version", metavar="NAME@VERSION", shell_complete=complete_versions)(function)


def complete_from(
    ctx: click.Context, names: Callable[[Store], Iterable[str]], start: str
) -> list[CompletionItem]:
    """Complete from the store; a shell's line editor is no place for an error message."""
    from click.shell_completion import CompletionItem

    from layerrun.errors import LayerrunError
    from layerrun.store.store import Store

    try:
        with Store.open(ctx.find_root().params.get("store"), create=False) as store:
            return [CompletionItem(name) for name in sorted(names(store)) if name.startswith(start)]
    except (LayerrunError, OSError):
        return []


def _complete_apps(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return complete_from(ctx, lambda store: (app.name for app in store.apps()), incomplete)


def _complete_profiles(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    def names(store: Store) -> set[str]:
        # click stops at an option that has no value yet, and leaves the words in front of it.
        parents = [ctx.params.get("name"), *ctx.args]
        profiles = [app for app in store.apps() if app.profile is not None and not app.ephemeral]
        return {str(app.profile) for app in profiles if app.parent_name in parents or not any(parents)}

    return complete_from(ctx, names, incomplete)


def _complete_bases(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return complete_from(ctx, lambda store: (base.name for base in store.bases()), incomplete)


def complete_versions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete NAME@VERSION from the store."""
    return complete_from(ctx, lambda store: (base.full_name for base in store.catalog.versions()), incomplete)
