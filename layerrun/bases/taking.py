"""One intake: a source that writes a stream, what takes it in, and who waits for both. See `layerrun.bases.intake`."""

from __future__ import annotations

import errno
import fcntl
import os
import select
import struct
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs

from layerrun.bases.manifest import Progress
from layerrun.errors import ArchiveError, LayerrunError, SystemError
from layerrun.images.stream import Feed, Source

if TYPE_CHECKING:
    from layerrun.native.intake import Taken

__all__ = ["GoneError", "Maps", "Run"]

_PIPE = 1 << 20
# Seconds within which an interrupt is heard at the latest.
_HEARD = 0.2
_PAIR = struct.Struct("=QQ")
Maps = tuple[tuple[tuple[int, int, int], ...], tuple[tuple[int, int, int], ...]]


class GoneError(ArchiveError):
    """An object that the source counted on is gone."""


class Run:
    """One intake: its pipes and its threads."""

    def __init__(self, source: Source, given: Mapping[str, Any], maps: Maps, *, rootless: bool) -> None:
        self._source, self._given, self._maps, self._rootless = source, given, maps, rootless
        self._archive: int = getattr(source, "archive", -1)
        self._origin: Mapping[str, Any] = {}
        self._failed: BaseException | None = None  # the source
        self._taken: Taken | None = None
        self._broke: BaseException | None = None  # what takes in

    def run(self, feed: Feed, progress: Progress | None) -> tuple[Taken, Mapping[str, Any]]:
        """Run it; return what came of it and what the source says of itself, or raise what went wrong first."""
        stream, out = os.pipe()
        cancel, cancelling = os.pipe()
        ahead, progressing = os.pipe()
        with suppress(OSError):  # more than a plain user may have
            fcntl.fcntl(out, fcntl.F_SETPIPE_SZ, _PIPE)
        os.set_blocking(stream, False)
        os.set_blocking(progressing, False)
        given = attrs.evolve(feed, out=out, direct=self._archive >= 0)
        threads = [
            threading.Thread(target=self._feed, args=(given,), daemon=True),
            threading.Thread(target=self._take, args=(stream, cancel, progressing), daemon=True),
        ]
        try:
            for thread in threads:
                thread.start()
            while data := _read(ahead):
                if progress is not None and len(data) >= _PAIR.size:
                    progress(*_PAIR.unpack(data[-_PAIR.size :]))
            for thread in reversed(threads):
                thread.join()
        except BaseException:
            # Interrupted: nothing may be written any more to what is about to be removed.
            os.write(cancelling, b"x")
            if threads[1].ident is not None:
                threads[1].join(10.0)
            raise
        finally:
            os.close(cancelling)
            os.close(ahead)
            os.close(cancel)
        return self._outcome(), self._origin

    def _feed(self, feed: Feed) -> None:
        try:
            self._origin = self._source.feed(feed)
        except BaseException as error:  # noqa: BLE001  (it is raised in the caller's thread)
            self._failed = error
        finally:
            os.close(feed.out)

    def _take(self, stream: int, cancel: int, progress: int) -> None:
        values = {
            **self._given,
            "stream": stream,
            "cancel": cancel,
            "progress": progress,
            "archive": self._archive,
        }
        try:
            if self._rootless:
                from layerrun.native.intake import Taken
                from layerrun.native.worker import run_in_userns

                fds = [value for name, value in values.items() if name in _FDS and value >= 0]
                answer = run_in_userns(
                    f"{__name__}:take_here",
                    values,
                    uid_map=self._maps[0],
                    gid_map=self._maps[1],
                    pass_fds=fds,
                )
                error = answer.pop("error")
                self._taken = Taken(**answer, error=tuple(error) if error else None)
            else:
                from layerrun.native.intake import Options, take

                self._taken = take(Options(**values))
        except BaseException as error:  # noqa: BLE001
            self._broke = error
        finally:
            os.close(stream)  # the source gets EPIPE
            os.close(progress)

    def _outcome(self) -> Taken:
        """Return what came of it, or raise the error that came first."""
        failed, taken = self._failed, self._taken
        # A source whose stream was taken in to its end has no reason to complain of that.
        broken = taken is None or taken.error is not None
        if broken and isinstance(failed, OSError) and failed.errno == errno.EPIPE:
            failed = None
        if taken is None:
            raise self._broke if self._broke is not None else failed or RuntimeError("nothing came of it")
        cut = taken.error is not None and taken.error[:2] == (errno.EBADMSG, _CUT)
        if failed is not None and (taken.error is None or cut):
            raise failed
        if taken.error is not None:
            raise _error(self._source.text, *taken.error)
        return taken


def _read(ahead: int) -> bytes:
    """Read what is told of progress; a signal that comes just before a read(2) would be heard only after it."""
    while not select.select([ahead], [], [], _HEARD)[0]:
        pass
    return os.read(ahead, _PAIR.size * 64)


# What lr_intake says when the stream ends before its end.
_CUT = "ends too soon"
_FDS = {
    "stream",
    "cancel",
    "progress",
    "tree",
    "objects",
    "fresh",
    "records",
    "layers",
    "manifest",
    "links",
    "archive",
}


def take_here(values: dict[str, Any]) -> dict[str, Any]:
    """Take a stream in, as the worker calls it."""
    from layerrun.native.intake import Options, take

    return attrs.asdict(take(Options(**values)))


def _error(text: str, code: int, step: str, path: str) -> LayerrunError:
    """Return the error of `take` as an exception."""
    shown = ascii(path)[1:-1] if not path.isprintable() else path
    if code == errno.EBADMSG:
        about = f"the archive's entry {shown!r}" if path else "the archive"
        return ArchiveError(f"{about} {step}", hint="nothing of it was kept")
    if code == errno.ENODATA:
        return GoneError(f"an object for {shown!r} is gone", hint="try again")
    return SystemError(
        f"cannot {step}{f' {shown}' if path else ''}: {os.strerror(code)}",
        errno=code,
        path=path or None,
        hint="free some space, or put the store elsewhere with LAYERRUN_STORE"
        if code in (errno.ENOSPC, errno.EDQUOT)
        else None,
    )
