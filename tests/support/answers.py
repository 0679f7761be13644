"""What the probe of the escape suite said."""

from __future__ import annotations

import json


class Answers:
    """What the probe said."""

    def __init__(self, done):
        self.returncode, self.stderr = done.returncode, done.stderr
        self.lines = []
        for line in done.stdout.splitlines():
            if line.startswith('{"check"'):
                self.lines.append(json.loads(line))
        assert any(line["check"] == 0 for line in self.lines), (
            done.returncode,
            done.stdout[-2000:],
            done.stderr,
        )

    def of(self, number):
        """Return what was tried for a check, with what came of it."""
        found = {line["what"]: line["got"] for line in self.lines if line["check"] == number}
        assert found, f"the probe tried nothing for check {number}"
        return found
