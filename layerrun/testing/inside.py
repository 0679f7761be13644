"""The pytest that runs one test in a layer: it is told which on stdin, and tells what came of it where stdout was.

It is run as a file, and imports nothing before it has been told where to find it.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import warnings

    import pytest

__all__ = ["main"]


class _Teller:
    """Says what the test comes to, a JSON value a line."""

    def __init__(self, config: pytest.Config, fd: int, nodeid: str) -> None:
        self._config = config
        self._fd = fd
        self._nodeid = nodeid

    def _tell(self, **what: Any) -> None:
        left = memoryview(json.dumps(what, default=repr).encode() + b"\n")
        while left:
            left = left[os.write(self._fd, left) :]

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave what is asked for: what stands for several tests was given where the one has no name of its own."""
        items[:] = [item for item in items if item.nodeid == self._nodeid][:1]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._tell(report=data)

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage, when: str) -> None:
        if when != "runtest":
            return  # what comes of the configuration and of collecting has been said outside
        self._tell(
            warning={
                "category": warning_message.category.__name__,
                "message": str(warning_message.message),
                "filename": warning_message.filename,
                "lineno": warning_message.lineno,
                "when": when,
            }
        )

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        import pytest

        if isinstance(excinfo.value, pytest.exit.Exception):
            self._tell(exit=str(excinfo.value.msg), status=excinfo.value.returncode)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Show outside why there is no such test here, as the last words of a process."""
        if report.failed:
            sys.stderr.write(f"{report.longreprtext}\n")

    def pytest_internalerror(self, excrepr: object) -> None:
        sys.stderr.write(f"{excrepr}\n")


def main() -> None:
    """Run the test that stdin names and end this process."""
    request = json.load(sys.stdin)
    fd = os.dup(1)
    os.dup2(2, 1)
    sys.argv = request["argv"]
    sys.path[:] = request["path"]
    import pytest

    # pytest's own way to have its options in a process of its own, as pytest-xdist goes it too.
    config = pytest.Config.fromdictargs(request["options"], [request["argument"]])
    config.pluginmanager.register(_Teller(config, fd, request["nodeid"]), request["name"])
    sys.exit(config.hook.pytest_cmdline_main(config=config))


if __name__ == "__main__":
    main()
