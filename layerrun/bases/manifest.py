"""The canonical listing of a tree, whose SHA-256 is the tree's digest (docs/store.md has the format)."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator

import attrs

from layerrun.native import trees
from layerrun.store.fs import explain

__all__ = [
    "HEADER",
    "LETTERS",
    "Summary",
    "contents",
    "digest_of",
    "escape",
    "line",
    "unescape",
    "write_lines",
    "write_manifest",
]

HEADER = b"layerrun-manifest 1\n"
Progress = Callable[[int, int], None]

_CHUNK = 1 << 20
LETTERS = {
    stat.S_IFREG: b"f",
    stat.S_IFDIR: b"d",
    stat.S_IFLNK: b"l",
    stat.S_IFIFO: b"p",
    stat.S_IFCHR: b"c",
    stat.S_IFBLK: b"b",
    stat.S_IFSOCK: b"s",  # never in a tree that was imported
}
_UNSAFE = re.compile(rb"[^!-<>-\[\]-~]")
# SELinux labels belong to the machine's policy, not to the tree. overlayfs's marks are never in a tree that was
# imported, and the kernel would believe them: one that is there all the same is an alteration like any other.
_IGNORED = re.compile(rb"security\.selinux$")


@attrs.frozen
class Summary:
    """What a manifest covers: its digest, the number of entries (the root too), the bytes of file content."""

    digest: str
    entries: int
    size: int


def escape(data: bytes) -> bytes:
    r"""Write bytes as printable ASCII without blanks, ``\`` and ``=``: the others become ``\xHH``."""
    return _UNSAFE.sub(lambda found: b"\\x%02x" % found[0][0], data)


def unescape(data: bytes) -> bytes:
    """Undo `escape`."""
    return re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes([int(found[1], 16)]), data)


def contents(root_fd: int, progress: Progress | None = None) -> Iterator[tuple[trees.Entry, bytes, int]]:
    """Yield each entry of a tree with its fifth field and the bytes of content that were read for it.

    The root comes first, as ``.``, then each folder before what is in it, names bytewise sorted. Every
    regular file is read; of hard links only the first.
    """
    yield _root(root_fd), b"-", 0
    linked: dict[tuple[int, int], bytes] = {}
    buffer = memoryview(bytearray(_CHUNK))
    total = 0
    for count, entry in enumerate(trees.list_tree(root_fd), 2):
        kind = stat.S_IFMT(entry.mode)
        size = 0
        if kind == stat.S_IFREG:
            key = entry.dev, entry.ino
            value = linked.get(key)
            if value is None:
                value, size = _content(root_fd, entry.path, buffer)
                total += size
                if entry.nlink > 1:
                    linked[key] = value
        elif kind == stat.S_IFLNK:
            value = escape(entry.link_target)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            value = b"%d:%d" % (os.major(entry.rdev), os.minor(entry.rdev))
        else:
            value = b"-"
        yield entry, value, size
        if progress is not None and count % 256 == 0:
            progress(count, total)


def line(letter: bytes, entry: trees.Entry, value: bytes) -> bytes:
    """Return the line of an entry, of which ``letter`` says what it is; ``value`` as in `contents`."""
    owner = b"%d %d" % (entry.uid, entry.gid)
    fields = [letter, b"%04o" % stat.S_IMODE(entry.mode), owner, value, escape(entry.path)]
    fields += [escape(k) + b"=" + escape(v) for k, v in sorted(entry.xattrs.items()) if not _IGNORED.match(k)]
    return b" ".join(fields) + b"\n"


def write_manifest(root_fd: int, dir_fd: int, name: str, progress: Progress | None = None) -> Summary:
    """Write the manifest of the tree ``root_fd`` to a new file; the caller sees to its durability."""
    found = contents(root_fd, progress)
    lines = ((line(LETTERS[stat.S_IFMT(entry.mode)], entry, value), size) for entry, value, size in found)
    with explain("write the manifest"):
        return write_lines(dir_fd, name, lines)


def write_lines(dir_fd: int, name: str, lines: Iterable[tuple[bytes, int]]) -> Summary:
    """Write lines, each with the bytes of content it stands for, to a new file."""
    digest = hashlib.sha256(HEADER)
    entries = size = 0
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=dir_fd), "wb") as file:
        file.write(HEADER)
        for text, content in lines:
            file.write(text)
            digest.update(text)
            entries += 1
            size += content
    return Summary(f"sha256:{digest.hexdigest()}", entries, size)


def digest_of(dir_fd: int, name: str) -> str:
    """Return the digest that a manifest file has."""
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd), "rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _root(root_fd: int) -> trees.Entry:
    status = os.fstat(root_fd)
    try:
        keys = os.listxattr(root_fd)
    except OSError as error:
        if error.errno != errno.ENOTSUP:  # squashfs, of a kernel that knows no attributes in it
            raise
        keys = []
    return trees.Entry(
        path=b".",
        type="dir",
        mode=status.st_mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=0,
        mtime_ns=status.st_mtime_ns,
        rdev=0,
        ino=status.st_ino,
        dev=status.st_dev,
        nlink=status.st_nlink,
        link_target=b"",
        xattrs={os.fsencode(key): os.getxattr(root_fd, key) for key in keys},
    )


def _content(root_fd: int, path: bytes, buffer: memoryview) -> tuple[bytes, int]:
    """Return the SHA-256 of a regular file in hexadecimal, and its size."""
    digest = hashlib.sha256()
    size = 0
    fd = trees.open_beneath(root_fd, path, os.O_RDONLY)
    try:
        with explain("read", os.fsdecode(path)):
            while count := os.readv(fd, [buffer]):
                digest.update(buffer[:count])
                size += count
    finally:
        os.close(fd)
    return digest.hexdigest().encode("ascii"), size
