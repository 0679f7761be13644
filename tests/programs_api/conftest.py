"""Programs that use throwaways and snapshots: each runs in a Python of its own, as root and as a plain user."""

from __future__ import annotations

from support.programs import programs, story, who

__all__ = ["programs", "story", "who"]
