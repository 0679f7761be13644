"""``base import|list|show|verify|remove``: the read-only roots that apps stand on."""

from __future__ import annotations

import importlib
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from layerrun.cli.common import Verb, VerbGroup, ask, ask_before, open_store
from layerrun.cli.options import (
    access_of,
    base_argument,
    json_option,
    nul_option,
    registry_options,
    yes_option,
)
from layerrun.cli.output import emit, fields, lines, nul, plural, quoted, say, size, table

if TYPE_CHECKING:
    from layerrun.model import Base

__all__ = ["ELSEWHERE", "base"]

# Verbs of other modules: verb -> (module in layerrun.cli, its function there, the line in the list of commands)
ELSEWHERE: dict[str, tuple[str, str, str]] = {
    "follow": ("channels", "follow", "Follow a signed channel."),
    "health": ("checking", "health", "List, add or drop what every new version must pass."),
    "history": ("slots", "history", "List what happened to a base."),
    "keep": ("slots", "keep", "Set how many versions are kept."),
    "pin": ("slots", "pin", "Keep a version."),
    "rollback": ("slots", "rollback", "Go back to the version before."),
    "shadows": ("updating", "shadows", "List what apps hide of what changed."),
    "switch": ("slots", "switch", "Let a base stand on another version."),
    "unpin": ("slots", "unpin", "Let a pinned version go again."),
    "update": ("updating", "update", "Give a base another version, if it passes every check."),
    "versions": ("slots", "versions", "List the versions of bases."),
    "unfollow": ("channels", "unfollow", "Follow no channel any more."),
    "pull": ("pulling", "base_pull", "Pull an image from a registry as a base."),
    "push": ("registry", "base_push", "Push a base to a registry, as an image."),
    "export": ("exporting", "export", "Write a base to a tar archive."),
    "delta": ("delta", "delta", "Write what turns one base into another, as a small file."),
}


