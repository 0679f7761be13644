"""Of a test with further parameters, root runs each variant; a plain user runs the first, and the others are long.

What a user may do and what a word, a stream or a script means are worked out in different places: all words as one
user, and all users with one word, show nearly as much as all of both. Rooms about attacks run everything.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from support import users

WHOLE = ("confine", "escape", "hostile")


def _user(item: pytest.Item) -> str | None:
    """Return whose turn it is: ``root`` or a kind of plain user; ``None`` for a test that has no such parameter."""
    callspec = getattr(item, "callspec", None)
    kinds = ("root", users.PLAIN, users.SINGLE)
    values = [] if callspec is None else [one for one in callspec.params.values() if isinstance(one, str)]
    return next((one for one in values if one in kinds), None)


def _function(item: pytest.Item) -> str:
    return item.nodeid.partition("[")[0]


def thin(items: Iterable[pytest.Item]) -> None:
    """Mark as long what plain users run of a test whose every variant root runs, but for their first."""
    found = [(item, _function(item), _user(item)) for item in items if item.path.parent.name not in WHOLE]
    roots = {
        function for item, function, user in found if user == "root" and not item.get_closest_marker("long")
    }
    seen = set()
    for item, function, user in found:
        if function not in roots or user in ("root", None) or item.get_closest_marker("long"):
            continue
        if (function, user) in seen:
            item.add_marker(pytest.mark.long)
        seen.add((function, user))
