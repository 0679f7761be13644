"""Archives that are compressed as a whole: what they begin with, and all of them in a file. A jail reads them."""

from __future__ import annotations

import attrs

from layerrun.images.limits import Limits
from layerrun.native.jail import run_jailed

__all__ = ["Ids", "first_bytes", "unpack_whole"]

_RLIMITS = {"RLIMIT_AS": 2 << 30, "RLIMIT_CPU": 4 * 3600, "RLIMIT_NOFILE": 64}
_MAP = tuple[tuple[int, int, int], ...]


@attrs.frozen
class Ids:
    """By whose ids a jail works: see `layerrun.images.stream.Feed`."""

    uid_map: _MAP
    gid_map: _MAP
    mapped: bool


def first_bytes(fd: int, length: int, size: int, ids: Ids) -> bytes:
    """Return what the first ``length`` bytes of a file make, ``size`` bytes at most; less where they are damaged."""
    answer = _run("begin_here", fd, length, size, fds=(fd,), ids=ids, size=0)
    return bytes.fromhex(answer) if isinstance(answer, str) else b""


def unpack_whole(given: tuple[int, int | None], out: int, limits: Limits, most: int, ids: Ids) -> None:
    """Write to the file ``out`` what is given, unpacked, ``most`` bytes at most.

    ``given``: a descriptor, and another with what was read of it before, or ``None``.

    Raises `ArchiveError` for what is damaged or grows too much, `SystemError` where it cannot be written.
    """
    fd, ahead = given
    fds = (out, fd) if ahead is None else (out, fd, ahead)
    _run("unpack_here", out, fd, ahead, attrs.asdict(limits), most, fds=fds, ids=ids, size=most)


def _run(function: str, *args: object, fds: tuple[int, ...], ids: Ids, size: int) -> object:
    answer: object = run_jailed(
        f"layerrun.images.jailed:{function}",
        *args,
        folder=None,
        pass_fds=fds,
        uid_map=ids.uid_map,
        gid_map=ids.gid_map,
        mapped=ids.mapped,
        limits={**_RLIMITS, "RLIMIT_FSIZE": size},
    )
    return answer
