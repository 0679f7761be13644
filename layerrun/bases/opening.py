"""What bases are made from, told by what it is: a folder, an archive, an image in files, an image of a file system."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import attrs

from layerrun.bases.folder import FolderSource
from layerrun.bases.spooling import BLOCK, HEAD, Input, look
from layerrun.errors import UsageError
from layerrun.store.fs import explain

if TYPE_CHECKING:
    from layerrun.bases.manifest import Progress
    from layerrun.images.image import Image
    from layerrun.images.limits import Limits
    from layerrun.images.platform import Platform
    from layerrun.images.stream import Source
    from layerrun.images.transport import Access
    from layerrun.store.store import Store

__all__ = ["FileSystem", "Wanted", "open_source", "path_of", "wanted"]

# Bytes that an archive and a folder may come to: nobody reads for ever what an 8 EiB sparse file seems to hold.
_SIZE, _FOLDER, _ENTRIES = 64 << 30, 1 << 44, 2_000_000
_SQUASHFS, _EROFS, _EROFS_AT = b"hsqs", b"\xe2\xe1\xf5\xe0", 1024
# What the first entries of an archive that holds an image are called: by umoci, skopeo, podman, docker, tar.
_IMAGE_NAMES = re.compile(
    rb"(?:\./)?(?:blobs(?:/.*)?|oci-layout|index\.json|manifest\.json|repositories|[0-9a-f]{64}(?:/.*|\.tar|\.json)?)"
)
_PREFIX = re.compile(r"(oci|oci-archive|docker-archive):(?!//)(.+)", re.DOTALL)
_DIGEST = re.compile(r"(.+)@(sha256:[0-9a-f]{64})", re.DOTALL)


@attrs.frozen
class Wanted:
    """What is wanted: ``platform`` of an image; ``limits`` of an archive; ``unpack`` what could be mounted.

    ``access`` is how to reach registries; ``progress`` is told of what is read before there is a source.
    """

    platform: Platform | None = None
    limits: Limits | None = None
    unpack: bool = False
    access: Access | None = None
    progress: Progress | None = None

    def most(self, source: Source) -> tuple[int, int]:
        """Return the bytes of files and the entries that a tree may come to."""
        if isinstance(source, FolderSource):
            return _FOLDER, _ENTRIES
        return (_SIZE, _ENTRIES) if self.limits is None else (self.limits.size, self.limits.entries)


def wanted(platform: str | None = None, max_size: str | None = None) -> Wanted:
    """Make a `Wanted` of what people type, or raise `UsageError`."""
    from layerrun.images.limits import Limits
    from layerrun.images.platform import parse_platform
    from layerrun.policy import parse_size

    return Wanted(
        platform=None if platform is None else parse_platform(platform),
        limits=None if max_size is None else Limits(size=parse_size(max_size)),
    )


@attrs.frozen
class FileSystem:
    """An image of a file system that is kept as it is: see `layerrun.bases.image`. ``fd`` is of the file."""

    fd: int
    text: str
    kind: str


@contextmanager
def open_source(store: Store, text: str, options: Wanted | None = None) -> Iterator[Source | FileSystem]:
    """Open what a base is to be made from, by its path; ``-`` is standard input, a pipe or a file.

    An image in a pipe, or compressed as a whole, is first written to a file of the store without a name: its parts are
    read where they lie. ``PATH:NAME`` and ``PATH@sha256:…`` are of the images that are at a path. ``oci:``,
    ``oci-archive:`` and ``docker-archive:`` before it say what it is, as skopeo's do; ``oci://`` names an image of a
    registry. Raises `UsageError` for what is not there or is no source, `NotFoundError` where there is no such image,
    `ArchiveError`.
    """
    chosen = options or Wanted()
    with ExitStack() as stack:
        if text.startswith("oci://"):
            from layerrun.bases.pulled import open_pulled

            yield stack.enter_context(
                open_pulled(store, text, access=chosen.access, platform=chosen.platform, limits=chosen.limits)
            )
            return
        place = _split(text)
        if place.path == "-":
            fd = os.dup(0)  # the helper's standard input is another
            stack.callback(os.close, fd)
            yield _file(store, stack, fd, place, chosen)
            return
        if os.path.isdir(place.path):
            yield _folder(store, stack, place, chosen)
            return
        if not os.path.lexists(place.path):
            raise UsageError(f"there is no file or folder {text!r}")
        with explain("open", place.path):
            # A pipe with a name, such as <(…) of shells, is waited for; nothing else.
            waiting = 0 if stat.S_ISFIFO(os.stat(place.path).st_mode) else os.O_NONBLOCK
            fd = os.open(place.path, os.O_RDONLY | os.O_CLOEXEC | waiting)
        stack.callback(os.close, fd)
        yield _file(store, stack, fd, place, chosen)


@attrs.frozen
class _Place:
    """The kind that is said or ``""``, the path, and which image there is meant or ``""``."""

    kind: str
    path: str
    name: str = ""


def path_of(text: str) -> str:
    """Return the path in what people name a source by, without what of it is meant."""
    return _split(text).path


def _split(text: str) -> _Place:
    if text == "-":
        return _Place("", text)
    found = _PREFIX.fullmatch(text)
    # A file may well be called so.
    kind, path = (found[1], found[2]) if found and not os.path.lexists(text) else ("", text)
    if not os.path.lexists(path):
        if digest := _DIGEST.fullmatch(path):
            return _Place(kind, digest[1], digest[2])
        if path == "-" or path.startswith("-:"):
            return _Place(kind, "-", path[2:])
        # The name of an image may hold a colon itself.
        for place in (at for at, letter in enumerate(path) if letter == ":"):
            if os.path.lexists(path[:place]):
                return _Place(kind, path[:place], path[place + 1 :])
        if kind and os.path.lexists(kind):
            return _Place("", kind, path)  # a layout in a folder that is called oci, and an image in it
    return _Place(kind, path)


def _folder(store: Store, stack: ExitStack, place: _Place, options: Wanted) -> Source:
    from layerrun.bases.tree import open_folder

    kind, path, name = place.kind, place.path, place.name
    if kind in ("oci-archive", "docker-archive"):
        raise UsageError(f"{path!r} is a folder, and no archive")
    if kind or os.path.isfile(f"{path}/oci-layout"):
        from layerrun.images.local import open_layout

        return _image(open_layout(os.path.realpath(path), name, options.platform), options)
    if name:
        raise UsageError(f"{path!r} is no OCI image layout, so there is no {name!r} in it")
    fd = open_folder(store, path)
    stack.callback(os.close, fd)
    return FolderSource(fd, os.path.realpath(path))


def _file(store: Store, stack: ExitStack, fd: int, place: _Place, options: Wanted) -> Source | FileSystem:
    kind, path, name = place.kind, place.path, place.name
    real = path if path == "-" else os.path.realpath(path)
    if not os.path.lexists(real):
        real = "-"  # a pipe that a shell names by a descriptor: of <(…) nothing is there afterwards
    given = look(stack, fd)
    if kind == "oci":
        raise UsageError(f"{path!r} is no folder", hint=f"oci-archive:{path} is a layout in a tar")
    if kind or _is_image(given.head) or (given.packed and _is_image(_unpacked(store, given))):
        from layerrun.images.local import open_archive

        # So that what is said of it, with a name behind it, can be typed.
        text = "docker-archive:-" if real == "-" else real
        archive = _as_file(store, stack, given, options)
        return _image(open_archive(archive, text, name, options.platform), options)
    if name:
        raise UsageError(f"{path!r} holds no image, so there is no {name!r} in it")
    if (system := _file_system(given.head)) is not None:
        image = _as_file(store, stack, given, options)
        if store.rootless or options.unpack:
            from layerrun.images.limits import Limits
            from layerrun.images.unpacking import UnpackedSource

            return UnpackedSource(image, real, system, options.limits or Limits())
        return FileSystem(image, real, system)
    return _tar(given, real, options)


def _unpacked(store: Store, given: Input) -> bytes:
    """Return what a compressed archive begins with."""
    from layerrun.bases.spooling import ids_of
    from layerrun.images.whole import first_bytes

    fd = given.fd if given.ahead is None else given.ahead
    return first_bytes(fd, os.fstat(fd).st_size, HEAD, ids_of(store))


def _as_file(store: Store, stack: ExitStack, given: Input, options: Wanted) -> int:
    """Return a descriptor of a file that holds what was given, unpacked; it may be read at many places at once."""
    if given.ahead is None and not given.packed:
        return given.fd
    from layerrun.bases.spooling import spool
    from layerrun.images.limits import Limits

    return spool(store, stack, given, options.limits or Limits(), options.progress)


def _file_system(head: bytes) -> str | None:
    if head.startswith(_SQUASHFS):
        return "squashfs"
    return "erofs" if head[_EROFS_AT:].startswith(_EROFS) else None


def _is_image(head: bytes) -> bool:
    """Say whether a tar begins as those do that hold an image; `.` may come first."""
    names = [head[at : at + 100].rstrip(b"\0").rstrip(b"/") for at in (0, BLOCK)]
    if head[257:262] != b"ustar":
        return False
    return bool(_IMAGE_NAMES.fullmatch(names[1] if names[0] in (b".", b"") else names[0]))


def _image(image: Image, options: Wanted) -> Source:
    from layerrun.images.limits import Limits
    from layerrun.images.source import ImageSource

    return ImageSource(image, image.reference, options.limits or Limits())


def _tar(given: Input, text: str, options: Wanted) -> Source:
    from layerrun.images.limits import Limits
    from layerrun.images.tar import TarSource

    return TarSource(given.fd, text, options.limits or Limits(), given.ahead)
