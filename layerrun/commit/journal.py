"""The journal of a commit: what is to be done, written down before the first step. docs/store.md has the format."""

from __future__ import annotations

import json
import os
from typing import Any

import attrs

from layerrun.commit.ops import Kind, Op
from layerrun.errors import DamagedError
from layerrun.layers.delta import Stat
from layerrun.native.settle import Mark
from layerrun.store.fs import DIR_FLAGS

__all__ = [
    "Journal",
    "Meta",
    "Parent",
    "Step",
    "open_folder",
    "put",
    "read",
    "read_json",
    "write",
    "write_json",
]

VERSION = 1


@attrs.frozen
class Meta:
    """What an entry is apart from its content. ``xattrs`` ``None``: they stay as they are."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: dict[str, bytes] | None = None


@attrs.frozen
class Parent:
    """A folder of the host whose entries change: its inode and times before."""

    path: bytes
    ino: int
    mtime_ns: int
    ctime_ns: int


@attrs.frozen
class Step:
    """A step with all that is needed to do it, to see whether it was done, and to take it back.

    Attributes:
        number: its place in the journal, and the name of its slot.
        place: which of the journal's places has its slot.
        start: where what it takes is before it: ``upper``, ``slot``, ``link`` (made when its time has come), or
            ``""`` if it takes nothing.
        ino: the inode number of what it takes; 0: of nothing. old_ino: of what is there before.
        marks: what is taken off before it is shown, and put on again if the step is taken back.
        before, after: for `Kind.META` and `Kind.WRITE`.
    """

    number: int
    op: Op
    place: int = 0
    start: str = ""
    ino: int = 0
    old_ino: int = 0
    marks: tuple[Mark, ...] = ()
    before: Meta | None = None
    after: Meta | None = None

    @property
    def slot(self) -> bytes:
        """The name of its slot."""
        return b"%d" % self.number

    @property
    def moves(self) -> bool:
        """Whether entries are moved, so that their inode numbers tell whether it was done."""
        return self.op.kind not in (Kind.META, Kind.WRITE)


@attrs.frozen
class Journal:
    """All of a commit. ``places`` are absolute paths of the folders that hold slots; the first is the store's own.

    ``drop``: the app's layer goes once all is done. ``sources``: folders of the layer with their times of modification.
    """

    id: str
    app: str
    userxattr: bool
    drop: bool
    places: tuple[bytes, ...]
    parents: tuple[Parent, ...]
    sources: tuple[tuple[bytes, int], ...]
    steps: tuple[Step, ...]


def _text(data: bytes) -> str:
    """Return bytes as text of the same length, for JSON."""
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _pack_meta(meta: Meta | None) -> list[Any] | None:
    if meta is None:
        return None
    xattrs = None if meta.xattrs is None else {key: _text(value) for key, value in meta.xattrs.items()}
    return [meta.mode, meta.uid, meta.gid, meta.mtime_ns, xattrs]


def _unpack_meta(data: list[Any] | None) -> Meta | None:
    if data is None:
        return None
    mode, uid, gid, mtime, xattrs = data
    found = None if xattrs is None else {key: _bytes(value) for key, value in xattrs.items()}
    return Meta(mode, uid, gid, mtime, found)


def _pack(step: Step) -> dict[str, Any]:
    op = step.op
    data: dict[str, Any] = {"n": step.number, "kind": op.kind.value, "path": _text(op.path)}
    if op.source is not None and op.source != op.path:
        data["source"] = _text(op.source)
    elif op.source is None:
        data["source"] = None
    optional = (
        ("place", step.place, 0),
        ("start", step.start, ""),
        ("ino", step.ino, 0),
        ("old_ino", step.old_ino, 0),
        ("layer", op.layer, 0),
        ("prepared", op.prepared, None),
        ("new", op.new, None),
        ("old", op.old, None),
        ("times", op.times_only, False),
        ("letter", op.letter, ""),
        ("before", _pack_meta(step.before), None),
        ("after", _pack_meta(step.after), None),
    )
    data.update((key, value) for key, value, usual in optional if value != usual)
    if op.link_to is not None:
        data["link"] = _text(op.link_to)
    if op.drop:
        data["drop"] = sorted(op.drop)
    if step.marks:
        data["marks"] = [[m.kind, _text(m.path), m.key, _text(m.value)] for m in step.marks]
    return data


def _unpack(data: dict[str, Any]) -> Step:
    path = _bytes(data["path"])
    source = data.get("source", path)
    op = Op(
        kind=Kind(data["kind"]),
        path=path,
        source=_bytes(source) if isinstance(source, str) else source,
        prepared=data.get("prepared"),
        layer=data.get("layer", 0),
        new=Stat(*data["new"]) if "new" in data else None,
        old=Stat(*data["old"]) if "old" in data else None,
        link_to=_bytes(data["link"]) if "link" in data else None,
        drop=frozenset(data.get("drop", ())),
        times_only=data.get("times", False),
        letter=data.get("letter", ""),
    )
    marks = tuple(
        Mark(kind, _bytes(at), key, _bytes(value)) for kind, at, key, value in data.get("marks", ())
    )
    return Step(
        number=data["n"],
        op=op,
        place=data.get("place", 0),
        start=data.get("start", ""),
        ino=data.get("ino", 0),
        old_ino=data.get("old_ino", 0),
        marks=marks,
        before=_unpack_meta(data.get("before")),
        after=_unpack_meta(data.get("after")),
    )


def put(dir_fd: int, name: str, data: bytes) -> None:
    """Make a file durable and whole: new, synced, renamed into its place."""
    temporary = f".{name}"
    fd = os.open(
        temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=dir_fd
    )
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    os.fsync(dir_fd)


def write(dir_fd: int, journal: Journal) -> None:
    """Write the journal into the commit's folder, durably and at once."""
    encode = json.JSONEncoder(separators=(",", ":")).encode
    head = {
        "version": VERSION,
        "id": journal.id,
        "app": journal.app,
        "userxattr": journal.userxattr,
        "drop": journal.drop,
        "places": [_text(place) for place in journal.places],
        "parents": [[_text(p.path), p.ino, p.mtime_ns, p.ctime_ns] for p in journal.parents],
        "sources": [[_text(path), mtime] for path, mtime in journal.sources],
        "steps": len(journal.steps),
    }
    lines = [encode(head), *(encode(_pack(step)) for step in journal.steps), ""]
    put(dir_fd, "journal", "\n".join(lines).encode("ascii"))


