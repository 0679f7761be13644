"""Build the C core as an abi3 extension; everything else stands in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=["layerrun/native/build.py:ffibuilder"],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
