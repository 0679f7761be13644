"""Reading tar archives that nobody vouches for: what runs in the jail, `layerrun.native.jail`.

C reads the archive and writes records, csrc/tar.h; what is compressed comes through a thread. See `plain` as well.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from layerrun.errors import ArchiveError
from layerrun.images.decompress import Pump, beginning, reader_of
from layerrun.images.kinds import MAGIC, kind_of
from layerrun.images.limits import Limits
from layerrun.images.plain import Parser
from layerrun.images.stream import Record, write_record

__all__ = ["begin_here", "read_here", "unpack_here"]


def read_here(*given: Any) -> dict[str, Any]:
    """Write the records of archives to the first descriptor given; the others are of archives.

    Behind them: the parts (`layerrun.images.tar.Part`), the limits, whether they are layers, whether to make digests.
    Returns what was found, as `layerrun.images.tar.Found` has it.
    """
    out: int = given[0]
    parts, values, layer, hashed = given[-4:]
    limits = Limits(**values)
    pumps = _start_worker()
    parser = Parser(values, layer=layer)
    digests = [_read(part, out, parser, limits, pumps, hashed=hashed) for part in parts]
    return {**parser.found(), "digests": digests}


def _start_worker() -> SimpleQueue[Pump]:
    """Start the thread that decompresses, the last one that there will be: nothing hostile has been looked at yet."""
    pumps: SimpleQueue[Pump] = SimpleQueue()

    def work() -> None:
        while True:
            pumps.get().run()

    threading.Thread(target=work, daemon=True).start()
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    return pumps


def _read(
    part: Sequence[Any],
    out: int,
    parser: Parser,
    limits: Limits,
    pumps: SimpleQueue[Pump],
    *,
    hashed: bool,
) -> str | None:
    fd, name, offset, length, ahead = part
    if name is not None:
        with os.fdopen(os.dup(out), "wb") as file:
            write_record(file, Record(kind="n", link=os.fsencode(name)))
    if not hashed and offset is None and ahead is None and _is_plain(fd):
        parser.parse(fd, out)
        return None
    reader, writer = os.pipe()
    pump = Pump(reader_of(fd, offset, length, ahead), writer, limits, hashed=hashed)
    pumps.put(pump)
    try:
        parser.parse(reader, out)
    except ArchiveError:
        # It may be that it ends there because of an error. A pump that goes on may wait for its input for ever.
        if pump.error is not None:
            raise pump.error from None
        raise
    finally:
        os.close(reader)
    pump.wait()
    if pump.error is not None:
        raise pump.error
    return pump.digest


def _is_plain(fd: int) -> bool:
    """Say whether it is a file that is not compressed, so that C can read it itself."""
    try:
        at = os.lseek(fd, 0, os.SEEK_CUR)
        return not kind_of(os.pread(fd, MAGIC, at))
    except OSError as error:
        if error.errno != errno.ESPIPE:
            raise
        return False


def begin_here(*given: Any) -> str:
    """Return, in hexadecimal, what a file begins with, decompressed; see `layerrun.images.whole.first_bytes`."""
    fd, length, size = given[-3:]
    return beginning(reader_of(fd, 0, length), size).hex()


def unpack_here(*given: Any) -> None:
    """Decompress all of what comes into a file; see `layerrun.images.whole.unpack_whole`."""
    out, fd, ahead, values, most = given[-5:]
    offset = None if ahead is not None or not stat.S_ISREG(os.fstat(fd).st_mode) else 0
    length = None if offset is None else os.fstat(fd).st_size
    pump = Pump(reader_of(fd, offset, length, ahead), out, Limits(**values), hashed=False, most=most)
    pump.run()
    if pump.error is not None:
        raise pump.error
