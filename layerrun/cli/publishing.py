"""``channel init|add|sign|rotate|show``: running a channel that bases follow, on the publisher's machine."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import Verb, VerbGroup, open_store
from layerrun.cli.options import json_option
from layerrun.cli.output import emit, fields, line, say, size, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from layerrun.fleet.publishing import Missing
    from layerrun.fleet.release import Release

__all__ = ["channel"]


@click.group(cls=VerbGroup)
def channel() -> None:
    """Run a channel that bases follow: a folder that any web server hands out, and keys that stay with you.

    Followers believe what is signed, wherever it comes from: see `base follow`.
    """


def _folder(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.argument("folder", metavar="DIR", type=click.Path(file_okay=False))(function)


def _keys(function: Callable[..., Any]) -> Callable[..., Any]:
    function = click.option(
        "--key",
        "files",
        metavar="FILE",
        multiple=True,
        type=click.Path(),
        help="A key that is kept elsewhere.",
    )(function)
    return click.option(
        "--keys", metavar="DIR", type=click.Path(), help="The folder with the keys.  [default: DIR.keys]"
    )(function)


def _beside(folder: str, keys: str | None) -> str:
    return keys if keys is not None else os.path.normpath(folder) + ".keys"


def _days(values: tuple[str, ...]) -> dict[str, int]:
    days = {}
    for value in values:
        role, _, number = value.partition("=")
        if not role or not number.isdigit() or not 0 < int(number) <= 3650:
            raise click.UsageError(f"bad --days {value!r}: write ROLE=DAYS, such as timestamp=3")
        days[role] = int(number)
    return days


def _lacking(missing: Missing | None, folder: str) -> None:
    if missing is not None:
        lacks = [
            f"{missing.old} of the keys before" * bool(missing.old),
            f"{missing.new} of its own" * bool(missing.new),
        ]
        say(
            f"root {missing.version} is not in force yet: it lacks signatures by {' and '.join(filter(None, lacks))};"
            f" sign it with: layerrun channel sign {folder} --key FILE"
        )


@channel.command(
    cls=Verb,
    short_help="Make a key to sign with, and its public half.",
    examples=[
        ("layerrun channel key ~/ann", "makes ann.pem, to be kept, and ann.pub, for who makes the channel")
    ],
)
@click.argument("path", metavar="PATH", type=click.Path())
def key(path: str) -> int:
    """Make a key in PATH.pem and its public half in PATH.pub, to sign a channel with elsewhere."""
    from layerrun.fleet import keys
    from layerrun.store.fs import DIR_FLAGS, explain

    above, name = os.path.split(os.path.abspath(path))
    with explain("open", above):
        folder = os.open(above, DIR_FLAGS & ~os.O_NOFOLLOW)
    try:
        made = keys.make_key(folder, name)
    finally:
        os.close(folder)
    say(f"made {path}.pem and {path}.pub: key {made.keyid}")
    return 0


@channel.command(
    cls=Verb,
    examples=[
        ("layerrun channel init /srv/www/bases", "keys in /srv/www/bases.keys: take root-*.pem elsewhere"),
        (
            "layerrun channel init /srv/www/bases --root-key ann.pub --root-key ben.pub",
            "with keys of two people",
        ),
    ],
)
@_folder
@click.option("--keys", metavar="DIR", type=click.Path(), help="Where the keys go.  [default: DIR.keys]")
@click.option(
    "--root-keys", metavar="N", type=click.IntRange(1, 20), default=3, show_default=True, help="How many."
)
@click.option(
    "--threshold",
    metavar="N",
    type=click.IntRange(1, 20),
    default=2,
    show_default=True,
    help="How many must sign.",
)
@click.option(
    "--root-key",
    "given",
    metavar="FILE",
    multiple=True,
    type=click.Path(),
    help="A key of the root, made before.",
)
@click.option("--days", metavar="ROLE=DAYS", multiple=True, help="How long what a role signs is good for.")
def init(  # noqa: PLR0917  (click gives them by name)
    folder: str,
    keys: str | None,
    root_keys: int,
    threshold: int,
    given: tuple[str, ...],
    days: tuple[str, ...],
) -> int:
    """Make a channel's folder DIR, and its keys.

    The keys of the root sign seldom, and are what everything else can be taken back with: keep them apart, not here.
    Give followers DIR/metadata/1.root.json, or its fingerprint, by another way than the channel itself.
    """
    from layerrun.fleet import publishing, showing

    missing = publishing.init(
        folder, _beside(folder, keys), root_keys=root_keys, threshold=threshold, given=given, days=_days(days)
    )
    _lacking(missing, folder)
    if missing is None:
        say(f"made {folder}; the root has the fingerprint {showing.root_fingerprint(folder)}")
    return 0


@channel.command(
    cls=Verb,
    examples=[
        (
            "layerrun channel add /srv/www/bases stable --base debian --version 12.8",
            "publish a base, with deltas",
        ),
        ("layerrun channel add /srv/www/bases stable debian.tar.zst --version 12.8", "or an archive"),
        (
            "layerrun channel add /srv/www/bases stable oci://reg.example/debian@sha256:3f2a... --version 9",
            "an image",
        ),
    ],
)
@_folder
@click.argument("name", metavar="CHANNEL")
@click.argument("source", metavar="[FILE|oci://...@DIGEST]", required=False)
@click.option("--base", "base", metavar="BASE", help="Publish this base of the store (NAME or NAME@VERSION).")
@click.option("--version", "text", metavar="TEXT", required=True, help="What people call it.")
@click.option("--arch", metavar="ARCH", help="For which machines.  [default: this one's]")
@click.option(
    "--tree", metavar="DIGEST", help="The digest that the base must have once root has imported it."
)
@click.option(
    "--delta",
    "deltas",
    metavar="FILE",
    multiple=True,
    type=click.Path(),
    help="A delta that makes it of an older base.",
)
@click.option(
    "--deltas",
    "count",
    metavar="N",
    default=2,
    show_default=True,
    type=click.IntRange(0, 10),
    help="With --base: from how many versions before it deltas are made.",
)
@_keys
@json_option
def add(
    *,
    folder: str,
    name: str,
    source: str | None,
    base: str | None,
    text: str,
    arch: str | None,
    tree: str | None,
    deltas: tuple[str, ...],
    count: int,
    keys: str | None,
    files: tuple[str, ...],
    as_json: bool,
) -> int:
    """Publish a release of CHANNEL, which is made if it is new. What it consists of is copied into DIR."""
    from layerrun.fleet import publishing, release, releasing

    if (source is None) == (base is None) or (base is not None and (tree or deltas)):
        raise click.UsageError(
            "name a FILE or an image, or say --base NAME, which takes neither --tree nor --delta"
        )
    values: dict[str, Any] = {"version": text, "arch": arch or release.machine(), "files": files}
    if source is not None:
        pairs = {path: releasing.delta_of(path) for path in deltas}
        for path, (_, new) in pairs.items():
            tree = tree or new
            if new != tree:
                raise click.UsageError(f"the delta {path!r} makes {new}, and not {tree}")
        values |= {"tree": tree, "deltas": [(old, path) for path, (old, _) in pairs.items()]}
        made = publishing.add(folder, name, source, _beside(folder, keys), **values)
    else:
        told: Callable[[str], None] = (lambda _: None) if as_json else say
        with open_store() as store:
            made = releasing.add_base(
                store, str(base), folder, name, _beside(folder, keys), deltas=count, told=told, **values
            )
    if as_json:
        emit(_added(made))
    else:
        what = f", {size(made.image.size)}" * bool(made.image.size)
        smaller = "".join(f", a delta of {size(one.size)}" for one in made.deltas)
        say(f"{made.channel} for {made.arch} is {made.version} now, release {made.sequence}{what}{smaller}")
    return 0


def _added(made: Release) -> dict[str, Any]:
    return {
        "channel": made.channel,
        "arch": made.arch,
        "version": made.version,
        "sequence": made.sequence,
        "size": made.image.size,
        "deltas": [{"from": one.old, "size": one.size} for one in made.deltas],
    }


@channel.command(
    cls=Verb,
    short_help="Sign again what is getting old, and what lacks signatures.",
    examples=[
        (
            "layerrun channel sign /srv/www/bases",
            "by a timer, every day: followers refuse what is a week old",
        ),
        ("layerrun channel sign /srv/www/bases --key /media/usb/root-2.pem", "sign a root that waits for it"),
    ],
)
@_folder
@_keys
@click.option("--days", metavar="ROLE=DAYS", multiple=True, help="How long what a role signs is good for.")
def sign(folder: str, keys: str | None, files: tuple[str, ...], days: tuple[str, ...]) -> int:
    """Sign again what is getting old, and what lacks signatures, with all the keys that are there."""
    from layerrun.fleet import publishing

    where: str | None = _beside(folder, keys)
    if keys is None and not os.path.isdir(str(where)) and files:
        where = None
    _lacking(publishing.sign(folder, where, files=files, days=_days(days)), folder)
    return 0


@channel.command(
    cls=Verb,
    short_help="Change the keys that sign for a role or a channel.",
    examples=[
        (
            "layerrun channel rotate /srv/www/bases timestamp",
            "another key for the role; the old one counts no more",
        ),
        (
            "layerrun channel rotate /srv/www/bases root --drop 3f2a91c0 --take cleo.pub",
            "Cleo in the place of Ben",
        ),
    ],
)
@_folder
@click.argument("role", metavar="ROLE|CHANNEL")
@click.option("--drop", metavar="KEY", multiple=True, help="A key that counts no more: its id, or a file.")
@click.option(
    "--take", metavar="FILE", multiple=True, type=click.Path(), help="A key that counts from now on."
)
@click.option("--threshold", metavar="N", type=click.IntRange(1, 20), help="How many must sign.")
@_keys
def rotate(  # noqa: PLR0917  (click gives them by name)
    folder: str,
    role: str,
    drop: tuple[str, ...],
    take: tuple[str, ...],
    threshold: int | None,
    keys: str | None,
    files: tuple[str, ...],
) -> int:
    """Change the keys that sign for a role (root, targets, snapshot, timestamp) or a channel.

    Without --take a key is made. Without --drop the old ones count no more, but for the root. Followers find it out by
    themselves: the root says so, signed by enough of its old keys and of its new ones.
    """
    from layerrun.fleet import publishing

    missing = publishing.rotate(
        folder, role, _beside(folder, keys), drop=drop, take=take, threshold=threshold, files=files
    )
    _lacking(missing, folder)
    return 0


@channel.command(
    cls=Verb,
    short_help="Show a channel's keys, its releases, and what expires when.",
    examples=[("layerrun channel show /srv/www/bases", "roles, keys, releases, what expires when")],
)
@_folder
@json_option
def show(folder: str, as_json: bool) -> int:
    """Show the keys of a channel's folder DIR, its releases, and when what is signed expires."""
    from layerrun.fleet import showing

    found = showing.show(folder)
    if as_json:
        emit(found)
        return 0
    fields(
        {"fingerprint": found["fingerprint"], "root": str(found["root"]), "draft": str(found["draft"] or "")}
    )
    line()
    table(
        ["ROLE", ">SIGN", "KEYS", "EXPIRES"],
        (
            [r["role"], str(r["threshold"]), " ".join(k[:12] for k in r["keys"]), r["expires"]]
            for r in found["roles"]
        ),
    )
    if found["releases"]:
        line()
        table(
            ["CHANNEL", "ARCH", "VERSION", ">RELEASE"],
            ([r["channel"], r["arch"], r["version"], str(r["sequence"])] for r in found["releases"]),
        )
    return 0
