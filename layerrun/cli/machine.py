"""``doctor``, ``completion`` and ``version``: the machine and this program."""

from __future__ import annotations

import os
from typing import cast

import click

from layerrun.cli import bash
from layerrun.cli.common import Verb, settings
from layerrun.cli.options import json_option
from layerrun.cli.output import emit, line, printable

__all__ = ["completion", "doctor", "version"]


@click.command(
    cls=Verb,
    examples=[
        ("layerrun doctor", "what works here, what does not, and what to do about it"),
        ("layerrun doctor --json", "the same for a program"),
    ],
)
@json_option
def doctor(as_json: bool) -> int:
    """Check what this machine and the store can do, by trying it.

    The exit status is 1 if a check failed; a warning does not count.
    """
    from layerrun.runtime import doctor as library

    checks = library.checks(settings().store)
    failed = any(check.status == "fail" for check in checks)
    if as_json:
        records = [{"name": c.name, "status": c.status, "detail": c.detail, "hint": c.hint} for c in checks]
        emit({"healthy": not failed, "checks": records})
        return int(failed)
    colors = {"ok": "green", "warn": "yellow", "fail": "red"}
    width = max((len(c.name) for c in checks), default=0)
    for c in checks:
        status = click.style(f"{c.status:<4}", fg=colors.get(c.status))
        line(f"{status}  {c.name:<{width}}  {printable(c.detail)}")
        if c.hint and c.status != "ok":
            line(f"{'':<{width + 8}}try: {printable(c.hint)}")
    return int(failed)


@click.command(
    cls=Verb,
    examples=[
        ('eval "$(layerrun completion bash)"', "in ~/.bashrc"),
        ('eval "$(layerrun completion zsh)"', "in ~/.zshrc"),
        ("layerrun completion fish > ~/.config/fish/completions/layerrun.fish", "for fish"),
    ],
)
@click.argument("shell", metavar="bash|zsh|fish", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print the script that makes a shell complete layerrun's commands, options and app names."""
    from click.shell_completion import get_completion_class

    from layerrun.cli.main import COMPLETE

    made = get_completion_class(shell)
    assert made is not None
    group = cast("click.Group", ctx.find_root().command)
    complete = made(group, {}, "layerrun", COMPLETE)
    # Not .source(): for bash that starts a bash, only to warn about its version.
    template = bash.SCRIPT.strip() if shell == "bash" else complete.source_template
    line(template % complete.source_vars())
    return 0


@click.command(
    cls=Verb,
    examples=[
        ("layerrun version", "the version"),
        ("layerrun version --json", "with the kernel's and Python's"),
    ],
)
@json_option
def version(as_json: bool) -> int:
    """Print the version of layerrun."""
    from layerrun import __version__

    if as_json:
        import platform

        emit(
            {
                "version": __version__,
                "python": platform.python_version(),
                "kernel": os.uname().release,
                "machine": os.uname().machine,
            }
        )
    else:
        line(f"layerrun {__version__}")
    return 0
