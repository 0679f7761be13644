"""The cffi binding of csrc/: thin, typed, no policy.

Importing this loads the compiled extension. Records of failed calls become exceptions in one place,
`raise_error`; see docs/errors.md for the contract.
"""

from __future__ import annotations

import os
from typing import Any, NoReturn

from layerrun import errors
from layerrun.native._lr import ffi as _ffi
from layerrun.native._lr import lib as _lib

__all__ = ["error_text", "ffi", "lib", "new_error", "raise_error"]

ffi: Any = _ffi
lib: Any = _lib


def new_error() -> Any:
    """Return a fresh ``struct lr_error *`` for a call's last argument."""
    return ffi.new("struct lr_error *")


def error_text(record: Any) -> tuple[int, int, str, str]:
    """Return errno, the plan's operation number or -1, the step and the path of a record."""
    step = ffi.string(record.step).decode("utf-8", "replace")
    return int(record.code), int(record.op), step, os.fsdecode(ffi.string(record.path))


def raise_error(record: Any, *, hint: str | None = None) -> NoReturn:
    """Raise `layerrun.errors.SystemError` for a filled record: "cannot STEP PATH: REASON"."""
    code, _, step, path = error_text(record)
    shown = ascii(path)[1:-1] if not path.isprintable() else path
    about = f" {shown}" if path else ""
    raise errors.SystemError(
        f"cannot {step}{about}: {os.strerror(code)}", errno=code, path=path or None, hint=hint
    )
