"""The ``layerrun`` command: its global options, its verbs, and where each of them lives."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from layerrun.cli import exits
from layerrun.cli.common import Settings, VerbGroup

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ENVIRONMENT", "VERBS", "cli", "main"]

# section -> verb -> (module in layerrun.cli, its function there, the line in the list of commands)
VERBS: dict[str, dict[str, tuple[str, str, str]]] = {
    "Run": {
        "app": ("run", "app", "Run an app, or a command in it."),
        "shell": ("run", "shell", "Open a login shell in an app."),
        "enter": ("instances", "enter", "Run a command in an app that runs."),
        "ps": ("instances", "ps", "List the apps that run, with their processes."),
        "stop": ("instances", "stop", "End apps: SIGTERM, then SIGKILL."),
        "kill": ("instances", "kill", "End apps at once."),
        "logs": ("logs", "logs", "Print what detached commands have written."),
        "create": ("manage", "create", "Make an app without running it."),
        "list": ("look", "list_apps", "List the apps and throwaways."),
        "show": ("look", "show", "Show what an app is made of."),
        "edit": ("edit", "edit", "Change what an app is made of and may reach."),
        "rename": ("manage", "rename", "Give an app another name."),
        "remove": ("manage", "remove", "Remove apps, with their data."),
        "plan": ("look", "plan", "Print the plan that a start executes."),
        "which": ("look", "which", "Say which layer a path comes from."),
    },
    "Try": {
        "try": ("throwaway", "try_", "Run a command in a throwaway layer and list what it changed."),
        "diff": ("diffing", "diff", "Show what was changed, or what differs between two."),
        "tidy": ("diffing", "tidy", "Drop what equals what lies beneath."),
        "commit": ("commit", "commit", "Make the changes of a throwaway on this machine."),
        "discard": ("throwaway", "discard", "Drop throwaways."),
        "undo": ("commits", "undo", "Take a commit to this machine back."),
        "redo": ("commits", "redo", "Do a commit again that was taken back."),
        "log": ("commits", "log", "List the commits to this machine."),
    },
    "Data": {
        "reset": ("data", "reset", "Clear the data of apps."),
        "clear-cache": ("data", "clear_cache", "Drop the cache paths of apps alone."),
        "du": ("data", "du", "Show how much space each app takes."),
        "gc": ("gc", "gc", "Remove what is kept to be gone back to."),
    },
    "Snapshots": {
        "snapshot": ("snapshots", "snapshot", "Remember what an app has written."),
        "rollback": ("snapshots", "rollback", "Let an app be as it was at a snapshot."),
        "restore": ("snapshots", "restore", "Let paths be as they were at a snapshot."),
        "history": ("snapshots", "history", "List the snapshots of an app."),
        "pin": ("snapshots", "pin", "Keep a snapshot."),
        "unpin": ("snapshots", "unpin", "Let a pinned snapshot go again."),
        "forget": ("snapshots", "forget", "Forget a snapshot."),
        "branch": ("snapshots", "branch", "Make another app that begins with what one has."),
        "squash": ("snapshots", "squash", "Make one layer of many."),
        "clone": ("snapshots", "clone", "Make another app with all that one has."),
    },
    "Bases": {
        "build": ("building", "build", "Build an app by a recipe."),
        "verify": ("verifying", "verify", "Say whether the layers of an app are as they were made."),
        "push": ("registry", "push", "Push an app to a registry, as an image."),
        "base": ("base", "base", "Import, update, list, show, verify and remove bases."),
        "pull": ("pulling", "pull", "Pull an app, or any image, from a registry."),
        "update": ("channels", "update", "Bring bases to what their channels offer."),
        "channel": ("publishing", "channel", "Run a channel that bases follow."),
    },
    "Machine": {
        "doctor": ("machine", "doctor", "Check what this machine and the store can do."),
        "status": ("slots", "status", "Say how the bases and their updates stand."),
        "completion": ("machine", "completion", "Print the completion script of a shell."),
        "version": ("machine", "version", "Print the version."),
    },
}

ENVIRONMENT = {
    "LAYERRUN_STORE": "The store, where --store does not name one.",
    "XDG_DATA_HOME": "A plain user's store is layerrun in there, or in ~/.local/share.",
    "LAYERRUN_FRONT_DOOR": "0: work out every start anew, as the first one was. Else a start that nothing has outdated "
    "is repeated as it was stored, which is quicker and does the same.",
    "NOTIFY_SOCKET": "Set by systemd: what an app says there about its readiness is passed on (Type=notify).",
    "NO_COLOR": "If set and not empty, nothing is coloured.",
}

COMPLETE = "_LAYERRUN_COMPLETE"


class LazyGroup(VerbGroup):
    """The top group: a verb's module is imported when the verb is called, not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  (click's signature)
        """Return the verbs, in the order of the help."""
        return [verb for verbs in VERBS.values() for verb in verbs]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the verb's module and return its command, or ``None``."""
        for verbs in VERBS.values():
            if found := verbs.get(cmd_name):
                module, function, short = found
                command = getattr(importlib.import_module(f"layerrun.cli.{module}"), function)
                assert isinstance(command, click.Command)
                command.short_help = short
                return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the verbs by section, without importing any of them."""
        for section, verbs in VERBS.items():
            with formatter.section(section):
                formatter.write_dl([(verb, found[2]) for verb, found in verbs.items()], col_max=14)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the environment variables, then the epilog."""
        with formatter.section("Environment"):
            formatter.write_dl(list(ENVIRONMENT.items()))
        super().format_epilog(ctx, formatter)


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from layerrun import __version__

        click.echo(f"layerrun {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command says more with --help.",
)
@click.option(
    "--store",
    metavar="PATH",
    type=click.Path(readable=False),
    help="The store to use, instead of $LAYERRUN_STORE or the default.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
@click.pass_context
def cli(ctx: click.Context, store: str | None) -> int:
    """Run any program in a layer of its own, and clear its data at once.

    An app sees a read-only base (the machine's own /, or an imported tree) with one layer above it that takes
    everything it writes. `reset` drops that layer; shares, other apps and the machine stay as they are.
    `try` does the same for one command, and lists what it changed.
    """
    if store == "":
        raise click.UsageError("--store is empty")
    ctx.ensure_object(Settings).store = store
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        return 2
    return 0


def main(args: Sequence[str]) -> int:
    """Run the command line ``args`` (without the program's name) and return the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A locale that cannot say a character gets its escape, not a traceback.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")
    if COMPLETE in os.environ:
        cli.main(list(args), prog_name="layerrun", complete_var=COMPLETE)
    state = Settings(words=tuple(args))

    def run() -> Any:
        with cli.make_context("layerrun", list(args), obj=state) as ctx:
            return cli.invoke(ctx)

    return exits.ended(run, lambda: state.runs, lambda: state.status_fd)
