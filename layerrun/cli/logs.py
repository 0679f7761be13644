"""``logs``: what detached commands have written."""

from __future__ import annotations

import codecs
import os
import re
import sys

import click

from layerrun.cli.common import Verb, open_store
from layerrun.cli.options import app_argument

__all__ = ["logs"]

# A tab, the end of a line, a colour; everything else that a terminal would obey is shown instead.
_HARMLESS = r"\t|\r?\n|\x1b\[[0-9;]*m"
_CONTROL = re.compile(rf"({_HARMLESS})|([\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069])")
_BEGUN = re.compile(r"(\x1b(\[[0-9;]*)?|\r)\Z")


class _Terminal:
    """Makes what programs have written harmless, piece by piece."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._held = ""

    def show(self, data: bytes, *, final: bool = False) -> str:
        """Return the next piece as it may be shown."""
        text = self._held + self._decoder.decode(data, final)
        self._held = ""
        if not final and (begun := _BEGUN.search(text)):
            text, self._held = text[: begun.start()], begun[0]
        return _CONTROL.sub(lambda found: found[1] or ascii(found[2])[1:-1], text)


@click.command(
    cls=Verb,
    examples=[
        ("layerrun logs web", "all that the detached commands of web have written since its last start"),
        ("layerrun logs -f -n 20 web", "the last 20 lines, then what comes, until web has ended"),
        ("layerrun logs web | less -R", "the bytes as they are"),
    ],
)
@app_argument()
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until the app has ended.")
@click.option(
    "-n", "--lines", type=click.IntRange(0), metavar="N", help="Only the last N lines.  [default: all]"
)
def logs(name: str, follow: bool, lines: int | None) -> int:
    """Print what was written by commands that were started with `app --detach`, stdout and stderr together.

    A pipe or a file gets the bytes as they are. On a terminal colours are kept, and other control characters are
    shown, not obeyed. A detached start of an app that does not run begins a new log. reset drops it.
    """
    from layerrun.runtime import logs as library

    with open_store() as store:
        app = store.app(name)
        fd = library.open_log(store, app)
        try:
            if lines is not None:
                library.tail(fd, lines)
            terminal = _Terminal() if sys.stdout.isatty() else None
            sys.stdout.flush()
            for block in library.read(store, app, fd, follow=follow):
                _put(terminal.show(block).encode(errors="backslashreplace") if terminal else block)
            if terminal:
                _put(terminal.show(b"", final=True).encode(errors="backslashreplace"))
        except KeyboardInterrupt:
            return 130
        finally:
            os.close(fd)
    return 0


def _put(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
