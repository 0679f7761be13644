"""What is wished of a pull."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from layerrun.images.transport import Access

if TYPE_CHECKING:
    from layerrun.bases.manifest import Progress
    from layerrun.images.platform import Platform
    from layerrun.images.pulling import Fetching

__all__ = ["Wish"]


@attrs.frozen
class Wish:
    """What is wished of a pull.

    ``base_name``: what the base is called if it is made, instead of what the image says; of layers alone the base to
    put them over, whatever they were made for. ``grants``: give the app what it asks for of this machine as well.
    ``progress`` and ``fetching``: see `import_base` and `open_pulled`.
    """

    access: Access = attrs.field(factory=Access)
    platform: Platform | None = None
    base_name: str | None = None
    grants: bool = False
    progress: Progress | None = None
    fetching: Fetching | None = None