class BaseGroup(VerbGroup):
    """The verbs of bases: those below, and those that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all the verbs, in alphabetical order."""
        return sorted({*super().list_commands(ctx), *ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a verb, from its module if it has one of its own, or ``None``."""
        if (found := ELSEWHERE.get(cmd_name)) is None:
            return super().get_command(ctx, cmd_name)
        module, function, short = found
        command = getattr(importlib.import_module(f"layerrun.cli.{module}"), function)
        assert isinstance(command, click.Command)
        command.short_help = short
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of verbs, without importing any of them."""
        shown = {name: command.get_short_help_str(limit=80) for name, command in self.commands.items()}
        shown |= {name: found[2] for name, found in ELSEWHERE.items()}
        with formatter.section("Commands"):
            formatter.write_dl(sorted(shown.items()))


@click.group(cls=BaseGroup)
def base() -> None:
    """Import, update, list, show, verify and remove bases: read-only roots that apps stand on.

    The base host is the machine's own / and always there.
    """


def _record(found: Base) -> dict[str, Any]:
    return {
        "name": found.name,
        "kind": found.kind.value,
        "id": found.id,
        "digest": found.digest,
        "ids": found.ids.value if found.ids else None,
        "source": found.source,
        "created": found.created,
        "entries": found.entries,
        "size": found.size,
    }


@base.command(
    "import",
    cls=Verb,
    short_help="Import a root file system, or an image of one, as a base.",
    examples=[
        ("mmdebstrap --variant=minbase bookworm /tmp/tree", "make a Debian tree"),
        ("layerrun base import debian /tmp/tree", "import it as the base debian"),
        ("layerrun base import debian debian.tar.xz", "import an archive: plain, gzip, xz, bzip2 or zstd"),
        ("podman export web | layerrun base import web -", "an archive from a pipe"),
        ("layerrun base import web layout:stable", "the image stable of an OCI image layout"),
        ("podman save web | layerrun base import web -", "a docker archive, from a pipe or a file"),
        ("layerrun base import debian oci://docker.io/library/debian:12", "from a registry, as base pull"),
        ("layerrun base import debian oci://127.0.0.1:5000/debian --insecure", "without TLS"),
        ("layerrun base import debian debian.erofs", "an image of a file system: root mounts it as it is"),
        ("layerrun create web --base debian", "and stand an app on it"),
    ],
)
@click.argument("name", metavar="NAME")
@click.argument("source", metavar="DIR|FILE[:IMAGE]|oci://REF|-", type=click.Path(readable=False))
@click.option("--max-size", metavar="SIZE", help="How much an archive may come to.  [default: 64G]")
@click.option(
    "--platform",
    metavar="OS/ARCH",
    help="Which image of several to take, as linux/arm64.  [default: this machine's]",
)
@registry_options
@json_option
def import_(
    name: str, source: str, max_size: str | None, platform: str | None, as_json: bool, **access: Any
) -> int:
    """Copy the root file system in DIR into the store as the base NAME; it never changes from then on.

    A FILE, or - for standard input, is a tar archive. A process that can reach nothing else reads it, and one
    that holds what does not belong into a root file system is refused as a whole. A DIR may be an OCI image layout, a
    FILE a docker archive or a layout in a tar; IMAGE is a name or a digest in it. An erofs or squashfs image is not
    unpacked as root: each start mounts it, so it must come from somebody whom you trust. A FILE of base delta is
    applied to the base that it is for. How to reach a registry is for oci:// alone.
    """
    from layerrun.cli.progress import counter
    from layerrun.model import check_name

    check_name(name, "name of a base")
    remote = source.startswith("oci://")
    if any(access.values()) and not remote:
        raise click.UsageError("--auth-file, --cert-dir and --insecure are for oci:// alone")
    with open_store() as store, counter(f"importing {name}") as progress:
        from layerrun.updates.sources import bring

        known = {found.id for found in store.bases()}
        made = bring(
            store,
            name,
            source,
            max_size=max_size,
            platform=platform,
            access=access_of(**access) if remote else None,  # it costs 20 ms to import
            progress=progress,
        )
    if as_json:
        emit(_record(made))
    else:
        done = "is there already, with the same content" if made.id in known else "imported"
        say(f"{name} {done}: {plural(made.entries, 'entry', 'entries')}, {size(made.size)}, {made.digest}")
    return 0


@base.command(
    "list",
    cls=Verb,
    examples=[("layerrun base list", "names, kinds, sizes"), ("layerrun base list --json", "for a program")],
)
@json_option
def list_(as_json: bool) -> int:
    """List the bases."""
    with open_store() as store:
        bases = store.bases()
    if as_json:
        emit({"bases": [_record(found) for found in bases]})
        return 0
    table(
        ["NAME", "KIND", ">ENTRIES", ">SIZE", "CREATED", "DIGEST"],
        (
            [b.name, b.kind.value, f"{b.entries:,}", size(b.size), b.created, _short(b.digest)]
            if b.digest
            else [b.name, b.kind.value, "-", "-", b.created or "-", "-"]
            for b in bases
        ),
    )
    return 0


def _ids_of(found: Base) -> str:
    """Say whose ids the files have; what one id alone cannot keep is kept beside them."""
    if found.ids is None:
        return ""
    aside = "; owners and devices of the source stand in the manifest alone" if found.ids == "single" else ""
    return found.ids.value + aside


def _short(digest: str) -> str:
    """Return enough of a digest to tell two apart."""
    return digest[: len("sha256:") + 12]


@base.command(
    cls=Verb,
    examples=[("layerrun base show debian", "digest, source, size, and who stands on it")],
)
@base_argument
@json_option
def show(name: str, as_json: bool) -> int:
    """Show the base NAME, and the apps that stand on it."""
    with open_store() as store:
        found = store.base(name)
        users = sorted(
            app.name for app in store.apps() if app.config.base == found.name and app.parent is None
        )
    if as_json:
        emit(_record(found) | {"origin": dict(found.origin), "used_by": users})
        return 0
    held = (
        {"size": f"{size(found.size)} in {plural(found.entries, 'entry', 'entries')}"} if found.digest else {}
    )
    fields(
        {
            "name": found.name,
            "kind": found.kind.value,
            "digest": found.digest or "",
            "source": quoted(found.source),
            "ids": _ids_of(found),
            "created": found.created,
            **held,
            **_of_image(found),
            "used by": users or "nobody",
        }
    )
    return 0


def _of_image(found: Base) -> dict[str, str]:
    """Return what the image that a base came from says of itself; nothing if it came from none."""
    image = found.origin.get("config")
    if not isinstance(image, dict):
        return {}
    shown = {
        "image": found.origin.get("digest", ""),
        "platform": found.origin.get("platform", ""),
        "command": shlex.join([*image.get("entrypoint", ()), *image.get("cmd", ())]),
        "folder": image.get("workdir", ""),
        "user": image.get("user", ""),
    }
    return {key: quoted(str(value)) for key, value in shown.items() if value}


@base.command(
    cls=Verb,
    short_help="Name every path of a base that is not as it was imported.",
    examples=[
        ("layerrun base verify debian", "read every byte; 1 if anything differs"),
        ("layerrun base verify debian -0 | xargs -0 -n1 echo", "the kind, a space and the raw path"),
        ("layerrun base verify debian --repair debian.tar.xz", "and put right what is wrong"),
    ],
)
@base_argument
@click.option(
    "--repair", metavar="SRC", help="Put right what is wrong from there: all that base import takes."
)
@json_option
@nul_option
@yes_option
def verify(*, name: str, repair: str | None, as_json: bool, as_nul: bool, yes: bool) -> int:
    """Read the whole base NAME again and name every path that is not as it was imported.

    With --repair, what the source has takes the place of what differs, if its digest is the one that was recorded;
    what was added is removed. No app may run on the base meanwhile. The exit status is 1 if anything differs, or
    still does.
    """
    if as_json and as_nul:
        raise click.UsageError("--json and -0 exclude each other")
    asking = repair is not None and ask_before("base verify --repair removes what was added", yes=yes)
    with open_store() as store:
        from layerrun.bases import tree

        found = store.base(name)
        problems = before = list(tree.verify(store, found))
        if repair is not None and problems:
            if asking:
                ask("Put this right?", [f"{p.kind:<8} {quoted(p.path)}" for p in problems])
            from layerrun.bases import repair as library
            from layerrun.cli.progress import counter
            from layerrun.updates.guard import updating

            with updating(store), counter(f"repairing {name}") as progress:
                before, problems = library.repair(store, found, repair, progress=progress)
    repaired = [one for one in before if one not in problems]
    if as_json:
        bad = [{"kind": str(p.kind), "path": p.path} for p in problems]
        good = [{"kind": str(p.kind), "path": p.path} for p in repaired]
        emit(
            {
                "name": found.name,
                "digest": found.digest,
                "intact": not problems,
                "problems": bad,
                "repaired": good,
            }
        )
    elif as_nul:
        nul(f"{p.kind} {p.path}" for p in problems)
    else:
        lines(f"{p.kind:<8} {quoted(p.path)}" for p in problems)
        for one in repaired:
            say(f"put right: {quoted(one.path)}")
        if not problems and sys.stdout.isatty():
            say(f"{name} is intact")
    return 1 if problems else 0


@base.command(
    cls=Verb,
    examples=[
        ("layerrun base remove debian", "ask, naming its size, then remove it"),
        ("layerrun base remove -y debian", "without asking"),
    ],
)
@base_argument
@yes_option
def remove(name: str, yes: bool) -> int:
    """Remove the base NAME with all its versions, or NAME@VERSION alone.

    It is refused (3) while an app or a throwaway stands on it.
    """
    asking = ask_before("base remove destroys data", yes=yes)
    with open_store() as store:
        from layerrun.bases import versions
        from layerrun.updates.guard import updating

        found = store.base(name)
        if asking:
            ask(
                "Remove this base?",
                [
                    f"{one.full_name}: {size(one.size)} in {plural(one.entries, 'entry', 'entries')}"
                    for one in ([found] if "@" in name else store.catalog.versions(name))
                ],
            )
        with updating(store, wait=10.0):  # it may be making the next version
            versions.remove(store, name)
    return 0
