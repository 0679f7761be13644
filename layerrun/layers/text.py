"""Texts line by line: what differs between two, hunks of it, some of them applied, and three ways merged.

Lines are ``bytes`` with their newline; only the last may have none. What differs is found by diff(1) of GNU
diffutils, whose heuristics keep its time bounded whatever the texts hold (``difflib`` needs minutes for some of a
megabyte); small differences, which are nearly all, are found without a process.
"""

from __future__ import annotations

import difflib
import os
import subprocess
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from layerrun.errors import LayerrunError

__all__ = [
    "CONTEXT",
    "LARGEST",
    "Span",
    "apply",
    "hunks",
    "is_text",
    "merge3",
    "spans",
    "split_lines",
    "unified",
]

# Lines shown around what differs, as diff -u has them.
CONTEXT = 3
# What is larger, in bytes, is not looked at line by line.
LARGEST = 16 << 20
# Up to so many pairs of lines are compared in this process: 64 lines with 64 take it 1 ms at the worst, a diff(1) 2 ms.
_FEW = 4096

_NO_NEWLINE = b"\\ No newline at end of file\n"
# Of each group of lines that differs: the line before it and how many it has, in the old text and in the new.
_GROUP = "%de %dn %dE %dN\n"


class Span(NamedTuple):
    """``old_count`` lines from ``old_at``, counted from 0, are ``new_count`` lines from ``new_at`` in the new text."""

    old_at: int
    old_count: int
    new_at: int
    new_count: int


def is_text(data: bytes) -> bool:
    """Say whether data may be shown and merged line by line: it has no NUL, and is not too large."""
    return len(data) <= LARGEST and b"\0" not in data


def split_lines(data: bytes) -> list[bytes]:
    """Return the lines of data with their newlines. A carriage return is part of its line."""
    parts = data.split(b"\n")
    last = parts.pop()
    found = [part + b"\n" for part in parts]
    if last:
        found.append(last)
    return found


def spans(old: Sequence[bytes], new: Sequence[bytes]) -> list[Span]:
    """Return what differs between two lists of lines, in order; nowhere do two spans touch.

    Raises:
        LayerrunError: diff(1) is needed and missing.
    """
    head, most = 0, min(len(old), len(new))
    while head < most and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < most - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    left, right = old[head : len(old) - tail], new[head : len(new) - tail]
    if not left or not right:
        return [Span(head, len(left), head, len(right))] if left or right else []
    found = _by_difflib(left, right) if len(left) * len(right) <= _FEW else _by_diff(left, right)
    return [Span(a + head, b, c + head, d) for a, b, c, d in found]


def _by_difflib(old: Sequence[bytes], new: Sequence[bytes]) -> list[Span]:
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    return [
        Span(a, b - a, c, d - c) for what, a, b, c, d in matcher.get_opcodes() if what != "equal"
    ]  # fmt: skip


def _by_diff(old: Sequence[bytes], new: Sequence[bytes]) -> list[Span]:
    formats = [f"--{kind}-group-format={_GROUP}" for kind in ("old", "new", "changed")]
    files = [_in_memory(lines) for lines in (old, new)]
    try:
        done = subprocess.run(
            [
                "diff",
                "--text",
                *formats,
                "--unchanged-group-format=",
                *[f"/proc/self/fd/{fd}" for fd in files],
            ],
            pass_fds=files,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        raise LayerrunError(
            "cannot compare line by line: there is no diff(1)", hint="install diffutils"
        ) from None
    finally:
        for fd in files:
            os.close(fd)
    if done.returncode > 1:
        raise LayerrunError(f"diff(1) failed: {done.stderr.decode(errors='replace').strip()}")
    return [Span(*map(int, line.split())) for line in done.stdout.splitlines()]


def _in_memory(lines: Sequence[bytes]) -> int:
    """Return a file in memory that holds the lines."""
    fd = os.memfd_create("layerrun-text")
    data = memoryview(b"".join(lines))
    while data:
        data = data[os.write(fd, data) :]
    return fd


def hunks(found: Iterable[Span], context: int = CONTEXT) -> list[list[Span]]:
    """Return the spans, those together that have at most twice the context of equal lines between them."""
    groups: list[list[Span]] = []
    for span in found:
        before = groups[-1][-1] if groups else None
        if before is not None and span.old_at - before.old_at - before.old_count <= 2 * context:
            groups[-1].append(span)
        else:
            groups.append([span])
    return groups


def unified(
    hunk: Sequence[Span], old: Sequence[bytes], new: Sequence[bytes], context: int = CONTEXT
) -> list[bytes]:
    """Return a hunk as `diff -u` shows it, a line that begins with ``@@`` first."""
    first, last = hunk[0], hunk[-1]
    before = min(context, first.old_at)
    at, end = first.old_at - before, min(len(old), last.old_at + last.old_count + context)
    after = end - last.old_at - last.old_count
    new_at, new_end = first.new_at - before, last.new_at + last.new_count + after
    shown = [b"@@ -%s +%s @@\n" % (_range(at, end), _range(new_at, new_end))]
    for span in hunk:
        shown += _marked(b" ", old[at : span.old_at])
        shown += _marked(b"-", old[span.old_at : span.old_at + span.old_count])
        shown += _marked(b"+", new[span.new_at : span.new_at + span.new_count])
        at = span.old_at + span.old_count
    return shown + _marked(b" ", old[at:end])


def _range(at: int, end: int) -> bytes:
    """Return lines as ``diff -u`` counts them: from 1, and an empty run by the line before it."""
    count = end - at
    return b"%d" % (at + 1) if count == 1 else b"%d,%d" % (at + bool(count), count)


def _marked(mark: bytes, lines: Sequence[bytes]) -> list[bytes]:
    shown = [mark + line for line in lines]
    if shown and not shown[-1].endswith(b"\n"):
        shown[-1] += b"\n"
        shown.append(_NO_NEWLINE)
    return shown


def apply(chosen: Iterable[Span], old: Sequence[bytes], new: Sequence[bytes]) -> list[bytes]:
    """Return the old lines with just the chosen spans as in the new ones."""
    made: list[bytes] = []
    at = 0
    for span in sorted(chosen):
        made += old[at : span.old_at]
        made += new[span.new_at : span.new_at + span.new_count]
        at = span.old_at + span.old_count
    return made + list(old[at:])


def merge3(base: bytes, ours: bytes, theirs: bytes) -> bytes | None:
    """Return a text with what both sides changed of a common ancestor.

    ``None`` where it cannot be told: one of them is no text, or changes of both touch (there is no equal line between
    them) and are not the same.
    """
    if not all(map(is_text, (base, ours, theirs))):
        return None
    old, left, right = map(split_lines, (base, ours, theirs))
    from_left = [(span, left[span.new_at : span.new_at + span.new_count]) for span in spans(old, left)]
    from_right = [(span, right[span.new_at : span.new_at + span.new_count]) for span in spans(old, right)]
    both = sorted([*from_left, *from_right], key=lambda item: item[0][:2])
    made: list[bytes] = []
    at, last = 0, None
    for span, lines in both:
        if last is not None and span.old_at <= at:
            if (span[:2], lines) == last:
                continue  # both did the same
            return None
        made += old[at : span.old_at]
        made += lines
        at, last = span.old_at + span.old_count, (span[:2], lines)
    return b"".join(made + old[at:])
