"""The error contract of docs/errors.md, as far as one can see it from outside."""

import builtins
import errno
import os

import pytest

from layerrun import errors
from layerrun.native import error_text, ffi, new_error, raise_error, trees

DOCS = os.path.join(os.path.dirname(__file__), "..", "..", "docs", "errors.md")


def test_the_record_fits_into_a_pipe_whole():
    assert ffi.sizeof("struct lr_error") == 512
    assert ffi.sizeof("struct lr_error") <= os.pathconf("/", "PC_PIPE_BUF")


def test_a_long_path_keeps_its_end():
    record = new_error()
    with pytest.raises(errors.SystemError) as caught:
        trees.open_beneath(os.open("/", os.O_PATH), b"x/" * 400 + b"end", os.O_RDONLY)
    assert caught.value.filename.endswith("/x/end")
    assert len(caught.value.filename) == ffi.sizeof(record.path) - 1


def test_translation():
    record = new_error()
    record.code, record.op, record.step, record.path = errno.EPERM, 3, b"mount the overlay", b"/a\n\xff"
    assert error_text(record) == (errno.EPERM, 3, "mount the overlay", "/a\n\udcff")
    with pytest.raises(
        OSError, match=r"^cannot mount the overlay /a\\n\\udcff: Operation not permitted$"
    ) as caught:
        raise_error(record, hint="do")
    assert caught.value.errno == errno.EPERM
    assert caught.value.filename == "/a\n\udcff"
    assert caught.value.hint == "do"
    assert caught.value.exit_status == 1


def test_the_table_is_whole():
    with open(DOCS, encoding="utf-8") as file:
        rows = [
            [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in file if line.startswith("| `")
        ]
    assert sorted(row[0] for row in rows) == errors.__all__
    for name, builtin, status, _ in rows:
        kind = getattr(errors, name)
        assert kind.exit_status == int(status)
        if builtin:  # or one of ours that it is a kind of
            assert issubclass(kind, getattr(errors, builtin, None) or getattr(builtins, builtin))