def read(dir_fd: int, id_: str) -> Journal | None:
    """Return the journal in a commit's folder, ``None`` if there is none yet. Raises `DamagedError`."""
    try:
        fd = os.open("journal", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    try:
        with os.fdopen(fd, "rb") as file:
            head = json.loads(file.readline())
            if head["version"] != VERSION:
                raise DamagedError(
                    f"the journal of commit {id_} has version {head['version']}, and this layerrun knows {VERSION}",
                    hint="a newer layerrun made it: use that one",
                )
            steps = tuple(_unpack(json.loads(line)) for line in file)
            if len(steps) != head["steps"]:
                raise ValueError("steps are missing")
            return Journal(
                id=head["id"],
                app=head["app"],
                userxattr=head["userxattr"],
                drop=head["drop"],
                places=tuple(_bytes(place) for place in head["places"]),
                parents=tuple(Parent(_bytes(path), *rest) for path, *rest in head["parents"]),
                sources=tuple((_bytes(path), mtime) for path, mtime in head["sources"]),
                steps=steps,
            )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"the journal of commit {id_} is damaged: {error}") from error


def write_json(dir_fd: int, name: str, data: Any) -> None:
    """Write a small file of a commit's folder, durably and at once."""
    put(dir_fd, name, json.dumps(data, separators=(",", ":")).encode("ascii"))


def read_json(dir_fd: int, name: str) -> Any:
    """Return what `write_json` wrote, or ``None`` if it is not there. Raises `DamagedError`."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    with os.fdopen(fd, "rb") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise DamagedError(f"{name!r} of a commit is damaged: {error}") from error


def open_folder(store_fd: int, id_: str) -> int:
    """Open the folder of a commit; the caller closes it. Raises `DamagedError`."""
    try:
        return os.open(f"commits/{id_}", DIR_FLAGS, dir_fd=store_fd)
    except OSError as error:
        raise DamagedError(
            f"the files of commit {id_} are missing: {error.strerror}", hint="`layerrun gc` forgets it"
        ) from None
