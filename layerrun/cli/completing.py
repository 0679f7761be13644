"""What a shell completes of snapshots, of what can be compared, of throwaways and of paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerrun.cli.options import complete_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click
    from click.shell_completion import CompletionItem

    from layerrun.store.store import Store

__all__ = ["paths", "references", "sides", "snapshots", "throwaways", "words"]


def paths(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Leave it to the shell, which knows files."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]


def references(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """``NAME`` and, behind a colon, what snapshots it has."""
    return complete_from(ctx, lambda store: _references(store, incomplete), incomplete)


def snapshots(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """``SNAPSHOT`` of the app that was named before it."""
    name = str(ctx.params.get("reference") or "")
    return complete_from(ctx, lambda store: _snapshots(store, name), incomplete)


def words(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """``[SNAPSHOT] PATH...`` behind ``NAME[:SNAPSHOT]``."""
    is_named = ":" in str(ctx.params.get("reference") or "") or ctx.params.get("words")
    return (paths if is_named or incomplete.startswith("/") else snapshots)(ctx, param, incomplete)


def sides(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """``[OTHER] PATH...``: what begins with a slash is a path."""

    def names(store: Store) -> Iterator[str]:
        yield from _references(store, incomplete)
        if ":" not in incomplete:
            yield from {base.name for base in store.bases()} - {app.name for app in store.apps()}

    if incomplete.startswith("/") or ctx.params.get("others"):
        return paths(ctx, param, incomplete)
    return complete_from(ctx, names, incomplete)


def throwaways(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The NAMEs of throwaways, without those of apps."""
    from layerrun.model import AppKind

    return complete_from(
        ctx, lambda store: (app.name for app in store.apps() if app.kind is AppKind.THROWAWAY), incomplete
    )


def _references(store: Store, incomplete: str) -> Iterator[str]:
    name, colon, _ = incomplete.partition(":")
    if colon:
        yield from (f"{name}:{one}" for one in _snapshots(store, name))
    else:
        yield from (app.name for app in store.apps())


def _snapshots(store: Store, name: str) -> Iterator[str]:
    for one in store.catalog.snapshots(store.app(name).id):
        yield one.tag or str(one.number)
