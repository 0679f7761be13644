"""What a commit does to the host, step by step, as data. Each step can be done again and taken back."""

from __future__ import annotations

import enum

import attrs

from layerrun.layers.delta import Stat

__all__ = ["Kind", "Op"]


class Kind(enum.StrEnum):
    """The kinds of steps.

    ADD      something where nothing is: a file, a link, a special file, a folder with all in it, in one rename.
    MKDIR    a folder where nothing is, with its metadata, whose contents are steps of their own.
    REPLACE  something else in place of what is there, in one exchange: at no moment is there nothing.
    WRITE    content and metadata into the file that is there: it has further names, which stay the same file.
    LINK     a further name of what another path has (``link_to``), which is there by then.
    REMOVE   what is there goes, a folder with all in it.
    META     mode, owner, extended attributes and time of what is there. Those of folders come last.
    """

    ADD = "add"
    MKDIR = "mkdir"
    REPLACE = "replace"
    WRITE = "write"
    LINK = "link"
    REMOVE = "remove"
    META = "meta"


@attrs.frozen
class Op:
    """A step. Paths are relative to the host's root, in the bytes of the file system.

    Attributes:
        path: what it is done to.
        source: the entry in the app's upper that it takes, as a path relative to the upper; usually the same.
            ``None`` where nothing is taken; for META that opens a folder of one's own, so that its entries can be
            changed; a later one closes it again.
        prepared: the name of a file in the folder of prepared files (merged or picked content) that is taken instead;
            its metadata are those of the entry ``source``.
        layer: 0: ``source`` lies in the upper, and is moved; n: in the nth layer from the top, and is copied, since
            others have it too.
        new: what ``source`` was when this was planned.
        old: what was at ``path`` when this was planned; ``None``: nothing. It must still be so.
        link_to: for LINK: the path whose entry gets a further name.
        drop: what is not taken over: ``setid`` (the mode's setuid and setgid bits), ``caps`` (file capabilities).
        times_only: for META: only the time of modification is another, that of ``new``.
        letter: of the change that it comes from, for the log; ``""`` for what is done along the way.
    """

    kind: Kind
    path: bytes
    source: bytes | None = None
    prepared: str | None = None
    layer: int = 0
    new: Stat | None = None
    old: Stat | None = None
    link_to: bytes | None = None
    drop: frozenset[str] = frozenset()
    times_only: bool = False
    letter: str = ""
