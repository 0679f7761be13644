"""The plugin of pytest: a fixture that gives a layer, a marker that runs a test in one."""

import textwrap
import xml.etree.ElementTree as ET

import pytest

CONFTEST = """
import pathlib, pytest

@pytest.fixture(scope="module")
def prepared():
    path = pathlib.Path("prepared")
    path.write_text((path.read_text() if path.exists() else "") + "x")
    yield path.read_text()
"""


@pytest.fixture
def project(programs, who):
    """Run pytest on a file as the one whose turn it is; give its status, what it said, and what came of each test."""

    def run(source, *options):
        code = f"""
import os, pathlib, pytest, sys
pathlib.Path("conftest.py").write_text({CONFTEST!r})
pathlib.Path("test_it.py").write_text({textwrap.dedent(source)!r})
status = pytest.main(["-p", "no:cacheprovider", "--junitxml=junit.xml", *{options!r}])
print("\\nleft:", sorted(os.listdir()))
print("junit:", pathlib.Path("junit.xml").read_text().replace("\\n", "&#10;"))
sys.exit(status)
"""
        done = programs.run(code, who, check=False)
        assert not done.stderr, done.stderr
        cases = {}
        for case in ET.fromstring(done.stdout.rpartition("junit: ")[2]).iter("testcase"):
            what = [
                child.tag for child in case if child.tag not in ("system-out", "system-err", "properties")
            ]
            cases[case.get("name")] = what[0] if what else "passed"
        assert "'here'" not in done.stdout.rpartition("left:")[2].partition("\n")[0]
        done.cases = cases
        return done

    return run


def test_each_test_has_its_layer(project):
    done = project(
        """
        import os, pathlib, subprocess, warnings, pytest

        def test_outside(prepared):
            assert prepared == "x"

        @pytest.mark.throwaway
        @pytest.mark.parametrize("word", ["one", "a b::[ü"])
        def test_alone(word, prepared, tmp_path, monkeypatch):
            assert not os.path.exists("here")
            pathlib.Path("here").write_text(word)
            subprocess.run(["cat", "here"], check=True)
            assert prepared == "xx"   # it was prepared anew, over what is outside
            (tmp_path / "x").touch()

        @pytest.mark.throwaway(hides=["/srv"], network="none")
        class TestAll:
            def test_policy(self, record_property):
                assert os.listdir("/srv") == []
                assert len(pathlib.Path("/proc/net/dev").read_text().splitlines()) == 3
                record_property("some", "thing")
                warnings.warn("be careful")

            @pytest.mark.skipif(os.path.exists("/"), reason="there is one")
            def test_skipped(self):
                pass

        def test_after(prepared):
            assert prepared == "x"
        """
    )
    assert done.returncode == 0, done.stdout
    wanted = ["test_outside", "test_alone[one]", "test_alone[a b::[\\xfc]", "test_policy", "test_after"]
    assert done.cases == dict.fromkeys(wanted, "passed") | {"test_skipped": "skipped"}
    assert "UserWarning: be careful" in done.stdout
    assert '<property name="some" value="thing"' in done.stdout


def test_what_goes_wrong_inside_is_seen_outside(project):
    done = project(
        """
        import os, pytest

        pytestmark = pytest.mark.throwaway

        def test_fails():
            print("said before")
            number = 6
            assert number == 7

        def test_dies():
            os._exit(7)

        def test_is_killed():
            os.kill(os.getpid(), 9)

        def test_ends_badly(request):
            request.addfinalizer(lambda: 1 / 0)

        @pytest.mark.xfail(strict=True)
        def test_is_known():
            assert 0

        @pytest.mark.timeout(1)
        def test_hangs():
            import time
            time.sleep(100)

        @pytest.mark.throwaway(nonsense=1)
        def test_option():
            pass

        @pytest.mark.throwaway(base="nowhere")
        def test_base():
            pass
        """
    )
    assert done.returncode == 1
    assert done.cases == {
        "test_fails": "failure",
        "test_dies": "failure",
        "test_is_killed": "failure",
        "test_ends_badly": "error",
        "test_is_known": "skipped",
        "test_hangs": "failure",
        "test_option": "error",
        "test_base": "error",
    }
    for said in (
        "assert 6 == 7",
        "said before",
        "the test's process ended with status 7 before the test did",
        "the test's process ended by signal 9 before the test did",
        "ZeroDivisionError",
        "unexpected keyword argument 'nonsense'",
        "there is no base 'nowhere'",
    ):
        assert said in done.stdout, said
    assert "file_or_dir" not in done.stdout


def test_options_of_the_whole_run(project):
    source = """
        import pytest

        @pytest.mark.throwaway
        def test_first():
            print("seen at once")
            assert 0

        @pytest.mark.throwaway
        def test_second():
            pass
        """
    done = project(source, "-x", "-s", "-k", "first or second", "--tb=line")
    assert done.cases == {"test_first": "failure"}
    assert "seen at once" in done.stdout
    assert "stopping after 1 failures" in done.stdout


def test_the_whole_run_is_ended(project):
    done = project(
        """
        import pytest

        @pytest.mark.throwaway
        def test_exit():
            pytest.exit("enough", 9)

        def test_never():
            pass
        """
    )
    assert done.returncode == 9
    assert "Exit: enough" in done.stdout
    assert "test_never" not in done.cases


def test_the_fixture(project):
    done = project(
        """
        def test_layer(throwaway, layerrun_store):
            throwaway.run(["touch", "here"], check=True)
            assert [change.change for change in throwaway.diff()] == ["A"]
            assert layerrun_store.throwaways() == [throwaway]

        def test_another(throwaway, layerrun_store):
            assert throwaway.diff() == []
            assert layerrun_store.throwaways() == [throwaway]
            throwaway.popen(["sleep", "1000"])
        """,
        "-o",
        "layerrun_store=elsewhere",
        "-W",
        "ignore::ResourceWarning",
        "-W",
        "ignore::pytest.PytestUnraisableExceptionWarning",
    )
    assert done.returncode == 0, done.stdout
    assert set(done.cases.values()) == {"passed"}
