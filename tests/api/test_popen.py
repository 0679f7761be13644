"""`App.popen`: all of subprocess.Popen, on a command inside."""

import pytest


def test_what_popen_can_do(story, way):
    def talks(store):
        import subprocess

        app = store.create("a")
        for _ in range(2):
            with app.popen(
                ["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
            ) as cat:
                assert isinstance(cat, subprocess.Popen)
                assert (cat.args, cat.app, cat.returncode, cat.poll()) == (["cat"], "a", None, None)
                cat.stdin.write("hello\n")
                assert cat.stdout.readline() == "hello\n"
                with pytest.raises(subprocess.TimeoutExpired) as caught:
                    cat.wait(0.05)
                assert caught.value.cmd == ["cat"]
                assert cat.communicate("more\n") == ("more\n", None)
                assert cat.returncode == 0
            assert cat.stdout.closed

    story(talks, env=way)


def test_signals(story, way):
    def signalled(store):
        import signal
        import subprocess

        app = store.create("a")
        trap = "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.01; done"
        for _ in range(2):
            process = app.popen(["sh", "-c", trap], stdout=subprocess.PIPE, text=True)
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGUSR1)
            assert process.communicate()[0] == "got\n"
            assert process.returncode == 5
            process = app.popen(["sleep", "1000"])
            process.terminate()
            assert process.wait() == -signal.SIGTERM
            process.terminate()  # long gone

    story(signalled, env=way)


def test_after_a_kill_nothing_is_left(story, way):
    def killed(store):
        import signal
        import subprocess
        import time

        app = store.create("a")
        for _ in range(5):
            process = app.popen(
                ["sh", "-c", "trap '' TERM; sleep 1000 & echo ready; wait"], stdout=subprocess.PIPE
            )
            assert process.stdout.read(6) == b"ready\n"
            process.kill()
            assert process.wait() == -signal.SIGKILL
            assert not app.running
            app.reset()
            process.stdout.close()
        # With company its own command ends, and the company goes on: whoever came first.
        for early in (True, False):
            first = app.popen(["sleep", "1000"])
            second = app.popen(["sleep", "1000"])
            doomed, other = (first, second) if early else (second, first)
            doomed.kill()
            assert doomed.wait() == -signal.SIGKILL
            assert other.poll() is None
            # The doomed one's command is ended by whoever stands beside it, which takes a moment.
            end = time.monotonic() + 30
            while len(app.instance().processes) > 1 and time.monotonic() < end:
                time.sleep(0.01)
            assert [process.command for process in app.instance().processes] == ["sleep 1000"]
            assert app.run(["true"], check=True)
            other.kill()
            other.wait()
            app.stop(grace=0)

    story(killed, env=way)


def test_a_second_command_joins(story, way):
    def joins(store):
        import os
        import subprocess

        app = store.create("a")
        with app.popen(["sleep", "60"]) as first:
            done = app.run(["sh", "-c", "echo $MORE; kill -9 $$"], env={"MORE": "1"}, capture_output=True)
            assert (done.returncode, done.stdout) == (-9, b"1\n")
            instance = app.instance()
            assert app.running
            assert [process.command for process in instance.processes] == ["sleep 60"]
            assert os.path.exists(f"/proc/{instance.pid}")
            assert app.stop(grace=5)
            assert first.wait() in (-15, 143)
        assert not app.running
        assert not app.stop()
        # What a command leaves running keeps the app running, and the command's end is its own.
        app.run(["sh", "-c", "sleep 1000 & exit 0"], check=True, stdout=subprocess.DEVNULL)
        assert app.running
        assert app.reset(kill=True) == []
        assert not app.running

    story(joins, env=way)


def test_many_threads(story, way):
    def threads(store):
        import concurrent.futures
        import contextlib
        import gc
        import os
        import time

        def opened():
            found = {}
            for fd in os.listdir("/proc/self/fd"):
                with contextlib.suppress(FileNotFoundError):  # that of the listing itself
                    found[fd] = os.readlink(f"/proc/self/fd/{fd}")
            return found

        apps = [store.create(name) for name in ("a", "b", "c", "d")]
        before = opened()

        def work(number):
            app = apps[number % len(apps)]
            for turn in range(20):
                word = f"{number}-{turn}"
                words = ["sh", "-c", 'cat; exit "$1"', "sh", str(turn)]
                done = app.run(words, input=word, text=True, capture_output=True)
                assert (done.returncode, done.stdout, done.stderr) == (turn, word, "")
            return number

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert sorted(pool.map(work, range(8))) == list(range(8))
            # All in one, which some begin and the others join.
            del apps[1:]
            assert sorted(pool.map(work, range(8))) == list(range(8))
        # Once, on a busy machine, there was one more, which nobody has seen since. What stays is a leak; what goes with
        # garbage is none: a file or a socket among it would be warned of, and a warning is an error here.
        end = time.monotonic() + 10
        while opened() != before and time.monotonic() < end:
            gc.collect()
            time.sleep(0.05)
        assert opened() == before

    story(threads, env=way)


def test_without_standard_descriptors(story):
    def closed(store):
        import os

        app = store.create("a")
        app.run(["true"])
        kept = os.dup(2)
        for fd in (0, 1, 2):
            os.close(fd)
        try:
            for _ in range(2):
                done = app.run(["sh", "-c", "echo x; cat"], capture_output=True)
                assert done.stdout == b"x\n"
                assert app.run(["sh", "-c", "cat; echo lost; exit 4"]).returncode == 4
        except BaseException:
            os.dup2(kept, 2)
            raise
        for _ in (0, 1):
            os.open("/dev/null", os.O_RDWR)
        os.dup2(kept, 2)

    story(closed)


def test_with_standard_streams_of_ones_own(story, way):
    def closed(store):
        import sys

        app = store.create("a")
        before, sys.stdout = sys.stdout, open("log", "w")  # noqa: SIM115  (it is closed below)
        sys.stdout.write("kept back")
        app.run(["true"], check=True)
        with open("log") as log:
            assert log.read() == ""  # as with subprocess, what is buffered here is nobody else's affair
        sys.stdout.close()
        app.run(["true"], check=True)
        sys.stdout = before

    story(closed, env=way)


def test_an_interrupt_leaves_nothing(story, way):
    def interrupted(store):
        import os
        import signal
        import threading

        app = store.create("a")
        for _ in range(2):
            app.run(["true"])
            timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):
                app.run(["sh", "-c", "trap '' INT; sleep 1000"])
            timer.join()
            assert not app.running

    story(interrupted, env=way)
