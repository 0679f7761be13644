"""Which of the files that are gone live on under another name: with the same content, or with much of it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from layerrun.layers.between import Difference
from layerrun.layers.contents import Reader
from layerrun.layers.delta import Stat
from layerrun.layers.text import is_text, split_lines

__all__ = ["Rename", "renames"]

# Files up to these sizes, in bytes, are read; so many pairs are compared at the most.
_LARGEST_SAME = 64 << 20
_LARGEST_ALIKE = 1 << 20
# That two smaller ones have half of their lines in common says little.
_SMALLEST_ALIKE = 32
_PAIRS = 10_000
# How much of the larger file's bytes must be in lines that both have: git's default.
_ENOUGH = 50


class Rename(NamedTuple):
    """``old`` was deleted, ``new`` added; ``similarity`` is in percent, 100 is the same content."""

    old: Difference
    new: Difference
    similarity: int


class _File(NamedTuple):
    """A regular file on one of the sides."""

    difference: Difference
    layer: int
    seen: Stat


def renames(found: Sequence[Difference], reader: Reader) -> list[Rename]:
    """Return what was renamed: each file that is gone and each new one is in one rename at the most."""
    gone = [
        _File(d, d.old_layer, d.old)
        for d in found
        if d.letter == "D" and d.old and d.old.is_file and d.old.size
    ]
    new = [
        _File(d, d.layer, d.new) for d in found if d.letter == "A" and d.new and d.new.is_file and d.new.size
    ]
    if not gone or not new:
        return []
    same = list(_same(gone, new, reader))
    taken = {id(side) for rename in same for side in (rename.old, rename.new)}
    rest = [[f for f in files if id(f.difference) not in taken] for files in (gone, new)]
    return same + list(_alike(rest[0], rest[1], reader))


def _same(gone: Sequence[_File], new: Sequence[_File], reader: Reader) -> Iterator[Rename]:
    """Yield the pairs with one content; where several have it, those of one base name first."""
    sizes = {f.seen.size for f in gone} & {f.seen.size for f in new}
    by_content: dict[bytes, list[_File]] = defaultdict(list)
    for file in gone:
        if file.seen.size in sizes and (key := _digest(file, reader)):
            by_content[key].append(file)
    waiting: list[tuple[bytes, _File]] = []
    for file in new:
        if file.seen.size not in sizes or not (key := _digest(file, reader)):
            continue
        fitting = [old for old in by_content[key] if _base(old) == _base(file)]
        if fitting:
            by_content[key].remove(fitting[0])
            yield Rename(fitting[0].difference, file.difference, 100)
        else:
            waiting.append((key, file))
    for key, file in waiting:
        if by_content[key]:
            yield Rename(by_content[key].pop(0).difference, file.difference, 100)


def _digest(file: _File, reader: Reader) -> bytes | None:
    data = reader.content(file.layer, file.difference.path, file.seen, most=_LARGEST_SAME)
    return None if data is None else hashlib.blake2b(data, digest_size=32).digest()


def _base(file: _File) -> bytes:
    return file.difference.path.rpartition(b"/")[2]


def _alike(gone: Sequence[_File], new: Sequence[_File], reader: Reader) -> Iterator[Rename]:
    """Yield pairs of texts that have much in common, the likest first."""
    if len(gone) * len(new) > _PAIRS:
        # Too many to compare each with each: those whose base name is found once on either side.
        names = [Counter(map(_base, files)) for files in (gone, new)]
        once = {name for name, count in names[0].items() if count == 1 and names[1][name] == 1}
        gone, new = ([f for f in files if _base(f) in once] for files in (gone, new))
        pairs = [(old, next(f for f in new if _base(f) == _base(old))) for old in gone[:_PAIRS]]
    else:
        pairs = [(old, fresh) for old in gone for fresh in new]
    pairs = [(a, b) for a, b in pairs if _may_be_alike(a.seen.size, b.seen.size)]
    lines: dict[int, Counter[bytes] | None] = {}
    for file in (file for pair in pairs for file in pair):
        if id(file.difference) not in lines:
            lines[id(file.difference)] = _lines(file, reader)
    scored = []
    for old, fresh in pairs:
        one, two = lines[id(old.difference)], lines[id(fresh.difference)]
        if one is None or two is None:
            continue
        score = sum(len(line) * count for line, count in (one & two).items()) * 100
        score //= max(old.seen.size, fresh.seen.size)
        if score >= _ENOUGH:
            scored.append((min(score, 99), _base(old) == _base(fresh), old.difference, fresh.difference))
    taken: set[int] = set()
    for score, _, before, after in sorted(scored, key=lambda item: item[:2], reverse=True):
        if not {id(before), id(after)} & taken:
            taken |= {id(before), id(after)}
            yield Rename(before, after, score)


def _may_be_alike(one: int, two: int) -> bool:
    return min(one, two) >= _SMALLEST_ALIKE and 2 * min(one, two) >= max(one, two)


def _lines(file: _File, reader: Reader) -> Counter[bytes] | None:
    data = reader.content(file.layer, file.difference.path, file.seen, most=_LARGEST_ALIKE)
    return Counter(split_lines(data)) if data is not None and is_text(data) else None
