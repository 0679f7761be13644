"""What the commands share: their class, the store they open, the questions they ask."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, overload

import attrs
import click

from layerrun.cli.output import line, printable, say

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from layerrun.model import App
    from layerrun.runtime.handoff import Door
    from layerrun.store.store import Store

__all__ = [
    "RunVerb",
    "Settings",
    "Verb",
    "VerbGroup",
    "answer",
    "ask",
    "ask_before",
    "chosen",
    "front_door",
    "has_terminal",
    "nearest",
    "nothing",
    "open_store",
    "settings",
]

# How many lines may stand before a question: what scrolls away is not read.
MANY = 20


@attrs.define
class Settings:
    """What the global options say, and whether the verb at work is to run a program.

    ``runs`` turns a plain exit status 1 into 125: a 1 would be mistaken for the program's own. ``words`` are
    those that layerrun was called with. ``status_fd`` is where ``--status-fd`` wants to be told how it goes.
    """

    store: str | None = None
    runs: bool = False
    words: tuple[str, ...] = ()
    status_fd: int | None = None


def settings() -> Settings:
    """Return the settings of the command at work."""
    return click.get_current_context().ensure_object(Settings)


def open_store(*, recover: bool = True) -> Store:
    """Open the store that ``--store``, ``$LAYERRUN_STORE`` or the default names; make it if need be.

    With ``recover``, what a `try` that was cut short has written becomes a throwaway, and its name is said.
    """
    from layerrun.store.store import Store

    store = Store.open(settings().store)
    if store.recovered:
        say(store.recovered)
    if recover:
        try:
            _recover(store)
        except BaseException:
            store.close()
            raise
    return store


def _recover(store: Store) -> None:
    from layerrun.errors import LayerrunError
    from layerrun.store import spares

    if not any(spares.is_touched(store, app) for app in store.catalog.spares()):
        return
    from layerrun.cli.committing import say_kept
    from layerrun.runtime.spares import recover

    try:
        for app in recover(store):
            say_kept(app, "a try was cut short: ")
    except LayerrunError as error:
        # It stays where it is, for the next command. This one has other things to do: to make room, perhaps.
        say(f"a try was cut short, and what it changed cannot be listed yet: {error}")


def front_door(*, created: str | None = None, after: str = "") -> Door | None:
    """Return the front door that a start is to go through, so that no Python stays behind; ``None``: run it here.

    Args:
        created: the id of the app that was made for this start.
        after: what is left to do after the command's end, a word; see `layerrun.runtime.handoff.ended`.
    """
    from layerrun.runtime import handoff

    path = handoff.find()
    return None if path is None else handoff.Door(path, settings().words, created=created, after=after)


def nearest(word: str, among: Iterable[str]) -> list[str]:
    """Return the few of ``among`` that ``word`` may have been meant as."""
    import difflib

    known = sorted(among)
    starts = [name for name in known if len(word) > 1 and name.startswith(word)]
    return starts or difflib.get_close_matches(word, known, n=3, cutoff=0.6)


class Verb(click.Command):
    """A command whose help ends with examples.

    Args:
        examples: pairs of a command line and what it does.
    """

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples below the options."""
        if self.examples:
            with formatter.section("Examples"):
                for command, meaning in self.examples:
                    formatter.write_text(f"\b\n{command}\n    {meaning}")
        super().format_epilog(ctx, formatter)


