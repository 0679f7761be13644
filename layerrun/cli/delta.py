"""``base delta``: what turns one base into another, as a small file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import Verb, open_store
from layerrun.cli.options import complete_from, json_option
from layerrun.cli.output import emit, fields, plural, printable, quoted, say, size

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from layerrun.updates.deltafile import Head

__all__ = ["delta"]


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return complete_from(
        ctx,
        lambda store: {name for base in store.catalog.versions() for name in (base.name, base.full_name)},
        incomplete,
    )


@click.command(
    cls=Verb,
    examples=[
        ("layerrun base delta debian@1 debian@2 debian.delta", "what turns version 1 into version 2"),
        ("layerrun base delta debian@1 debian new.delta --level 9", "ten times as fast, and little larger"),
        ("layerrun base delta --check debian.delta", "is it whole, and what is it for?"),
        ("layerrun base update debian --from debian.delta", "elsewhere: apply it"),
    ],
)
@click.argument("old", metavar="OLD", required=False, shell_complete=_complete)
@click.argument("new", metavar="NEW", required=False, shell_complete=_complete)
@click.argument("file", metavar="FILE", required=False, type=click.Path(readable=False))
@click.option(
    "--level",
    type=click.IntRange(1, 22),
    default=19,
    show_default=True,
    metavar="N",
    help="How hard to compress, as zstd has it: 1 to 22.",
)
@click.option("-f", "--force", is_flag=True, help="Let FILE take the place of one that is there.")
@click.option(
    "--check",
    "checked",
    metavar="FILE",
    type=click.Path(readable=False),
    help="Read a delta whole instead, and say what it is for.",
)
@json_option
def delta(
    *,
    old: str | None,
    new: str | None,
    file: str | None,
    level: int,
    force: bool,
    checked: str | None,
    as_json: bool,
) -> int:
    """Write to FILE what turns the base OLD into the base NEW: changed files as patches of their old content.

    OLD and NEW are bases, or versions of one (NAME@N). Whoever has OLD makes NEW of it with base update --from FILE;
    nothing else is taken, for the delta says which base it is for, and what has to come out.
    """
    if checked is not None:
        if old is not None or force:
            raise click.UsageError("--check FILE takes no bases")
        return _check(checked, as_json=as_json)
    if old is None or new is None or file is None:
        raise click.UsageError("name the bases OLD and NEW, and the FILE to write; or say --check FILE")
    from layerrun.cli.progress import counter

    with open_store() as store:
        from layerrun.updates.delta import make_delta

        before, after = store.base(old), store.base(new)
        with counter(f"writing {printable(file)}", total=after.size) as progress:
            made = make_delta(store, before, after, file, level=level, force=force, progress=progress)
    if as_json:
        emit({"path": file, "patched": made.patched, "fresh": made.fresh} | _record(made.head, made.size))
        return 0
    say(
        f"{printable(file)}: {before.full_name} to {after.full_name}, {size(made.size)}:"
        f" {plural(made.patched, 'patched content')}, {made.fresh:,} new"
    )
    return 0


def _record(head: Head, length: int) -> dict[str, Any]:
    return {"bytes": length, "old": head.old, "new": head.new, "entries": head.entries, "size": head.size}


def _check(path: str, *, as_json: bool) -> int:
    from layerrun.updates.delta import check

    head = check(path)
    with open_store() as store:
        versions = store.catalog.versions()
    here = [base.full_name for base in versions if base.digest == head.old]
    known = [base.full_name for base in versions if base.digest == head.new]
    if as_json:
        emit({"path": path} | _record(head, head.length) | {"old_bases": here, "new_bases": known})
        return 0
    fields(
        {
            "file": quoted(path),
            "size": size(head.length),
            "from": head.old,
            "which is": here or "not in this store",
            "to": head.new,
            "which is ": known or "not in this store yet",
            "content": f"{size(head.size)} in {plural(head.entries, 'entry', 'entries')}",
        }
    )
    return 0
