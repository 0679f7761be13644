"""What the tests of desktop grants share: a display without a screen, a session's bus, and sockets that only listen."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import subprocess
import threading
import time

import jeepney
import jeepney.io.blocking
import pytest


class Display:
    """An X server that shows its windows to nobody, with a key that only its owner has."""

    def __init__(self, folder: str, user=None) -> None:
        self.auth = os.path.join(folder, "xauth")
        key = secrets.token_hex(16)
        # Two keys: an app must get that of its own display alone.
        script = f"add :4711 . {secrets.token_hex(16)}\n"
        subprocess.run(["xauth", "-q", "-f", self.auth], input=script, text=True, capture_output=True)
        reader, writer = os.pipe()
        words = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "320x240x24", "-auth", self.auth]
        words += ["-nolisten", "tcp", "-noreset"]
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(writer,)
        )
        os.close(writer)
        with open(reader) as pipe:
            self.number = int(pipe.readline())
        # The server reads its file again when it changes.
        subprocess.run(
            ["xauth", "-q", "-f", self.auth],
            input=f"add :{self.number} . {key}\n",
            text=True,
            capture_output=True,
        )
        os.kill(self.process.pid, signal.SIGHUP)
        if user is not None:
            os.chown(self.auth, user.uid, user.gid)

    def env(self) -> dict[str, str]:
        return {"DISPLAY": f":{self.number}", "XAUTHORITY": self.auth}

    def pixels(self) -> bytes:
        """Return what the screen shows."""
        words = ["xwd", "-root", "-silent"]
        done = subprocess.run(words, env=os.environ | self.env(), capture_output=True, check=True)
        return done.stdout[-320 * 240 * 4 :]

    def shows(self, argv, env) -> bytes:
        """Run a program until its window has stopped changing; return what the screen shows then."""
        empty = self.pixels()
        process = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            until, last = time.monotonic() + 30, empty
            while time.monotonic() < until:
                time.sleep(0.2)
                seen = self.pixels()
                if seen != empty and seen == last:
                    return seen
                last = seen
                assert process.poll() is None, process.stderr.read()
            raise AssertionError("no window came up")
        finally:
            process.terminate()
            process.wait(20)
            process.stderr.close()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def display(folder):
    """A display of root's."""
    made = Display(folder)
    yield made
    made.close()


@pytest.fixture
def users_display(user_folder, any_user):
    """A display whose key a plain user has."""
    made = Display(user_folder(any_user), any_user)
    yield made
    made.close()


@pytest.fixture
def listen():
    """A function from a path (and an owner) to a list of what was said there: each gets "hello" as an answer."""
    servers = []

    def make(path, user=None):
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        os.chmod(path, 0o700)
        if user is not None:
            os.chown(path, user.uid, user.gid)
        server.listen()
        said: list[bytes] = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = server.accept()
                    with client:
                        said.append(client.recv(100))
                        client.sendall(b"hello")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        servers.append((server, thread))
        return said

    yield make
    for server, thread in servers:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(5)


@pytest.fixture
def bus(folder):
    """The address of a session's bus of root's, on which com.example.Allowed and com.example.Other are owned."""
    path = os.path.join(folder, "bus")
    address = f"unix:path={path}"
    daemon = subprocess.Popen(
        ["dbus-daemon", "--session", "--nofork", "--nopidfile", f"--address={address}"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not os.path.exists(path):
        assert daemon.poll() is None
        time.sleep(0.02)
    names = ("com.example.Allowed", "com.example.Other")
    connections = [_own(address, name) for name in names]
    yield address
    daemon.terminate()
    daemon.wait()
    for connection, thread in connections:
        thread.join(5)
        connection.close()


def _own(address, name):
    """Own a name on a bus, and answer every call of it with "hello"."""
    connection = jeepney.io.blocking.open_dbus_connection(address)
    connection.send_and_get_reply(jeepney.bus_messages.message_bus.RequestName(name))

    def answer() -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                message = connection.receive()
                if message.header.message_type is jeepney.MessageType.method_call:
                    connection.send(jeepney.new_method_return(message, "s", ("hello",)))

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    return connection, thread
