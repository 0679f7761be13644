"""Linters are tests. What they complain about is shown as they say it."""

import glob
import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.dirname(sys.executable)
C_FILES = sorted(os.path.relpath(path, ROOT) for path in glob.glob(f"{ROOT}/csrc/*.[ch]"))
OTHER_C_FILES = sorted(
    os.path.relpath(path, ROOT)
    for path in glob.glob(f"{ROOT}/benchmarks/*.[ch]") + glob.glob(f"{ROOT}/tests/**/*.[ch]", recursive=True)
)


def clean(*argv):
    done = subprocess.run(argv, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"{' '.join(argv)}:\n{done.stdout}"


def test_ruff_check():
    clean(f"{BIN}/ruff", "check", "--output-format=concise", ".")


def test_ruff_format():
    clean(f"{BIN}/ruff", "format", "--check", ".")


def test_mypy_strict():
    clean(f"{BIN}/mypy")


def test_clang_format():
    clean(f"{BIN}/clang-format", "--dry-run", "-Werror", *C_FILES, *OTHER_C_FILES)


@pytest.mark.compiler
def test_c_compiles_without_a_warning(folder):
    # "=": a program of its own may define it too, as nothing.
    flags = [
        "-std=gnu11",
        "-D_GNU_SOURCE=",
        "-O2",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fvisibility=hidden",
        "-fPIC",
    ]
    failed = []
    for source in C_FILES + OTHER_C_FILES:
        if source.endswith(".c"):
            argv = ["cc", *flags, "-Icsrc", "-c", "-o", f"{folder}/out.o", source]
            done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                failed.append(done.stderr)
    assert not failed, "\n".join(failed)


def test_headers_stand_alone(folder):
    for header in C_FILES:
        if header.endswith(".h"):
            with open(f"{folder}/only.c", "w") as file:
                file.write(f'#include "{os.path.basename(header)}"\n')
            argv = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", "-Icsrc", "-fsyntax-only"]
            clean("cc", *argv, f"{folder}/only.c")


@pytest.mark.parametrize("script", [".ci/run", "tools/need", "demo/run"])
def test_shell_scripts_parse(script):
    clean("sh", "-n", script)
    assert os.access(f"{ROOT}/{script}", os.X_OK)
