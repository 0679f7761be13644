"""Builds ``layerrun.native._lr``, the cffi (API mode) extension over csrc/.

setup.py names it as ``cffi_modules=["layerrun/native/build.py:ffibuilder"]``; run as a program it
compiles in place. The cdef is read from between ``cffi:begin`` and ``cffi:end`` in the headers, so
that no declaration is written twice. Paths of sources stay relative to the repository's root, which
is where setuptools runs and what an sdist needs.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parent.parent.parent
CSRC = ROOT / "csrc"
# What only the front door is made of.
DOOR = ("main", "door", "current", "handed", "handoff", "options", "spare", "stored")
PUBLIC_HEADERS = (
    "lr.h",
    "tree.h",
    "launch.h",
    "jail.h",
    "cgroup.h",
    "volume.h",
    "settle.h",
    "tar.h",
    "intake.h",
    "expand.h",
)
PART = re.compile(r"/\*\s*cffi:begin.*?\*/(.*?)/\*\s*cffi:end", re.DOTALL)


def headers() -> list[str]:
    """Return the names of the headers with a part for cffi, in the order they need each other."""
    return [name for name in PUBLIC_HEADERS if (CSRC / name).exists()]


def declarations() -> str:
    """Return the cdef: the marked parts of the headers, one after the other."""
    parts: list[str] = []
    for name in headers():
        found = PART.findall((CSRC / name).read_text())
        if not found:
            raise SystemExit(f"csrc/{name} has no part between cffi:begin and cffi:end")
        parts += found
    return "\n".join(parts)


def sources() -> list[str]:
    """Return the C files to compile, relative to the root; the front door is a program of its own."""
    return [f"csrc/{path.name}" for path in sorted(CSRC.glob("*.c")) if path.stem not in DOOR]


def make() -> FFI:
    """Return the builder with its declarations and sources set."""
    ffi = FFI()
    ffi.cdef(declarations())
    ffi.set_source(
        "layerrun.native._lr",
        "".join(f'#include "{name}"\n' for name in headers()),
        sources=sources(),
        include_dirs=["csrc"],
        depends=[f"csrc/{path.name}" for path in sorted(CSRC.glob("*.h"))],
        # The oldest Python we support decides what of the stable ABI may be used.
        define_macros=[("_GNU_SOURCE", None), ("Py_LIMITED_API", "0x030b0000")],
        py_limited_api=True,
        libraries=["crypto"],
        extra_compile_args=[
            "-std=gnu11",
            "-fvisibility=hidden",
            "-Wall",
            # The file cffi writes leaves fields out on purpose.
            "-Wno-missing-field-initializers",
            *os.environ.get("LAYERRUN_CFLAGS", "").split(),
        ],
        extra_link_args=os.environ.get("LAYERRUN_LDFLAGS", "").split(),
    )
    return ffi


ffibuilder = make()


def main() -> None:
    """Compile in place, objects under build/."""
    from setuptools import Distribution

    os.chdir(ROOT)
    sys.argv[0] = "setup.py"
    dist = Distribution(
        {"name": "layerrun", "packages": [], "cffi_modules": ["layerrun/native/build.py:ffibuilder"]}
    )
    command = dist.get_command_obj("build_ext")
    command.ensure_finalized()
    command.inplace = True
    command.run()


if __name__ == "__main__":
    main()
