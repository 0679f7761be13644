"""The plan: a flat list of operations, which the C core executes. Its format is prose in docs/plan.md.

A plan is a value. It can be printed, compared and tested without any privilege; nothing here touches
the machine.
"""

from __future__ import annotations

import enum
import os

import attrs

from layerrun.policy import Socket

__all__ = ["Bus", "Lack", "MountPolicy", "Op", "Plan", "Policy"]

VERSION = "1"


class Policy(enum.StrEnum):
    """What becomes of a mount or a path of the base inside."""

    OVERLAID = "overlaid"
    READ_ONLY = "read-only"
    HIDDEN = "hidden"
    PRIVATE = "private"
    SHARED = "shared"


@attrs.frozen
class MountPolicy:
    """What a path is inside, and why. ``fstype`` is that of the file system beneath, or ""."""

    path: str
    fstype: str
    policy: Policy
    why: str


@attrs.frozen
class Lack:
    """Something granted that is not there. ``asked``: by name, not by a preset, so a start must not go without it."""

    kind: str
    value: str
    why: str
    asked: bool
    hint: str | None = None

    def __str__(self) -> str:
        return f"{self.kind} {self.value}: {self.why}"


@attrs.frozen
class Bus:
    """The session's bus: its rules, its address outside."""

    socket: Socket
    address: str


@attrs.frozen
class Op:
    """One operation: its name and its arguments, as csrc/plan.c's table has them."""

    name: str
    args: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.name, *self.args)).rstrip()


@attrs.define
class Plan:
    """Operations in the order in which they are carried out, and what `show` says about the mounts.

    ``listed`` are the folders of the host whose entries decided about operations, each with their sum
    (`layerrun.runtime.sums.names`), ``judged`` those of which only their modes did. ``seen`` is what else decided,
    as conditions of docs/plan.md: what it was by key and subject. ``lacks``: what is granted and is not there.
    ``bus``: the session's, which needs a proxy at each start.
    """

    ops: list[Op] = attrs.field(factory=list)
    mounts: list[MountPolicy] = attrs.field(factory=list)
    listed: dict[str, str] = attrs.field(factory=dict)
    judged: list[str] = attrs.field(factory=list)
    seen: dict[tuple[str, str], str] = attrs.field(factory=dict)
    lacks: list[Lack] = attrs.field(factory=list)
    bus: Bus | None = None

    def add(self, name: str, *args: object) -> None:
        """Append an operation."""
        self.ops.append(Op(name, tuple(str(arg) for arg in args)))

    def note(self, path: str, policy: Policy, why: str, fstype: str = "") -> None:
        """Say what a path is inside."""
        self.mounts.append(MountPolicy(path, fstype, policy, why))

    def lines(self) -> list[str]:
        """Return one readable line for each operation."""
        return [str(op) for op in self.ops]

    def to_bytes(self) -> bytes:
        """Return the plan as the C core reads it: words that each end with a NUL."""
        words = ["layerrun-plan", VERSION]
        for op in self.ops:
            words += [op.name, *op.args]
        words.append("end")
        if any("\0" in word for word in words):
            raise ValueError("a word of the plan holds a NUL")
        return b"".join(os.fsencode(word) + b"\0" for word in words)
