"""A small compiler for seccomp filters: from a verdict for each number to the instructions of the classic BPF.

A verdict is an errno, 0 for "let through", or a test of an argument. Only the low half of an argument is looked at: the
kernel takes what is tested here as 32-bit values, so a set high half must not help (TIOCSTI|1<<32). Little-endian
machines only. See seccomp(2).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import attrs

__all__ = ["AUDIT_ARCH", "Test", "assemble", "to_bytes"]

# linux/audit.h
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

Step = tuple[int, int, int, int]

_LOAD, _JUMP, _JEQ, _JGE, _JSET, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
# struct seccomp_data: int nr; __u32 arch; __u64 instruction_pointer; __u64 args[6];
_NR, _ARCH, _ARGS = 0, 4, 16
# A conditional jump passes over at most 255 steps; two more may be put between.
_FAR = 253


@attrs.frozen
class Test:
    """Refuse with ``errno`` a call whose argument number ``arg`` has any of ``bits``, is ``one_of``, is ``none_of``."""

    errno: int
    arg: int
    bits: int = 0
    one_of: tuple[int, ...] = ()
    none_of: tuple[int, ...] = ()


class _Program:
    """Steps from the last to the first, so that what is jumped to is there, and nothing is there twice."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.known: dict[tuple[int, int, int, int], int] = {}

    def _add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def _near(self, place: int) -> int:
        """Return ``place``, or that of a long jump there if it is too far for a conditional one."""
        gap = len(self.steps) - place - 1
        return place if gap <= _FAR else self._add((_JUMP, 0, 0, gap))

    def give(self, errno: int) -> int:
        key = (_RETURN, errno, 0, 0)
        if key not in self.known:
            self.known[key] = self._add((_RETURN, 0, 0, _ERRNO | errno if errno else _ALLOW))
        return self.known[key]

    def jump(self, kind: int, value: int, yes: int, no: int) -> int:
        if yes == no:
            return yes
        key = (kind, value, yes, no)
        if key not in self.known:
            yes, no = self._near(yes), self._near(no)
            yes = self._near(yes)
            here = len(self.steps)
            self.known[key] = self._add((kind, here - yes - 1, here - no - 1, value))
        return self.known[key]

    def load(self, offset: int, then: int) -> int:
        gap = len(self.steps) - then - 1
        if gap:
            self._add((_JUMP, 0, 0, gap))
        return self._add((_LOAD, 0, 0, offset))

    def test(self, test: Test) -> int:
        refuse, allow = self.give(test.errno), self.give(0)
        at = refuse if test.none_of else allow
        for value in reversed(test.none_of):
            at = self.jump(_JEQ, value, allow, at)
        for value in reversed(test.one_of):
            at = self.jump(_JEQ, value, refuse, at)
        if test.bits:
            at = self.jump(_JSET, test.bits, refuse, at)
        return self.load(_ARGS + 8 * test.arg, at)

    def tree(self, spans: list[tuple[int, int]]) -> int:
        """Return where a search among ``spans`` begins: each a first number and the place that is its verdict."""
        if len(spans) == 1:
            return spans[0][1]
        if len(spans) == 3 and spans[0][1] == spans[2][1] and spans[2][0] == spans[1][0] + 1:
            return self.jump(_JEQ, spans[1][0], spans[1][1], spans[0][1])
        middle = len(spans) // 2
        more = self.tree(spans[middle:])
        return self.jump(_JGE, spans[middle][0], more, self.tree(spans[:middle]))


def assemble(arch: str, verdicts: Mapping[int, int | Test], unknown: int) -> list[Step]:
    """Return the program that gives each number its verdict, and ``unknown`` (an errno) to all others.

    Calls by another architecture's table (a 32-bit program's) are unknown too. The kernel tries every number when it
    loads a filter, and many filters are passed on every call, so the numbers are searched as a balanced tree.
    """
    program = _Program()
    places: dict[int | Test, int] = {verdict: program.give(verdict) for verdict in (0, unknown)}
    for verdict in dict.fromkeys(verdicts.values()):
        places[verdict] = program.test(verdict) if isinstance(verdict, Test) else program.give(verdict)
    spans = [(0, places[verdicts.get(0, unknown)])]
    for number in range(1, max(verdicts) + 2):
        place = places[verdicts.get(number, unknown)]
        if place != spans[-1][1]:
            spans.append((number, place))
    search = program.load(_NR, program.tree(spans))
    program.load(_ARCH, program.jump(_JEQ, AUDIT_ARCH[arch], search, program.give(unknown)))
    return program.steps[::-1]


def to_bytes(steps: list[Step]) -> bytes:
    """Return the program as an array of struct sock_filter."""
    return b"".join(struct.pack("<HBBI", *step) for step in steps)
