"""Names that nobody has, and the nearest ones that somebody has."""

from __future__ import annotations

from collections.abc import Sequence

from layerrun.errors import NotFoundError

__all__ = ["unknown"]


def unknown(what: str, name: str, known: Sequence[str]) -> NotFoundError:
    """Return the error for a ``what`` called ``name`` that is not there, hinting at the nearest names."""
    import difflib

    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        hint = "did you mean " + " or ".join(near) + "?"
    elif known:
        shown = ", ".join(known[:8])
        hint = f"there is {shown}" + (f" and {len(known) - 8} more" if len(known) > 8 else "")
    else:
        hint = "there is none yet"
    return NotFoundError(f"there is no {what} {name!r}", hint=hint)
