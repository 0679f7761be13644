"""The public names: each module says which they are, in order, and each is there and documented."""

import importlib
import inspect
import os

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def names():
    package = os.path.join(ROOT, "layerrun")
    for folder, _, files in os.walk(package):
        for file in sorted(files):
            if file.endswith(".py") and not file.startswith("_") and file != "build.py":
                relative = os.path.relpath(os.path.join(folder, file), ROOT)
                yield relative[:-3].replace(os.sep, ".")


@pytest.mark.parametrize("name", list(names()))
def test_public_names_resolve_and_are_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    assert hasattr(module, "__all__"), f"{name} does not say what is public"
    # The order of ruff's RUF022: CONSTANTS, then Classes, then functions.
    kinds = [(0 if n.isupper() else 1 if n[0].isupper() else 2, n) for n in module.__all__]
    assert [n.strip("_") for _, n in sorted(kinds)] == [n.strip("_") for n in module.__all__]
    for public in module.__all__:
        thing = getattr(module, public)
        if not (inspect.isclass(thing) or inspect.isfunction(thing)) or thing.__module__ != name:
            continue
        assert inspect.getdoc(thing), f"{name}.{public} has no docstring"
        if inspect.isclass(thing):
            for member, value in vars(thing).items():
                if inspect.isfunction(value) and not member.startswith("_") and value.__module__ == name:
                    assert inspect.getdoc(value), f"{name}.{public}.{member} has no docstring"


def test_every_error_has_a_status():
    errors = importlib.import_module("layerrun.errors")
    for public in errors.__all__:
        kind = getattr(errors, public)
        assert issubclass(kind, errors.LayerrunError)
        assert 1 <= kind.exit_status <= 127


def test_py_typed_is_there():
    assert os.path.exists(f"{ROOT}/layerrun/py.typed")
