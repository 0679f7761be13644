"""Each room imports only what stands below it, and slow or foreign things only where they are allowed."""

import ast
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PACKAGE = os.path.join(ROOT, "layerrun")

# A room may import those with a smaller number, and itself.
HEIGHT = {
    "__main__": 9,
    "cli": 8,
    "testing": 8,
    "api": 7,
    "config": 6.95,
    "fleet": 6.9,
    "updates": 6.8,
    "building": 6.7,
    "commit": 6.5,
    "runtime": 6,
    "bases": 5,
    "images": 4.5,
    "layers": 4,
    "store": 3,
    "native": 2,
    "model": 1.5,
    "changes": 1.5,
    "policy": 1.2,
    "terms": 1.1,
    "syscalls": 0.5,
    "errors": 0,
    "": 0,  # layerrun itself: the version, and the names of the API, which are imported when they are used
}

# What may import it at all; with lazy=True only inside a function (it is slow, or needs a privilege).
FOREIGN = {
    "click": ("cli", False),
    "rich": ("cli", True),
    "sqlite3": ("store", False),
    "pyroute2": ("runtime", True),
    "prctl": ("native", True),
    "cffi": ("native.build", False),
    "pytest": ("testing", False),
    "urllib3": ("images", True),
    "backports": ("images", True),
    # By the modules that nothing imports before a channel is at work.
    "tuf": ("fleet", False),
    "securesystemslib": ("fleet", False),
    "cryptography": ("fleet", False),
    "setuptools": ("native.build", True),
}


def modules():
    for folder, _, names in os.walk(PACKAGE):
        for name in sorted(names):
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                parts = os.path.relpath(path, PACKAGE)[:-3].split(os.sep)
                yield ".".join(parts).removesuffix("__init__").rstrip("."), path


MODULES = dict(modules())


def imports(path, module):
    """Yield (what is imported, whether at the top level, line); of ``from a import b`` the ``a.b``."""
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for branch in ast.walk(tree):
        # What stands below "if TYPE_CHECKING" is never run.
        if isinstance(branch, ast.If) and getattr(branch.test, "id", "") == "TYPE_CHECKING":
            inside |= {id(node) for node in ast.walk(branch)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in inside, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the whole name of the module"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", id(node) not in inside, node.lineno


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    own = module.split(".")[0]
    wrong = []
    for name, top, line in imports(MODULES[module], module):
        first, _, rest = name.partition(".")
        if first != "layerrun":
            continue
        room = rest.split(".")[0]
        room = room if room in HEIGHT else ""
        assert own in HEIGHT, f"{own} is no room of this house: add it to HEIGHT and to the architecture"
        if own == "" and room == "api" and not top:
            continue
        if room != own and HEIGHT[room] >= HEIGHT[own] and room not in ("", "errors"):
            wrong.append(f"line {line}: {own} imports {name}")
    assert not wrong, wrong


@pytest.mark.parametrize("module", MODULES)
def test_foreign_imports_stay_in_their_room(module):
    wrong = []
    for name, top, line in imports(MODULES[module], module):
        allowed = FOREIGN.get(name.split(".")[0])
        if allowed is None:
            continue
        room, lazy = allowed
        if module != room and not module.startswith(room + "."):
            wrong.append(f"line {line}: {name} belongs into {room}")
        elif lazy and top:
            wrong.append(f"line {line}: {name} is imported inside the function that needs it")
    assert not wrong, wrong


SLOW = set(
    "pyroute2 prctl rich importlib.metadata asyncio urllib3 setuptools cffi.api tuf cryptography".split()
)


@pytest.mark.parametrize(
    "words", [["version"], ["--version"], ["--help"], ["list"], ["base", "list"], ["doctor"]]
)
def test_common_verbs_import_nothing_slow(words, store_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "layerrun", *words],
        env={**os.environ, "LAYERRUN_STORE": store_path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
    )
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert len(lines) > 20, done.stderr
    imported = {line.rpartition("|")[2].strip() for line in lines}
    assert "layerrun.cli.main" in imported
    assert not imported & SLOW, imported & SLOW
