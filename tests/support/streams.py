"""Sources that say what a test has them say."""

from __future__ import annotations

import os
from itertools import pairwise

import attrs

from layerrun.bases import intake
from layerrun.images.stream import Record, Step, write_chunk, write_end_of_content, write_record
from layerrun.model import IdMode

# What announces a layer.
ONE, TWO = Record("n", link=b"sha256:aa"), Record("n", link=b"sha256:bb")


@attrs.frozen
class File:
    """A file with its content, which is told with holes in it if there are any zeros to leave out."""

    record: Record
    data: bytes
    holes: bool = False


def file(path, data, *, mode=0o644, uid=0, xattrs=None):
    """Return a file; its time is always the same."""
    name = os.fsencode(path)
    record = Record("f", name, mode, uid, mtime_ns=10**18, xattrs=xattrs or {}, size=len(data))
    return File(record, data)


def folder_of(path, *, mode=0o755, xattrs=None):
    """Return a folder."""
    return Record("d", os.fsencode(path), mode, mtime_ns=10**18, xattrs=xattrs or {})


class Told:
    """A source that tells ``told``, or ``short`` if the store knows any layers."""

    text = "told"

    def __init__(self, told, short=None, vouched=False, mtime=None):
        self.told, self.short, self.vouched, self.mtime = told, short, vouched, mtime
        self.fed = 0
        self.known = frozenset()

    def ids(self, *, rootless):
        """All ids, or just one."""
        return IdMode.SINGLE if rootless else IdMode.RANGE

    def plan(self, known):
        """Say which layers come: what is told of one that is known is its name alone."""
        told = self.short if self.short and known else self.told
        if not isinstance(told, list | tuple):
            return []  # it is told once
        told = [*told, Record("n")]
        return [
            Step(name, "r" if name in known and getattr(after, "kind", "") == "n" else "w")
            for one, after in pairwise(told)
            if getattr(one, "kind", "") == "n" and (name := one.link.decode())
        ]

    def feed(self, to):
        """Tell it."""
        self.fed += 1
        self.known = to.known
        with os.fdopen(os.dup(to.out), "wb") as out:
            self.write(out)
        return {}

    def write(self, out):
        """Write all records and the last one."""
        for one in self.short if self.short and self.known else self.told:
            record = one.record if isinstance(one, File) else one
            if self.mtime is not None:
                record = attrs.evolve(record, mtime_ns=self.mtime * 10**9)
            write_record(out, record)
            if isinstance(one, File):
                self._content(out, one)
        write_record(out, Record("e"))

    @staticmethod
    def _content(out, one):
        if one.holes:
            at = len(one.data) - len(one.data.lstrip(b"\0"))
            write_chunk(out, at, one.data[at:])
        elif one.data:
            write_chunk(out, 0, one.data)
        write_end_of_content(out, len(one.data))


def take(store, *told, **options):
    return intake.import_base(store, options.pop("name", "b"), Told(told, **options))


def paths(store, base):
    top = f"{store.path}/bases/{base.id}/tree"
    return sorted(os.path.relpath(os.path.join(at, name), top) for at, d, f in os.walk(top) for name in d + f)
