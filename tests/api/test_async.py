"""`App.run_async` and `App.popen_async`: the same on an event loop."""

import pytest


def test_run_async(story, way):
    def runs(store):
        import asyncio
        import os
        import signal
        import subprocess

        import layerrun

        app = store.create("a", command=["echo", "own"])

        async def main():
            before = sorted(os.listdir("/proc/self/fd"))
            for _ in range(2):
                done = await app.run_async(
                    ["sh", "-c", "cat; echo e >&2; exit 3"], input=b"in", capture_output=True
                )
                assert isinstance(done, subprocess.CompletedProcess)
                assert (done.returncode, done.stdout, done.stderr) == (3, b"in", b"e\n")
                done = await app.run_async(["printf", "é\r\n"], stdout=subprocess.PIPE, encoding="utf-8")
                assert done.stdout == "é\n"
                assert (await app.run_async(stdout=subprocess.PIPE, text=True)).stdout == "own\n"
                assert (
                    await app.run_async(["cat"], input="é", text=True, stdout=subprocess.PIPE)
                ).stdout == "é"
                assert (await app.run_async(["sh", "-c", "kill -9 $$"])).returncode == -signal.SIGKILL
                for kind, words in ((FileNotFoundError, "no-such"), (PermissionError, "/etc/passwd")):
                    with pytest.raises(kind) as caught:
                        await app.run_async([words])
                    assert isinstance(caught.value, layerrun.errors.LaunchError)
                with pytest.raises(subprocess.CalledProcessError) as caught:
                    await app.run_async(["false"], check=True)
                assert (caught.value.returncode, caught.value.cmd) == (1, ["false"])
            many = await asyncio.gather(
                *(app.run_async(["sh", "-c", f"exit {number}"]) for number in range(20))
            )
            assert [one.returncode for one in many] == list(range(20))
            await asyncio.sleep(0.05)
            assert sorted(os.listdir("/proc/self/fd")) == before

        asyncio.run(main())

    story(runs, env=way)


def test_timeout_and_cancellation(story, way):
    def ends(store):
        import asyncio
        import subprocess

        app = store.create("a")

        async def main():
            for _ in range(2):
                with pytest.raises(subprocess.TimeoutExpired) as caught:
                    await app.run_async(["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"], timeout=1)
                assert caught.value.timeout == 1
                assert not app.running
                task = asyncio.create_task(app.run_async(["sleep", "1000"]))
                while not app.running:  # noqa: ASYNC110  (nothing tells it)
                    await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert not app.running
                # Cancelled at any moment of its start, too.
                for delay in range(20):
                    task = asyncio.create_task(app.run_async(["sleep", "1000"]))
                    await asyncio.sleep(delay / 500)
                    task.cancel()
                    await asyncio.wait([task])
                    assert task.cancelled()
                app.reset()

        asyncio.run(main())

    story(ends, env=way)


def test_popen_async(story, way):
    def talks(store):
        import asyncio
        import signal
        import subprocess

        app = store.create("a")

        async def main():
            for _ in range(2):
                cat = await app.popen_async(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                assert isinstance(cat, asyncio.subprocess.Process)
                cat.stdin.write(b"hello\n")
                assert await cat.stdout.readline() == b"hello\n"
                cat.stdin.close()
                assert await cat.wait() == 0
                sleep = await app.popen_async(["sleep", "1000"])
                sleep.terminate()
                assert await sleep.wait() == -signal.SIGTERM
                with pytest.raises(FileNotFoundError):
                    await app.popen_async(["no-such"])

        asyncio.run(main())

    story(talks, env=way)
