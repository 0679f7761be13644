"""What archives may come to."""

from __future__ import annotations

import attrs

__all__ = ["Limits"]


@attrs.frozen
class Limits:
    """What an archive, or all archives of an image together, may come to.

    ``size`` bytes of content, holes counted; ``ratio`` times what came in, beyond ``free`` bytes; ``entries``;
    ``depth`` of folders; ``header`` bytes of headers for one entry; owners below ``ids``.
    """

    size: int = 64 << 30
    ratio: int = 200
    free: int = 1 << 30
    entries: int = 2_000_000
    depth: int = 128
    header: int = 1 << 20
    ids: int = 65536
