"""The examples of docs/api.md and of README.md, each run in a fresh store."""

import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def examples():
    for name in ("docs/api.md", "README.md"):
        text = (ROOT / name).read_text()
        for number, code in enumerate(BLOCK.findall(text), 1):
            yield pytest.param(code, id=f"{name}-{number}")


@pytest.mark.parametrize("code", list(examples()))
def test_example(programs, who, code):
    programs.run(code, who, env={"PYTHONWARNINGS": "error"})


def test_there_are_examples():
    assert len(list(examples())) >= 6
