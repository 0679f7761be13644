"""The suite that plays the attacker: modes, the probe and its decoys, and the table of what was seen."""

from __future__ import annotations

import collections
import contextlib
import glob
import json
import os
import subprocess
import sys

import pytest
from support import leaks, probes, users
from support.answers import Answers
from support.checks import ALL, CHECKS, COVERED, KERNEL, MODES, NOT_SHOWN
from support.decoys import Decoys

HERE = os.path.dirname(os.path.abspath(__file__))
NAME = "a"

# What was seen: (number, mode) -> [(what, verdict)].
rows = collections.defaultdict(list)


def pytest_configure(config):
    """Register the marker, which also says in which modes a test shows a check."""
    config.addinivalue_line("markers", "check(number, ...): shows these checks of docs/checks.md")


def numbers_of(item):
    """Return the checks that a test shows."""
    return [number for mark in item.iter_markers("check") for number in mark.args]


def modes_of(item):
    """Return the modes that a test runs in: those of its marker, else its parameter."""
    said = [mode for mark in item.iter_markers("check") for mode in mark.kwargs.get("modes", ())]
    if said:
        return said
    found = getattr(item, "callspec", None)
    mode = found.params.get("mode") if found and numbers_of(item) else None
    return [mode] if mode else []


def pytest_collection_finish(session):
    """Write what was collected for test_table.py."""
    path = os.environ.get("ESCAPE_COLLECTED")
    if path:
        found = [[item.nodeid, numbers_of(item), modes_of(item)] for item in session.items]
        with open(path, "w") as file:
            json.dump(found, file)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Keep what each test has seen."""
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" or report.outcome != "passed":
        verdict = {
            "passed": "open" if getattr(item, "open", False) else "ok",
            "failed": "FAIL",
            "skipped": "skipped",
        }[report.outcome]
        seen = "; ".join(getattr(item, "seen", [])) or item.originalname
        if verdict == "FAIL":
            crash = getattr(report.longrepr, "reprcrash", None)
            seen += f" -- {crash.message.splitlines()[0] if crash else 'error'}"
        for number in numbers_of(item):
            for mode in modes_of(item):
                if report.when == "call" or verdict == "FAIL":
                    rows[number, mode].append((seen, verdict))


def table():
    """Return the lines of the table: check, name, mode, verdict, what was seen."""
    lines = []
    for number, check in CHECKS.items():
        for mode in check.modes:
            found = list(rows.get((number, mode), []))
            if (number, mode) in NOT_SHOWN:
                found.append((NOT_SHOWN[number, mode], "not shown"))
            found += [(f"covered by {one}", "see there") for one in COVERED.get((number, mode), ())]
            for seen, verdict in found or [("", "not run")]:
                lines.append(f"{number:>3}  {check.name:<24.24}  {mode:<7} {verdict:<10} {seen}")
    return lines


def pytest_terminal_summary(terminalreporter):
    """Print the table and write it where ESCAPE_TABLE says; of a run of everything, what failed."""
    path = os.environ.get("ESCAPE_TABLE")
    if not rows or os.environ.get("ESCAPE_COLLECTED"):
        return
    lines = table()
    failed = [line for line in lines if " FAIL " in line or " open  " in line]
    head = f"{'':>3}  {'check':<24}  {'mode':<7} {'verdict':<10} seen"
    if path:
        with open(path, "w") as file:
            file.write("\n".join([head, *lines]) + "\n")
    shown = lines if path else failed
    if shown:
        terminalreporter.section("checks")
        terminalreporter.write_line(head)
        for line in shown:
            terminalreporter.write_line(line)


def user_of(mode):
    """Return the plain user of a mode, ``None`` for root; fails or skips where the machine lacks what it needs."""
    if mode in ("one-id", "subids"):
        probes.need("rootless")
        probes.need("reachable")
        if mode == "subids":
            probes.need("subids")
        return users.ensure(users.SINGLE if mode == "one-id" else users.PLAIN)
    probes.need("root")
    probes.need("idmap")
    return None


class Place:
    """A folder with the probe and its decoys, stores of each mode, and a way to start things in a mode."""

    def __init__(self, path):
        self.path = path
        self.made = set()
        self.ids = {}
        self.decoys = Decoys(path, HERE)

    def store(self, mode):
        return f"{self.path}/{mode}/store"

    def env(self, mode, **more):
        user = user_of(mode)
        values = user.environ() if user else dict(os.environ)
        return {**values, "LAYERRUN_STORE": self.store(mode), **more}

    def prefix(self, mode):
        """Return the words that, before a command, run it as the mode's user."""
        user = user_of(mode)
        return user.prefix() if user else []

    def argv(self, mode, *words, prefix=()):
        """Return the words that run layerrun as the mode's user."""
        from support import reach

        user = user_of(mode)
        program = [os.path.join(os.path.dirname(sys.executable), "layerrun")]
        head = [*(prefix or user.prefix()), *reach.translate(program)] if user else [*prefix, *program]
        return [*head, *map(os.fspath, words)]

    def layerrun(self, mode, *words, prefix=(), check=None, env=None, **options):
        """Run layerrun as the mode's user; options as of `subprocess.run`."""
        options = {
            "stdin": subprocess.DEVNULL,
            "capture_output": True,
            "text": True,
            "cwd": "/",
            "timeout": 100,
            **options,
        }
        options.setdefault("errors", "surrogateescape")
        done = subprocess.run(
            self.argv(mode, *words, prefix=prefix), env=self.env(mode, **(env or {})), **options
        )
        if check is not None:
            assert done.returncode == check, (words, done.returncode, done.stdout, done.stderr)
        return done

    def make(self, mode):
        """Make the mode's store and, in modes of apps, the app; plant the decoys that lie in the layer."""
        if mode in self.made:
            return
        self.made.add(mode)
        user = user_of(mode)
        os.makedirs(f"{self.path}/{mode}")
        if user:
            os.chown(f"{self.path}/{mode}", user.uid, user.gid)
        if mode in ("try", "undo"):
            return
        base = []
        if mode == "subids":
            tree = self.decoys.tree(user)
            self.layerrun(mode, "base", "import", "small", tree, check=0)
            base = ["--base", "small"]
        self.layerrun(mode, "create", NAME, *base, check=0)
        (self.ids[mode],) = os.listdir(f"{self.store(mode)}/apps")
        self.decoys.plant(self.upper(mode), user if mode == "subids" else None)

    def app_dir(self, mode):
        return f"{self.store(mode)}/apps/{self.ids[mode]}"

    def upper(self, mode):
        return f"{self.app_dir(mode)}/data/upper"

    def start(self, mode, *words, options=()):
        """Return the words after `layerrun` that start a command in a mode."""
        self.make(mode)
        if mode == "try":
            return ["try", "-n", *options, "--", *words]
        if mode == "undo":
            return ["try", "-n", "--no-userns", *options, "--", *words]
        return ["app", NAME, *options, "--", *words]

    def inside(self, mode, path):
        """Return where a file of the decoys lies inside."""
        return f"/probe/{path}" if mode == "subids" else f"{self.path}/{path}"

    def probe(self, mode, *groups, options=(), **more):
        """Run groups of the probe inside; return its lines and what layerrun said."""
        words = [
            self.inside(mode, "probe"),
            *groups,
            *self.decoys.words(lambda path: self.inside(mode, path)),
        ]
        done = self.layerrun(mode, *self.start(mode, *words, options=options), **more)
        return Answers(done)


