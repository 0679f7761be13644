"""``gc``: removing what is kept in case it is wanted again."""

from __future__ import annotations

import click

from layerrun.cli.common import Verb, ask, ask_before, nothing, open_store
from layerrun.cli.options import json_option, yes_option
from layerrun.cli.output import emit, line, plural, quoted, say, size

__all__ = ["gc"]


@click.command(
    cls=Verb,
    examples=[
        ("layerrun gc --dry-run", "what is older than 30 days, and how much it takes"),
        ("layerrun gc -y --older-than 7", "remove what is older than a week, without asking"),
        ("layerrun gc --all", "ask, then remove all of it"),
    ],
)
@click.option(
    "--older-than", "days", metavar="DAYS", type=click.FloatRange(min=0), help="How old.  [default: 30]"
)
@click.option("--all", "every", is_flag=True, help="However old it is.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and do nothing.")
@json_option
@yes_option
def gc(*, days: float | None, every: bool, dry_run: bool, as_json: bool, yes: bool) -> int:
    """Remove what is only kept to be gone back to: what commits to this machine have replaced, for one.

    A commit of which that is gone cannot be taken back any more, and is in `layerrun log` no more. What this machine
    has now stays as it is.
    """
    if every and days is not None:
        raise click.UsageError("--all and --older-than exclude each other")
    asking = not dry_run and ask_before("gc removes what could be gone back to", yes=yes)
    with open_store() as store:
        from layerrun.commit import gc as library

        age = 0.0 if every else (library.DAYS if days is None else days) * 86400.0
        found = library.garbage(store, age)
        total = sum(one.bytes for one in found)
        if asking and found:
            ask("Remove all of this?", [f"{size(one.bytes):>11}  {quoted(one.what)}" for one in found])
        if not dry_run:
            for one in found:
                one.remove()
    if as_json:
        records = [{"what": one.what, "bytes": one.bytes} for one in found]
        emit({"removed": not dry_run, "bytes": total, "garbage": records})
        return 0
    if dry_run:
        for one in found:
            line(f"{size(one.bytes):>11}  {quoted(one.what)}")
    if not found:
        nothing("there is nothing to remove")
    elif not dry_run:
        say(f"removed {plural(len(found), 'thing')}: {size(total)}")
    return 0
