"""`App.run`: subprocess's conventions, inside."""

import pytest


def test_what_it_returns(story, way):
    def tells(store):
        import pathlib
        import subprocess

        app = store.create("a")
        for _ in range(2):  # the first start makes the plan, the second repeats it
            done = app.run(["sh", "-c", "echo out; echo err >&2; exit 3"], capture_output=True)
            assert isinstance(done, subprocess.CompletedProcess)
            assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
            assert done.args == ["sh", "-c", "echo out; echo err >&2; exit 3"]
        done = app.run(["printf", "a\r\nb"], stdout=subprocess.PIPE, text=True)
        assert (done.stdout, done.stderr) == ("a\nb", None)
        assert app.run("true").returncode == 0
        assert app.run(pathlib.Path("/bin/true")).returncode == 0
        assert app.run(("sh", "-c", b"exit 7")).returncode == 7
        # A word that is no text, and a status that looks like layerrun's own.
        odd = b"\xff\n -- \\"
        assert app.run([b"printf", b"%s", odd], capture_output=True).stdout == odd
        for status in (1, 125, 126, 127, 137, 255):
            assert app.run(["sh", "-c", f"exit {status}"]).returncode == status

    story(tells, env=way)


def test_input_and_streams(story):
    def streams(store):
        import os
        import subprocess

        app = store.create("a")
        big = b"x" * 300_000
        for _ in range(2):
            assert app.run(["cat"], input=big, capture_output=True).stdout == big
        assert app.run(["cat"], input="é\n", encoding="utf-8", stdout=subprocess.PIPE).stdout == "é\n"
        assert app.run(["cat"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout == b""
        both = app.run(["sh", "-c", "echo a; echo b >&2"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert both.stdout == b"a\nb\n"
        with open("file", "w+b") as file:
            app.run(["echo", "hello"], stdout=file, stderr=subprocess.DEVNULL, check=True)
            file.seek(0)
            assert app.run(["cat"], stdin=file, capture_output=True).stdout == b"hello\n"
        # A command that does not read its input.
        assert app.run(["true"], input=big).returncode == 0
        for wrong in (
            {"input": b"", "stdin": subprocess.PIPE},
            {"capture_output": True, "stdout": subprocess.PIPE},
        ):
            with pytest.raises(ValueError):
                app.run(["true"], **wrong)
        # Nothing but 0, 1 and 2 is inherited; of what was opened here nothing is left.
        spare = os.open("/dev/null", os.O_RDONLY)
        os.set_inheritable(spare, True)
        before = sorted(os.listdir("/proc/self/fd"))
        inside = app.run(["sh", "-c", "echo /proc/self/fd/*"], capture_output=True, text=True).stdout.split()
        assert [fd for fd in inside if int(fd.rpartition("/")[2]) > 9] == []
        assert f"/proc/self/fd/{spare}" not in inside or spare < 10
        assert sorted(os.listdir("/proc/self/fd")) == before

    story(streams)


def test_environment_and_folder(story, way):
    def surroundings(store):
        import os

        os.environ["SECRET"] = "mine"
        os.environ["LANG"] = "C.UTF-8"
        app = store.create("a", env={"FIXED": "1", "OTHER": "1"}, command=["sh", "-c", "echo own command"])

        def out(*words, **options):
            return app.run(words or None, capture_output=True, text=True, check=True, **options).stdout

        script = 'echo "$SECRET $LANG $FIXED $OTHER $MORE $LAYERRUN_APP"'
        for _ in range(2):
            line = out("sh", "-c", script, env={"MORE": "a b=c", "OTHER": "2"})
            assert line == " C.UTF-8 1 2 a b=c a\n", line
            assert out("sh", "-c", script) == " C.UTF-8 1 1  a\n"
            assert out("pwd", cwd="/usr/bin") == "/usr/bin\n"
            assert out("pwd", cwd=b"/usr/lib") == "/usr/lib\n"
            assert out("pwd") == os.getcwd() + "\n"
            assert out() == "own command\n"
        # What the front door is told by variables of its own never gets inside.
        assert "LAYERRUN" not in out("env").replace("LAYERRUN_APP=a\n", "")
        assert app.run(capture_output=True).args == []

    story(surroundings, env=way)


def test_check_and_signals(story, way):
    def ends(store):
        import signal
        import subprocess

        app = store.create("a")
        for _ in range(2):
            with pytest.raises(subprocess.CalledProcessError) as caught:
                app.run(["sh", "-c", "echo o; echo e >&2; exit 9"], check=True, capture_output=True)
            assert (caught.value.returncode, caught.value.output, caught.value.stderr) == (9, b"o\n", b"e\n")
            assert caught.value.cmd == ["sh", "-c", "echo o; echo e >&2; exit 9"]
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE, signal.SIGRTMIN):
            assert app.run(["sh", "-c", f"kill -{int(number)} $$"]).returncode == -number
        assert app.run(["sh", "-c", "exit 143"]).returncode == 143

    story(ends, env=way)


def test_a_command_that_cannot_be_started(story, way):
    def errors(store):
        import errno
        import os

        import layerrun

        app = store.create("a")
        before = sorted(os.listdir("/proc/self/fd"))

        def fails(kind, *words, **options):
            for start in (app.run, app.popen):
                with pytest.raises(kind) as caught:
                    start(*words, **options)
                found = caught.value
            assert sorted(os.listdir("/proc/self/fd")) == before
            return found

        for _ in range(2):
            error = fails(FileNotFoundError, ["no-such-command"])
            assert isinstance(error, layerrun.errors.CommandNotFoundError)
            assert (error.errno, error.filename) == (errno.ENOENT, "no-such-command")
            assert "no-such-command" in str(error)
            assert "'a'" in str(error)
            error = fails(PermissionError, ["/etc/passwd"])
            assert isinstance(error, layerrun.errors.CommandNotExecutableError)
            assert (error.errno, error.filename) == (errno.EACCES, "/etc/passwd")
            error = fails(layerrun.errors.LaunchError, ["true"], cwd="/not/there")
            assert "/not/there" in str(error)
        # What makes no sense is an error before anything is started.
        fails(ValueError, [])
        fails(layerrun.errors.UsageError, [""])
        fails(ValueError, ["a\0b"])
        fails(ValueError, ["true"], cwd="relative")
        fails(ValueError, ["true"], env={"": "x"})
        fails(ValueError, ["true"], env={"A=B": "x"})
        fails(ValueError, None)
        for name in ("shell", "preexec_fn", "pass_fds", "executable", "user", "nonsense"):
            assert name in str(fails(TypeError, ["true"], **{name: True}))

    story(errors, env=way)


def test_an_app_that_went_away(story):
    def gone(store):
        import layerrun

        app = store.create("a")
        app.run(["true"], check=True)
        other = store.app("a")
        app.remove()
        for call in (lambda: other.run(["true"]), lambda: store.app("a"), other.reset, lambda: other.config):
            with pytest.raises(layerrun.errors.NotFoundError):
                call()
        # Another of that name is another app.
        store.create("a")
        with pytest.raises(layerrun.errors.NotFoundError):
            other.remove()
        assert [one.name for one in store.apps()] == ["a"]

    story(gone)


def test_timeout(story, way):
    def late(store):
        import subprocess
        import time

        app = store.create("a")
        for _ in range(2):
            begin = time.monotonic()
            with pytest.raises(subprocess.TimeoutExpired) as caught:
                app.run(["sh", "-c", "echo early; sleep 1000 & sleep 1000"], capture_output=True, timeout=1)
            assert (caught.value.timeout, caught.value.output) == (1, b"early\n")
            assert caught.value.cmd[:2] == ["sh", "-c"]
            assert time.monotonic() - begin < 60
            # It has ended, with all it had started: nothing is busy.
            assert not app.running
            app.reset()
        # Others who run there go on.
        with app.popen(["sleep", "60"]) as first:
            with pytest.raises(subprocess.TimeoutExpired):
                app.run(["sh", "-c", "sleep 1000"], timeout=1)
            assert first.poll() is None
            assert app.running
            first.kill()

    story(late, env=way)


def test_somebody_else_changes_it(story):
    def busy(store):
        import layerrun
        from layerrun.store.store import Store

        app = store.create("a")
        app.run(["true"])
        with Store.open(store.path) as opened, opened.app_lock(opened.app("a"), "test"):
            with pytest.raises(layerrun.errors.BusyError) as caught:
                app.run(["true"])
            assert "test" in str(caught.value)
        app.run(["true"], check=True)

    story(busy)


def test_profiles_and_ephemeral_starts(story):
    def others(store):
        import os

        app = store.create("a")
        script = "cat ~/mark 2>/dev/null || echo nothing; echo $LAYERRUN_APP >~/mark"

        def out(**options):
            return app.run(["sh", "-c", script], capture_output=True, text=True, check=True, **options).stdout

        for turn in range(3):
            assert out(ephemeral=True) == "nothing\n"
            assert out(profile="work") == ("a@work\n" if turn else "nothing\n")
            assert out() == ("a\n" if turn else "nothing\n")
            assert len(os.listdir(f"{store.path}/apps")) == 2
        assert [one.name for one in store.apps()] == ["a", "a@work"]
        assert [one.name for one in app.profiles()] == ["a@work"]
        assert store.app("a@work").run(["true"]).returncode == 0
        app.profile("work").reset()
        assert out(profile="work") == "nothing\n"
        with pytest.raises(ValueError):
            app.run(["true"], profile="work", ephemeral=True)

    story(others)


def test_no_python_is_started_and_none_forked(story, way):
    def alone(store):
        import os
        import sys

        from layerrun.runtime import door

        started = []

        def watch(event, args):
            if event in ("os.fork", "os.forkpty", "os.exec", "os.posix_spawn"):
                raise AssertionError(event)
            if event == "subprocess.Popen":
                started.append(os.fsdecode(args[0]))

        app = store.create("a")
        sys.addaudithook(watch)
        for _ in range(3):
            app.run(["true"], check=True)
        assert set(started) == {door.locate()}
        # It stays what it is: a Python would have been executed in its place.
        with app.popen(["sleep", "60"]) as process:
            assert os.path.samefile(f"/proc/{process.pid}/exe", door.locate())
            process.kill()

    story(alone, env=way)
