"""The C core under AddressSanitizer and UndefinedBehaviorSanitizer.

An environment of its own gets an extension built with them; the tests that drive the C core then run once more in a
pytest of their own, with libasan preloaded. Reports go to files, so that one from a child whose stderr nobody
reads is found too.

These runs are the other way of starting as well: with the front door shut, every start is Python's. The tests of the
front door itself run with it, built with the sanitizers too.
"""

import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.dirname(sys.executable)
# Og and g1: compiling is most of what the first of these tests takes.
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -g1 -Og"

pytestmark = [pytest.mark.sanitizers, pytest.mark.compiler]


def run(*argv, **more):
    done = subprocess.run(
        argv,
        cwd=ROOT,
        env={**os.environ, **more},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f"{' '.join(argv)}:\n{done.stdout[-6000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory):
    """The bin folder of an environment whose layerrun is built with the sanitizers; readable by plain users."""
    top = f"/var/tmp/layerrun-test-asan-{os.getpid()}"
    os.mkdir(top, 0o755)
    try:
        run(sys.executable, "-m", "venv", "--without-pip", f"{top}/venv")
        for name in os.listdir(f"{top}/venv/lib"):
            # Below this environment's own packages; an editable install there is not looked at.
            with open(f"{top}/venv/lib/{name}/site-packages/requirements.pth", "w") as file:
                file.write(f"{os.path.dirname(BIN)}/lib/{name}/site-packages\n")
        # A copy, so that the objects of the two builds do not mix.
        os.mkdir(f"{top}/source")
        kept = [
            "csrc",
            "layerrun",
            "docs",
            "setup.py",
            "pyproject.toml",
            "README.md",
            "LICENSE",
            "MANIFEST.in",
        ]
        run("cp", "-R", *[name for name in kept if os.path.exists(f"{ROOT}/{name}")], f"{top}/source")
        run("find", f"{top}/source", "-name", "*.so", "-delete")
        target = f"{top}/venv/bin/python"
        run(
            *(f"{BIN}/pip", "--python", target, "install", "-q", "--no-build-isolation", "--no-deps"),
            f"{top}/source",
            LAYERRUN_CFLAGS=FLAGS,
            LAYERRUN_LDFLAGS=FLAGS,
        )
        os.mkdir(f"{top}/reports")
        os.chmod(f"{top}/reports", 0o1777)
        yield top
    finally:
        subprocess.run(["rm", "-rf", top], check=True)


def reports(top):
    found = []
    for name in sorted(os.listdir(f"{top}/reports")):
        with open(f"{top}/reports/{name}", errors="replace") as file:
            found.append(file.read())
    return found


def environment(top):
    return {
        "LD_PRELOAD": subprocess.check_output(["cc", "-print-file-name=libasan.so"], text=True).strip(),
        # Python itself keeps memory until its end: leaks are not looked for.
        "ASAN_OPTIONS": f"detect_leaks=0:exitcode=99:log_path={top}/reports/asan",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={top}/reports/ubsan",
        "LAYERRUN_UNDER_ASAN": "1",
        # Neither the checkout nor the current directory may come before the environment's own package.
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def test_the_sanitizers_are_at_work(sanitized):
    script = "import layerrun.native._lr as m; print(m.__file__); print(open('/proc/self/maps').read())"
    said = run(f"{sanitized}/venv/bin/python", "-c", script, **environment(sanitized))
    assert said.startswith(sanitized)
    assert "libasan" in said
    assert "libubsan" in said


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "room",
    [
        "trees/test_trees.py",
        "launch/test_plan.py",
        "content/test_between.py",
        "intake/test_layers.py intake/test_shared_layers.py intake/test_direct.py::test_two_threads_share_a_large_file",
        *(
            pytest.param(room, marks=pytest.mark.long)
            for room in ("trees", "launch", "cli", "door", "confine", "limits")
        ),
    ],
)
def test_under_sanitizers(sanitized, room):
    # Left out: FUSE servers, which are others' code, and a test that has an LD_PRELOAD of its own.
    done = subprocess.run(
        [
            *(f"{sanitized}/venv/bin/python", "-m", "pytest", "-q", "--maxfail=5", "-p", "no:cacheprovider"),
            *(
                "-m",
                "not long and not network and not debian",
                "-k",
                "not fuse and not the_environment_of_an_app",
                *(f"tests/{name}" for name in room.split()),
            ),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            **environment(sanitized),
            "LAYERRUN_FRONT_DOOR": "1" if room.startswith("door") else "0",
        },
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    found = reports(sanitized)
    assert not found, found[0][:6000]
    assert done.returncode == 0, done.stdout[-6000:]
