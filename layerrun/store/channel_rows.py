"""The catalog's rows of channels: which bases follow one, and how far they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from layerrun.errors import DamagedError
from layerrun.store.rows import Rows

__all__ = ["Channel", "ChannelRows"]


@attrs.frozen
class Channel:
    """What a base follows: ``slot`` is its name, ``url`` the address of the repository.

    ``checked`` is when it was last asked with success, ``""`` if never. ``state`` is JSON data, docs/channels.md.
    """

    slot: str
    url: str
    checked: str = ""
    state: Mapping[str, Any] = attrs.field(factory=dict, hash=False)


class ChannelRows(Rows):
    """What `layerrun.store.catalog.Catalog` has of channels; within it alone."""

    def channels(self) -> list[Channel]:
        """Return the channels that bases follow, by the bases' names."""
        rows = self._rows("SELECT slot, url, checked, state FROM channels ORDER BY slot")
        return [self._channel(row) for row in rows]

    def channel(self, slot: str) -> Channel | None:
        """Return the channel that a base follows."""
        rows = self._rows("SELECT slot, url, checked, state FROM channels WHERE slot = ?", slot)
        return self._channel(rows[0]) if rows else None

    def put_channel(self, channel: Channel) -> None:
        """Record a channel, in the place of what the base followed before; within a transaction."""
        self._db.execute(
            "INSERT OR REPLACE INTO channels (slot, url, checked, state) VALUES (?, ?, ?, ?)",
            (channel.slot, channel.url, channel.checked, json.dumps(dict(channel.state))),
        )

    def delete_channel(self, slot: str) -> None:
        """Forget what a base follows; within a transaction."""
        self._db.execute("DELETE FROM channels WHERE slot = ?", (slot,))

    def set_origin(self, base_id: str, source: str, origin: Mapping[str, Any]) -> None:
        """Say where a version of a base comes from, better than the file it was imported from; in a transaction."""
        self._db.execute(
            "UPDATE bases SET source = ?, origin = ? WHERE id = ?",
            (source, json.dumps(dict(origin)), base_id),
        )

    def _channel(self, row: tuple[Any, ...]) -> Channel:
        slot, url, checked, state = row
        try:
            data = json.loads(state)
            if not isinstance(data, dict):
                raise TypeError(f"{state!r} is no state")
            return Channel(slot, url, checked, data)
        except (ValueError, TypeError) as error:
            raise DamagedError(
                f"the catalog {self.path!r} is damaged: channel of {slot!r}: {error}"
            ) from error
