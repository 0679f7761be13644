"""Which paths a selection takes."""

from __future__ import annotations

import pytest

from layerrun.commit.selection import Matcher, Selection
from layerrun.errors import UsageError

PATHS = ["/", "/etc", "/etc/hosts", "/etc/apt/a.bak", "/etcetera", "/opt/a.bak/in", "/opt/\udcff"]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, PATHS),
        ({"paths": ["/"]}, PATHS),
        ({"paths": ["/etc"]}, ["/etc", "/etc/hosts", "/etc/apt/a.bak"]),
        ({"paths": ["/etc/hosts", "/opt"]}, ["/etc/hosts", "/opt/a.bak/in", "/opt/\udcff"]),
        ({"exactly": frozenset(["/etc"])}, ["/etc"]),
        ({"exactly": frozenset(["/etc"]), "paths": ["/opt"]}, ["/etc", "/opt/a.bak/in", "/opt/\udcff"]),
        ({"contents": {"/etc/hosts": b""}}, ["/etc/hosts"]),
        ({"include": ["/etc/**"]}, ["/etc/hosts", "/etc/apt/a.bak"]),
        ({"include": ["/etc"]}, ["/etc", "/etc/hosts", "/etc/apt/a.bak"]),
        ({"include": ["*.bak"]}, ["/etc/apt/a.bak", "/opt/a.bak/in"]),
        ({"include": ["?.bak"], "exclude": ["/opt/**"]}, ["/etc/apt/a.bak"]),
        ({"exclude": ["*.bak", "/etc"]}, ["/", "/etcetera", "/opt/\udcff"]),
        ({"paths": ["/etc"], "exclude": ["hosts"]}, ["/etc", "/etc/apt/a.bak"]),
        ({"include": ["/nowhere"]}, []),
    ],
    ids=str,
)
def test_what_is_taken(given, taken):
    selection = Selection(**given)
    matcher = Matcher(selection)
    assert [path for path in PATHS if matcher.has(path.strip("/"))] == taken
    assert selection.is_all is (given == {})


@pytest.mark.parametrize("pattern", ["", "../x", "/a/../b", "a\0b"])
def test_a_bad_pattern_is_refused(pattern):
    for word in ("include", "exclude"):
        with pytest.raises(UsageError):
            Selection(**{word: [pattern]})
