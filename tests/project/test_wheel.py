"""What is installed is what was tested: sdist, wheel, editable install, each in a fresh environment."""

import os
import subprocess
import sys
import tarfile
import zipfile

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.dirname(sys.executable)

pytestmark = [pytest.mark.compiler, pytest.mark.network]


def run(*argv, cwd="/", **more):
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")} | more
    done = subprocess.run(argv, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"{' '.join(argv)}:\n{done.stdout[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist and the wheel built from it, so that an sdist that lacks a file fails."""
    out = str(tmp_path_factory.mktemp("dist"))
    # What is in them does not depend on how well the compiler has optimised.
    run(sys.executable, "-m", "build", "--no-isolation", "-o", out, ".", cwd=ROOT, LAYERRUN_CFLAGS="-O0")
    found = {name.rpartition(".")[2]: os.path.join(out, name) for name in os.listdir(out)}
    return found["gz"], found["whl"]


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The bin folder of a fresh environment with the wheel and what it requires."""
    venv = str(tmp_path_factory.mktemp("venv") / "v")
    run(sys.executable, "-m", "venv", venv)
    run(f"{venv}/bin/pip", "install", "-q", built[1])
    return f"{venv}/bin"


def test_wheel_is_abi3_and_holds_what_it_should(built):
    assert "-cp311-abi3-linux" in os.path.basename(built[1])
    with zipfile.ZipFile(built[1]) as wheel:
        names = wheel.namelist()
        points = [wheel.read(name).decode() for name in names if name.endswith("entry_points.txt")]
    assert "layerrun/native/_lr.abi3.so" in names
    assert "layerrun/py.typed" in names
    assert "layerrun/cli/main.py" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert [name for name in names if name.endswith(".data/scripts/layerrun")]
    # A plugin of pytest, and no script: the command is the program above.
    assert [line for text in points for line in text.splitlines() if line.startswith("[")] == ["[pytest11]"]
    assert not [name for name in names if name.endswith((".c", ".h")) or name.startswith(("tests", "csrc"))]
    tracked = (
        run("git", "ls-files", "layerrun/*.py", cwd=ROOT).split() if os.path.exists(f"{ROOT}/.git") else []
    )
    assert not [name for name in tracked if name not in names and os.path.exists(f"{ROOT}/{name}")]


def test_the_command_in_the_wheel_is_a_program_that_finds_its_way(built):
    """No script with the path of a Python in it: the program takes the Python that lies beside it."""
    with zipfile.ZipFile(built[1]) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".data/scripts/layerrun")]
        program = wheel.read(name)
        assert wheel.getinfo(name).external_attr >> 16 & 0o111 == 0o111
    assert program.startswith(b"\x7fELF")
    assert os.fsencode(ROOT) not in program


def test_sdist_holds_the_tests_and_the_sources(built):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    wanted = {
        "csrc/lr.h",
        "tests/conftest.py",
        "Makefile",
        "LICENSE",
        "README.md",
        "CHANGELOG.md",
        "benchmarks/floor.c",
    }
    assert not wanted - names


def test_installed_wheel_runs(installed, store_path):
    assert run(f"{installed}/layerrun", "--version").startswith("layerrun ")
    where = run(f"{installed}/python", "-Ic", "import layerrun.native._lr as m; print(m.__file__)").strip()
    assert where.startswith(os.path.dirname(installed))
    assert run(f"{installed}/layerrun", "list", "--json", LAYERRUN_STORE=store_path).startswith(("{", "["))


@pytest.mark.root
def test_installed_wheel_launches(installed, store_path):
    def layerrun(*words):
        return run(f"{installed}/layerrun", *words, LAYERRUN_STORE=store_path)

    layerrun("app", "smoke", "--", "sh", "-c", "echo inside >/etc/layerrun-smoke")
    assert not os.path.exists("/etc/layerrun-smoke")
    assert "inside" in layerrun("app", "smoke", "--", "cat", "/etc/layerrun-smoke")
    repeats_without_python(installed, layerrun)


@pytest.mark.root
def test_installed_wheel_serves_programs(installed, store_path):
    """A program finds the front door of the package that it imports: also if its Python is another one."""
    start = "import layerrun; app = layerrun.Store().{}('api')\n"
    work = "print(app.run(['echo', 'inside'], capture_output=True, text=True).stdout)"
    code = start.format("create") + work
    assert "inside" in run(f"{installed}/python", "-Ic", code, LAYERRUN_STORE=store_path)
    site = run(f"{installed}/python", "-Ic", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    code = f"import site; site.addsitedir({site!r})\n{start.format('app')}{work}"
    code += (
        f"\nfrom layerrun.runtime import door; assert door.locate() == '{installed}/layerrun', door.locate()"
    )
    python = f"{sys.base_prefix}/bin/python3"
    assert "inside" in run(python, "-Ic", code, LAYERRUN_STORE=store_path)


def repeats_without_python(folder, layerrun):
    """Show that the command as installed repeats a start without the Python beside it."""
    layerrun("app", "smoke", "--", "true")
    os.rename(f"{folder}/python3", f"{folder}/python3-away")
    try:
        assert layerrun("app", "smoke", "--", "echo", "hot") == "hot\n"
    finally:
        os.rename(f"{folder}/python3-away", f"{folder}/python3")


# The environment that the tests run in is such an install, by the same words.
@pytest.mark.long
@pytest.mark.root
def test_editable_install_sees_edits(built, folder, store_path):
    run("tar", "xf", built[0], "-C", folder, "--no-same-owner")
    source = os.path.join(folder, os.path.basename(built[0]).removesuffix(".tar.gz"))
    run(sys.executable, "-m", "venv", "--without-pip", f"{folder}/v")
    # What it requires is taken from the environment the tests run in: this is about layerrun's own files.
    for name in os.listdir(f"{folder}/v/lib"):
        site = f"{folder}/v/lib/{name}/site-packages"
        with open(f"{site}/requirements.pth", "w") as file:
            file.write(f"{os.path.dirname(BIN)}/lib/{name}/site-packages\n")
    python = f"{folder}/v/bin/python"
    words = ("--no-build-isolation", "--no-deps", "-e", source)
    run(f"{BIN}/pip", "--python", python, "install", "-q", *words, LAYERRUN_CFLAGS="-O0")
    assert run(f"{folder}/v/bin/layerrun", "--version").startswith("layerrun ")
    assert run(python, "-c", "import layerrun.native._lr as m; print(m.__file__)").startswith(source)
    with open(f"{source}/layerrun/__init__.py", "a") as file:
        file.write('\n__version__ = "9.9.9"\n')
    assert run(f"{folder}/v/bin/layerrun", "--version").strip() == "layerrun 9.9.9"
    repeats_without_python(
        f"{folder}/v/bin",
        lambda *words: run(f"{folder}/v/bin/layerrun", *words, LAYERRUN_STORE=store_path),
    )
