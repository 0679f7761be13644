"""A difference as patch(1) and `git apply` take it: unified, with git's lines for modes, links and renames.

What they cannot do (binary files, special files, owners) stands between the patches in lines that they pass over.
"""

from __future__ import annotations

import hashlib
import stat

from layerrun.layers import text
from layerrun.layers.between import Difference
from layerrun.layers.contents import Reader
from layerrun.layers.delta import Stat
from layerrun.layers.renames import Rename

__all__ = ["Contents", "contents", "counted", "patch"]

Lines = list[bytes]
# The contents of both sides: ``b""`` where there is nothing, ``None`` where it is no text.
Contents = tuple[bytes | None, bytes | None]

_ESCAPES = {
    7: b"\\a",
    8: b"\\b",
    9: b"\\t",
    10: b"\\n",
    11: b"\\v",
    12: b"\\f",
    13: b"\\r",
    34: b'\\"',
    92: b"\\\\",
}
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character device",
    stat.S_IFBLK: "block device",
}


def contents(old: Difference | None, new: Difference | None, reader: Reader) -> Contents:
    """Return the texts of the old side of one difference and the new side of another, mostly the same one."""
    before = _content(old.old_layer, old.path, old.old, reader) if old is not None else b""
    return before, _content(new.layer, new.path, new.new, reader) if new is not None else b""


def _content(layer: int, path: bytes, seen: Stat | None, reader: Reader) -> bytes | None:
    if seen is None or not _has_lines(seen):
        return b""
    data = reader.content(layer, path, seen)
    return data if data is not None and text.is_text(data) else None


def _has_lines(seen: Stat | None) -> bool:
    return seen is not None and (seen.is_file or stat.S_ISLNK(seen.mode))


def counted(found: Contents) -> tuple[int, int] | None:
    """Return how many lines were added and removed; ``None`` for what is no text."""
    if found[0] is None or found[1] is None:
        return None
    spans = text.spans(text.split_lines(found[0]), text.split_lines(found[1]))
    return sum(span.new_count for span in spans), sum(span.old_count for span in spans)


def patch(difference: Difference, found: Contents, rename: Rename | None = None) -> bytes:
    """Return a difference, or a rename of which it is the new side, as text; empty if there is nothing to say.

    Args:
        difference: what is to be shown.
        found: its contents, as `contents` gives them.
        rename: where the old side of a rename is.
    """
    old = rename.old.old if rename else difference.old
    new = difference.new
    paths = (rename.old.path if rename else difference.path, difference.path)
    if (
        rename is None
        and old is not None
        and new is not None
        and stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode)
    ):
        # As git does: one goes, the other comes.
        return _one(paths, old, None, (found[0], b""), None) + _one(paths, None, new, (b"", found[1]), None)
    return _one(paths, old, new, found, rename)


def _one(
    paths: tuple[bytes, bytes], old: Stat | None, new: Stat | None, found: Contents, rename: Rename | None
) -> bytes:
    if not (_has_lines(old) or _has_lines(new)):
        return _note(paths[1], old, new)
    head = _head(paths, old, new, rename)
    if found[0] is None or found[1] is None:
        # Not under a "diff" line of its own: `git apply` would refuse it all for a binary file that it cannot make.
        said = b"Binary files %s and %s differ\n" % (_name(b"a/", paths[0], old), _name(b"b/", paths[1], new))
        moves = old is not None and new is not None and (rename is not None or old.mode != new.mode)
        if rename is not None and rename.similarity == 100:
            return b"".join(head)
        return (b"".join(head) if moves and rename is None else b"") + said
    before, after = text.split_lines(found[0]), text.split_lines(found[1])
    spans = text.spans(before, after)
    if spans or old is None or new is None:
        head.append(_index(old, new, (found[0], found[1])))
    if spans:
        head.append(b"--- %s\n" % _name(b"a/", paths[0], old))
        head.append(b"+++ %s\n" % _name(b"b/", paths[1], new))
        for hunk in text.hunks(spans):
            head += text.unified(hunk, before, after)
    return b"".join(head) if len(head) > 1 else b""


def _head(paths: tuple[bytes, bytes], old: Stat | None, new: Stat | None, rename: Rename | None) -> Lines:
    lines = [b"diff --git %s %s\n" % (_quoted(b"a/" + paths[0]), _quoted(b"b/" + paths[1]))]
    if old is None and new is not None:
        lines.append(b"new file mode %s\n" % _mode(new))
    elif new is None and old is not None:
        lines.append(b"deleted file mode %s\n" % _mode(old))
    elif old is not None and new is not None and _mode(old) != _mode(new):
        lines += [b"old mode %s\n" % _mode(old), b"new mode %s\n" % _mode(new)]
    if rename is not None:
        lines.append(b"similarity index %d%%\n" % rename.similarity)
        lines += [b"rename from %s\n" % _quoted(paths[0]), b"rename to %s\n" % _quoted(paths[1])]
    return lines


def _index(old: Stat | None, new: Stat | None, found: tuple[bytes, bytes]) -> bytes:
    """Return git's line with the names of both contents: by it patch(1) knows an empty file, and what is a link."""
    names = [
        b"0" * 40 if seen is None else _blob(data).encode()
        for seen, data in zip((old, new), found, strict=True)
    ]
    kept = b" " + _mode(new) if old is not None and new is not None and _mode(old) == _mode(new) else b""
    return b"index %s..%s%s\n" % (names[0], names[1], kept)


def _blob(data: bytes) -> str:
    """Return the name git gives to a content; no secret hangs on it."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _mode(seen: Stat) -> bytes:
    """Return a mode as git writes it, with all of the permissions. A link has none of its own."""
    return b"120000" if stat.S_ISLNK(seen.mode) else b"%06o" % seen.mode


def _name(side: bytes, path: bytes, seen: Stat | None) -> bytes:
    return b"/dev/null" if seen is None else _quoted(side + path)


def _quoted(name: bytes) -> bytes:
    """Return a name as a string of C if there is an odd byte in it; patch(1) takes a blank for the name's end."""
    if all(32 < byte < 127 and byte not in b'"\\' for byte in name):
        return name
    parts = [
        _ESCAPES.get(byte) or (bytes((byte,)) if 32 <= byte < 127 else b"\\%03o" % byte) for byte in name
    ]
    return b'"' + b"".join(parts) + b'"'


def _note(path: bytes, old: Stat | None, new: Stat | None) -> bytes:
    """Return a line on what no patch can do; a folder that is only there for what is in it says nothing new."""
    name = _quoted(b"/" + path)
    if old is not None and new is not None:
        if stat.S_IMODE(old.mode) == stat.S_IMODE(new.mode) or stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
            return b""
        return b"# %s: mode %04o, was %04o\n" % (name, stat.S_IMODE(new.mode), stat.S_IMODE(old.mode))
    seen = new or old
    assert seen is not None
    kind = _KINDS[stat.S_IFMT(seen.mode)].encode()
    return b"# %s: %s %s\n" % (name, b"new" if new is not None else b"deleted", kind)
