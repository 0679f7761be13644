"""Write a man page for layerrun and for each of its commands, from what the commands say of themselves.

usage: man.py FOLDER

The pages carry the version and no date, so that the same commands always give the same bytes.
"""

from __future__ import annotations

import inspect
import os
import re
import sys

import click

from layerrun import __version__
from layerrun.cli.main import ENVIRONMENT, cli

STATUSES = {
    "0": "It worked. Commands that run a program end with the program's own status, or 128+N if signal N ended it.",
    "1": "It failed.",
    "2": "What was asked for makes no sense.",
    "3": "Doing it would destroy something else; nothing was written.",
    "5": "Somebody else is using the app or the store.",
    "6": "There is no such app, throwaway, base or path.",
    "125": "The program could not be started.",
    "126": "The program exists but cannot be executed.",
    "127": "There is no such program.",
}


def escape(text: str) -> str:
    """Return the text with what roff would take as its own made plain."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\n".join("\\&" + line if line.startswith((".", "'")) else line for line in text.splitlines())


def bold_code(text: str) -> str:
    """Return the text escaped, what stands between backquotes in bold."""
    return re.sub(r"``?([^`]+)``?", r"\\fB\1\\fP", escape(text))


def paragraphs(text: str) -> list[str]:
    """Return the roff lines of a help text; the part after a backspace, which is click's mark, is kept as it is."""
    lines = []
    for part in re.split(r"\n\s*\n", inspect.cleandoc(text).strip()):
        if part.lstrip().startswith("\b"):
            kept = part.replace("\b", "").strip("\n")
            lines += [".PP", ".nf", escape(kept), ".fi"]
        else:
            lines += [".PP", bold_code(" ".join(part.split()))]
    return lines


def option(ctx: click.Context, parameter: click.Option) -> list[str]:
    """Return the roff lines of one option."""
    record = parameter.get_help_record(ctx)
    if record is None:
        return []
    names, meaning = record
    return [".TP", f"\\fB{escape(names)}\\fP", bold_code(meaning)]


def page(ctx: click.Context, command: click.Command, see: list[str]) -> str:
    """Return the man page of one command."""
    title = ctx.command_path.replace(" ", "-")
    short = (command.short_help or (command.help or "").strip().partition("\n")[0]).rstrip(".")
    lines = [
        f'.TH "{escape(title.upper())}" "1" "" "layerrun {__version__}" "layerrun manual"',
        ".SH NAME",
        f"{escape(title)} \\- {escape(short[:1].lower() + short[1:])}",
        ".SH SYNOPSIS",
        f"\\fB{escape(ctx.command_path)}\\fP {escape(' '.join(command.collect_usage_pieces(ctx)))}",
        ".SH DESCRIPTION",
        *paragraphs(command.help or ""),
    ]
    options = [
        line for p in command.get_params(ctx) if isinstance(p, click.Option) for line in option(ctx, p)
    ]
    lines += [".SH OPTIONS", *options] if options else []
    if isinstance(command, click.Group):
        lines += [".SH COMMANDS"]
        for name in command.list_commands(ctx):
            found = command.get_command(ctx, name)
            assert found is not None
            meaning = (found.short_help or found.get_short_help_str(200)).rstrip(".")
            lines += [".TP", f"\\fB{escape(title)}\\-{escape(name)}\\fP(1)", bold_code(meaning) + "."]
    examples = getattr(command, "examples", ())
    if examples:
        lines += [".SH EXAMPLES"]
        for line, meaning in examples:
            lines += [".TP", f"\\fB{escape(line)}\\fP", bold_code(meaning)]
    if ctx.parent is None:
        for heading, words in (("EXIT STATUS", STATUSES), ("ENVIRONMENT", ENVIRONMENT)):
            lines += [f".SH {heading}"]
            for word, meaning in words.items():
                lines += [".TP", f"\\fB{word}\\fP", escape(meaning)]
    if see:
        lines += [".SH SEE ALSO", ",\n".join(f"\\fB{escape(name)}\\fP(1)" for name in see)]
    return "\n".join(lines) + "\n"


def pages(ctx: click.Context, command: click.Command) -> dict[str, str]:
    """Return the pages of a command and of those below it, by file name."""
    parent = ctx.parent.command_path.replace(" ", "-") if ctx.parent else None
    found = {f"{ctx.command_path.replace(' ', '-')}.1": page(ctx, command, [parent] if parent else [])}
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None, name
            found |= pages(click.Context(below, info_name=name, parent=ctx, **below.context_settings), below)
    return found


def main() -> None:
    """Write the pages and remove those of commands that are gone."""
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    # A terminal's width must not show in the result.
    made = pages(click.Context(cli, info_name="layerrun", terminal_width=100, **cli.context_settings), cli)
    for name in os.listdir(folder):
        if name.endswith(".1") and name not in made:
            os.remove(os.path.join(folder, name))
    for name, text in made.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
