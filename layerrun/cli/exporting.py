"""``base export``: a base as a tar archive."""

from __future__ import annotations

import sys
from typing import Any

import click

from layerrun.cli.common import Verb, open_store
from layerrun.cli.options import base_argument, json_option
from layerrun.cli.output import emit, plural, say, size

__all__ = ["export"]


@click.command(
    cls=Verb,
    examples=[
        ("layerrun base export debian debian.tar.zst", "an archive, compressed as its name says"),
        ("layerrun base export debian@1 old.tar.gz", "of an earlier version"),
        ("layerrun base export debian - | ssh other layerrun base import debian -", "through a pipe"),
    ],
)
@base_argument
@click.argument("file", metavar="FILE|-", type=click.Path(readable=False))
@click.option("-f", "--force", is_flag=True, help="Let FILE take the place of one that is there.")
@json_option
def export(name: str, file: str, force: bool, as_json: bool) -> int:
    """Write the base NAME to FILE as a tar archive: owners, devices and times as they were where it came from.

    FILE ends in .tar, or with .gz, .xz, .bz2 or .zst behind it; - is standard output. The same base gives the same
    bytes. Every file is read and compared with what was imported: a base that was altered is not exported.
    """
    from layerrun.cli.progress import counter

    if file == "-" and (as_json or sys.stdout.isatty()):
        raise click.UsageError("standard output is for the archive: send it to a file or a pipe")
    with open_store() as store:
        from layerrun.bases import exporting

        found = store.base(name)
        with counter(f"exporting {name}", total=found.size) as progress:
            if file == "-":
                done = 0

                def put(data: bytes) -> None:
                    nonlocal done
                    sys.stdout.buffer.write(data)
                    done += len(data)
                    progress(0, done)

                exporting.export_base(store, found, put)
                sys.stdout.buffer.flush()
                return 0
            made = exporting.export_to_file(store, found, file, force=force, progress=progress)
    record: dict[str, Any] = {"name": found.full_name, "path": file, "bytes": made, "digest": found.digest}
    if as_json:
        emit(record | {"entries": found.entries, "size": found.size})
    else:
        held = f"{plural(found.entries, 'entry', 'entries')}, {size(found.size)}"
        say(f"{file}: {found.full_name}, {held} in {size(made)}")
    return 0
