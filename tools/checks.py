"""Write docs/checks.md from tests/support/checks.py."""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, f"{ROOT}/tests")

from support.checks import document  # noqa: E402  (the path comes first)

if __name__ == "__main__":
    with open(f"{ROOT}/docs/checks.md", "w", encoding="utf-8") as file:
        file.write(document())
