"""Running a test in a layer, seen from outside: what it is told, and what is believed of what it tells."""

from __future__ import annotations

import builtins
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import pytest

from layerrun.errors import LayerrunError, UsageError
from layerrun.testing.plugin import INSIDE

if TYPE_CHECKING:
    from layerrun.api import Store, Throwaway

__all__ = ["run"]

# Options that are about the whole run: which tests, in which order, what is written at its end.
_WHOLE: dict[str, Any] = {
    "keyword": "",
    "markexpr": "",
    "deselect": None,
    "lf": False,
    "failedfirst": False,
    "newfirst": False,
    "stepwise": False,
    "maxfail": 0,
    "collectonly": False,
    "usepdb": False,
    "trace": False,
    "xmlpath": None,
    # of pytest-xdist
    "numprocesses": None,
    "dist": "no",
    "tx": [],
}


def run(
    item: pytest.Item, nextitem: pytest.Item | None, store: Callable[[], Store], mark: pytest.Mark
) -> Iterator[pytest.TestReport]:
    """Run a test in a throwaway layer and yield its reports; what keeps it from running is a report too.

    Args:
        item: the test.
        nextitem: the one after it: what that does not need of what earlier tests have set up is torn down.
        store: gives the store for the layer.
        mark: its arguments are those of `layerrun.Store.throwaway`.
    """
    told = _Told(item)
    call = _call(lambda: _run(item, store, mark, told), "call")
    if call.excinfo is not None:
        told.interrupted(call)
    yield from told.reports
    # What earlier tests, which ran in this process, have left for this one. pytest has no other way to say it.
    call = _call(lambda: item.session._setupstate.teardown_exact(nextitem), "teardown")
    if call.excinfo is not None:
        yield pytest.TestReport.from_item_and_call(item, call)
    if told.exit is not None:
        pytest.exit(*told.exit)


def _call(work: Callable[[], None], when: Literal["call", "teardown"]) -> pytest.CallInfo[None]:
    return pytest.CallInfo.from_call(work, when=when, reraise=(pytest.exit.Exception, KeyboardInterrupt))


def _run(item: pytest.Item, store: Callable[[], Store], mark: pytest.Mark, told: _Told) -> None:
    with store() as opened, _layer(opened, mark) as layer:
        done = layer.run(
            # As a file: if layerrun were imported before pytest is, pytest could not see to its asserts.
            [sys.executable, "-P", os.path.join(os.path.dirname(__file__), "inside.py")],
            input=json.dumps(_request(item)).encode(),
            stdout=subprocess.PIPE,
            stderr=_stderr(item.config),
            cwd=os.getcwd(),
        )
    told.read(done.stdout)
    told.ended(done.returncode, (done.stderr or b"").decode(errors="replace"))


def _layer(store: Store, mark: pytest.Mark) -> Throwaway:
    try:
        return store.throwaway(*mark.args, **mark.kwargs)
    except TypeError as error:
        raise UsageError(f"the marker {mark.name!r}: {error}") from None


def _stderr(config: pytest.Config) -> int:
    """With -s what the test writes goes to where our own output does; else what nobody else captured is kept."""
    return 1 if config.getoption("capture") == "no" else subprocess.PIPE


def _request(item: pytest.Item) -> dict[str, Any]:
    options = {name: value for name, value in vars(item.config.option).items() if _is_plain(value)}
    options |= {name: value for name, value in _WHOLE.items() if name in options}
    options.pop("file_or_dir", None)  # argparse warns where the words of a command line are set before
    options["rootdir"] = str(item.config.rootpath)
    options["inifilename"] = None if item.config.inipath is None else str(item.config.inipath)
    options["plugins"] = [*options.get("plugins", ()), "no:terminal", "no:cacheprovider"]
    _, colons, rest = item.nodeid.partition("::")
    return {
        "options": options,
        "argument": f"{item.path}{colons}{rest}",
        "nodeid": item.nodeid,
        "argv": sys.argv,
        "path": sys.path,
        "name": INSIDE,
    }


def _is_plain(value: Any) -> bool:
    """Say whether a value is the same after a way through JSON."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    return value is None or type(value) in (bool, int, float, str)


class _Told:
    """What is known of a test that ran, or was to run, in a layer.

    Attributes:
        reports: those that came out, and those that say why none did.
        exit: with what the test wants to end the whole run, if it does: a reason and a status.
    """

    def __init__(self, item: pytest.Item) -> None:
        self._item = item
        self.reports: list[pytest.TestReport] = []
        self.exit: tuple[str, int | None] | None = None

    def interrupted(self, call: pytest.CallInfo[None]) -> None:
        """Add a report of what was raised on this side: there was no layer to be had, or a time is over."""
        error = call.excinfo and call.excinfo.value
        if isinstance(error, LayerrunError):
            self.fail("setup", f"{error}\n{error.hint or ''}".rstrip())
        else:
            self.reports.append(pytest.TestReport.from_item_and_call(self._item, call))

    def fail(self, when: Literal["setup", "call"], text: str) -> None:
        """Add a report that says why there is none."""
        report = pytest.TestReport(
            self._item.nodeid,
            self._item.location,
            dict.fromkeys(self._item.keywords, 1),
            "failed",
            f"in a throwaway layer: {text}",
            when,
        )
        self.reports.append(report)

    def read(self, output: bytes) -> None:
        """Take what came out, a JSON value a line. It may be anything: the test could write there as well."""
        for line in output.splitlines():
            try:
                match json.loads(line):
                    case {"report": dict(data)}:
                        self._add(data)
                    case {"warning": dict(data)}:
                        self._warn(data)
                    case {"exit": str(reason), "status": int() | None as status}:
                        self.exit = reason, status
            except Exception as error:  # noqa: BLE001  (whatever pytest makes of data that it did not write)
                self.fail("call", f"a report cannot be read: {type(error).__name__}: {error}")

    def _add(self, data: dict[str, Any]) -> None:
        report = self._item.config.hook.pytest_report_from_serializable(config=self._item.config, data=data)
        if not isinstance(report, pytest.TestReport) or report.nodeid != self._item.nodeid:
            raise ValueError("it is of another test")
        report.location = self._item.location
        why: Any = report.longrepr
        if isinstance(why, list):  # of a skip; JSON has no tuples
            report.longrepr = str(why[0]), int(why[1]), str(why[2])
        report.user_properties = [(str(name), value) for name, value in report.user_properties]
        self.reports.append(report)

    def _warn(self, data: dict[str, Any]) -> None:
        kind = getattr(builtins, str(data["category"]), getattr(pytest, str(data["category"]), UserWarning))
        if not (isinstance(kind, type) and issubclass(kind, Warning)):
            kind = UserWarning
        message = warnings.WarningMessage(
            kind(str(data["message"])), kind, str(data["filename"]), int(data["lineno"])
        )
        self._item.ihook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": message,
                "nodeid": self._item.nodeid,
                "when": data["when"],
                "location": None,
            }
        )

    def ended(self, status: int, stderr: str) -> None:
        """Say so if the process ended before the test did."""
        if self.exit is not None or any(report.when == "teardown" for report in self.reports):
            return
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        text = f"the test's process ended {how} before the test did"
        self.fail("call" if self.reports else "setup", f"{text}\n{stderr}".rstrip())
