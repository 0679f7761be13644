"""A registry, and a small tree with a program that any other runs."""

import os
import subprocess

import pytest
from support.pushed import PROGRAM, make_tree
from support.registries import registry


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    with registry(str(tmp_path_factory.mktemp("registry"))) as found:
        yield found


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A static program, so that an image need not hold more."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "look.c").write_text(PROGRAM)
    subprocess.run(["gcc", "-static", "-Os", "-o", folder / "look", folder / "look.c"], check=True)
    return folder / "look"


@pytest.fixture
def tree(folder, program):
    """A small root file system, with owners and a file capability."""
    root = make_tree(f"{folder}/tree", program)
    os.chown(f"{root}/etc/many", 33, 34)
    os.chown(f"{root}/etc/hard", 1000, 1000)
    os.chmod(f"{root}/etc/hard", 0o4711)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    # Not that of the program, which podman has no such right to start.
    os.setxattr(f"{root}/etc/equal", "security.capability", capability)
    return root
