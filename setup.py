"""Build the C core twice, as an abi3 extension and as the front door, and take the man pages along.

The rest stands in pyproject.toml. There is no entry point in Python called ``layerrun``: bin/layerrun is
an ELF, which starts the Python beside it when it needs it.
"""

# ruff: noqa: I001  (setuptools comes before distutils: it brings distutils along on Python 3.12 and newer)
import os
from glob import glob

import setuptools
from distutils.ccompiler import new_compiler
from distutils.command.build_scripts import build_scripts
from distutils.errors import LinkError
from distutils.sysconfig import customize_compiler

# What needs libcrypto, which the front door is not linked to.
HASHING = {
    "content",
    "feed",
    "files",
    "inodes",
    "intake",
    "kept",
    "lines",
    "manifest",
    "marks",
    "objects",
    "reader",
    "records",
    "sha",
    "share",
    "taker",
    "through",
    "verify",
}
# Else the whole core: the linker leaves out what only Python calls.
SOURCES = [path for path in sorted(glob("csrc/*.c")) if os.path.basename(path)[:-2] not in HASHING]


class BuildDoor(build_scripts):
    """Compile bin/layerrun where the scripts of a wheel are gathered."""

    def run(self):
        """Compile and link; the result is all that build_dir holds."""
        compiler = new_compiler()
        customize_compiler(compiler)
        os.makedirs(self.build_dir, exist_ok=True)
        flags = ["-std=gnu11", "-O2", "-fPIE", "-ffunction-sections", "-Wall"]
        flags += os.environ.get("LAYERRUN_CFLAGS", "").split()
        objects = compiler.compile(
            SOURCES,
            output_dir=os.path.join("build", "door"),
            macros=[("_GNU_SOURCE", None)],
            include_dirs=["csrc"],
            extra_postargs=flags,
        )
        links = ["-Wl,--gc-sections", *os.environ.get("LAYERRUN_LDFLAGS", "").split()]
        # Static where there is a libc.a: it starts sooner, and what stays of it behind an app is half the size.
        try:
            compiler.link_executable(
                objects, "layerrun", output_dir=self.build_dir, extra_postargs=["-static-pie", *links]
            )
        except LinkError:
            compiler.link_executable(
                objects, "layerrun", output_dir=self.build_dir, extra_postargs=["-pie", *links]
            )

    def get_source_files(self):
        """Return what an sdist must hold for this."""
        return SOURCES


setuptools.setup(
    cffi_modules=["layerrun/native/build.py:ffibuilder"],
    cmdclass={"build_scripts": BuildDoor},
    scripts=["csrc/main.c"],  # only so that the command runs
    data_files=[("share/man/man1", sorted(glob("docs/man/*.1")))],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
