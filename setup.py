"""Build the C core as an abi3 extension and take the man pages along; the rest stands in pyproject.toml."""

from glob import glob

from setuptools import setup

setup(
    cffi_modules=["layerrun/native/build.py:ffibuilder"],
    data_files=[("share/man/man1", sorted(glob("docs/man/*.1")))],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