class RunVerb(Verb):
    """A command that takes a program's argv: ``[OPTIONS] [NAME] [OPTIONS] [--] [CMD…]``.

    The command line is cut before click parses it, at ``--`` or at the first word that can belong to
    nothing else; what follows reaches the callback as ``argv``, untouched: a tuple of strings, or ``None``
    if there was neither.

    Args:
        runs: whether the argv is run now, so that the exit status is the program's own.
    """

    def __init__(self, *args: Any, runs: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.runs = runs

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the part before the program's argv."""
        head, argv = self._cut(args)
        rest = super().parse_args(ctx, head)
        if argv == [] and not ctx.resilient_parsing:
            raise click.UsageError("no command after --", ctx)
        ctx.params["argv"] = None if argv is None else tuple(argv)
        ctx.ensure_object(Settings).runs = self.runs
        return rest

    def _cut(self, args: list[str]) -> tuple[list[str], list[str] | None]:
        valued = {
            name
            for param in self.params
            if isinstance(param, click.Option) and not param.is_flag and not param.count
            for name in param.opts
        }
        words = sum(isinstance(param, click.Argument) for param in self.params)
        index = 0
        while index < len(args):
            word = args[index]
            if word == "--":
                return args[:index], args[index + 1 :]
            if word.startswith("-") and word != "-":
                index += 1 if word in valued else 0
            elif words:
                words -= 1
            else:
                return args[:index], args[index:]
            index += 1
        return args, None

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """Add the program's argv to the usage line."""
        return [*super().collect_usage_pieces(ctx), "[--] [CMD]..."]


class VerbGroup(click.Group):
    """A group that names the nearest verbs when a verb is mistyped, and shows its help when there is none."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a word print the help: click raises it as an error's text, or ends with 0, as its version has it."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb, or say which ones are near."""
        word = args[0]
        if not ctx.resilient_parsing and not word.startswith("-") and self.get_command(ctx, word) is None:
            from layerrun.errors import UsageError

            near = nearest(word, self.list_commands(ctx))
            hint = "\n".join(f"{ctx.command_path} {name}" for name in near)
            raise UsageError(f"no such command {word!r}", hint=hint or f"{ctx.command_path} --help")
        return super().resolve_command(ctx, args)


def has_terminal() -> bool:
    """Whether there is somebody to ask: standard input and standard error are a terminal."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_before(what: str, *, yes: bool) -> bool:
    """Return whether a question must be asked before ``what``.

    Called before sizes are measured, so that ``-y`` does not pay for them.

    Raises:
        UsageError: there is no ``-y`` and nobody to ask.
    """
    if yes:
        return False
    if not has_terminal():
        from layerrun.errors import UsageError

        command = click.get_current_context().command_path
        raise UsageError(f"{what} and there is no terminal to ask on", hint=f"{command} -y …")
    return True


@overload
def answer(prompt: str) -> str: ...
@overload
def answer(prompt: str, *, at_end: None) -> str | None: ...
def answer(prompt: str, *, at_end: str | None = "") -> str | None:
    """Ask on the terminal; return what was typed, in lower case without spaces around, ``at_end`` at the end of input.

    Raises:
        KeyboardInterrupt: it was interrupted. Plain input() misses a signal that comes just before its read(2)
            and then waits for another; the descriptor that Python writes to at each signal does not.
    """
    try:
        typed = _typed(prompt)
    except KeyboardInterrupt:
        click.echo(err=True)  # behind the ^C that the terminal shows
        raise
    if not typed.endswith(b"\n"):
        click.echo(err=True)
    return typed.decode(errors="replace").strip().lower() if typed else at_end


def _typed(prompt: str) -> bytes:
    import select
    import signal

    click.echo(prompt, nl=False, err=True)
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(wake)
    try:
        select.select([0, woken], [], [])
        return os.read(0, 4096)
    finally:
        signal.set_wakeup_fd(before)
        os.close(woken)
        os.close(wake)


def ask(question: str, destroyed: Sequence[str]) -> None:
    """Name what will be destroyed, and go on only after a yes; the answer of an empty line is no.

    Of a long list the beginning is shown, and how much more there is.

    Raises:
        LayerrunError: the answer was no.
    """
    from layerrun.errors import LayerrunError

    for text in destroyed[:MANY]:
        click.echo(f"  {printable(text)}", err=True)
    if len(destroyed) > MANY:
        click.echo(f"  … and {len(destroyed) - MANY:,} more", err=True)
    if answer(f"{question} [y/N] ") not in ("y", "yes"):
        raise LayerrunError("stopped: the answer was no, and nothing was done")


def chosen(store: Store, names: Sequence[str], *, every: bool) -> list[App]:
    """Return the apps and throwaways called ``names``, each once; with ``every`` all apps."""
    from layerrun.model import AppKind

    if every:
        # What is ephemeral goes at its end anyway.
        return [app for app in store.apps(AppKind.APP) if not app.ephemeral]
    return list({name: store.app(name) for name in names}.values())


def nothing(text: str) -> None:
    """Say on a terminal that a list is empty; a pipe gets nothing."""
    if sys.stdout.isatty():
        line(text)