@pytest.fixture(scope="session")
def place():
    """The folder of the whole suite."""
    path = f"/var/tmp/{leaks.PREFIX}escape"
    os.mkdir(path, 0o755)
    os.chmod(path, 0o755)
    made = Place(path)
    made.decoys.put_up()
    yield made
    made.decoys.take_down()
    subprocess.run(["chmod", "-R", "u+rwX", path], capture_output=True)
    for link in glob.glob(f"{path}/*/store/apps/*/cgroup"):
        with contextlib.suppress(OSError):
            os.rmdir(os.readlink(link))
    subprocess.run(["rm", "-rf", path], check=True)


@pytest.fixture(scope="session")
def runs():
    """The one run of the probe in each mode, by mode."""
    return {}


@pytest.fixture
def answers(place, runs, mode):
    """What the probe saw in the test's mode: one start for all checks."""
    if mode not in runs:
        place.make(mode)
        runs[mode] = place.decoys.in_surroundings(
            lambda options: place.probe(mode, "all", **options), user_of(mode)
        )
    return runs[mode]


@pytest.fixture
def seen(request):
    """Note what was seen, for the table: ``seen("text")``, or a dictionary of results, which is summed up.

    ``seen.open("text")`` is for what is known to be open, and documented as not promised: the table does not say ok.
    """
    request.node.seen = []

    def note(what):
        if isinstance(what, dict):
            found = collections.Counter(what.values())
            what = f"{len(what)} tried: " + ", ".join(f"{got} {count}" for got, count in found.most_common(6))
        request.node.seen.append(what)

    def note_open(what):
        request.node.open = True
        request.node.seen.append(what)

    note.open = note_open
    return note


def pytest_generate_tests(metafunc):
    """Run a test that takes ``mode`` in every mode of its checks."""
    if "mode" in metafunc.fixturenames:
        numbers = [n for mark in metafunc.definition.iter_markers("check") for n in mark.args]
        wanted = [mode for mode in MODES if any(mode in CHECKS[n].modes for n in numbers)] or list(ALL)
        only = next(
            (
                mark.kwargs["only"]
                for mark in metafunc.definition.iter_markers("check")
                if "only" in mark.kwargs
            ),
            KERNEL,
        )
        wanted = [m for m in wanted if m in only and not all((n, m) in NOT_SHOWN for n in numbers)]
        metafunc.parametrize("mode", wanted)
