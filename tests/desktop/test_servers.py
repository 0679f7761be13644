"""Real servers: sound by PulseAudio, windows by a Wayland compositor without a screen."""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import pytest

pytestmark = [pytest.mark.root, pytest.mark.long]


def _serve(user, argv, socket, env):
    process = user.popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    until = time.monotonic() + 30
    while not os.path.exists(socket):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    return process


def test_sound(layerrun, plain_user, user_folder):
    top = user_folder(plain_user)
    os.chmod(top, 0o700)
    env = plain_user.environ(XDG_RUNTIME_DIR=top, HOME=top)
    native = f"module-native-protocol-unix socket={top}/native"
    argv = [
        "pulseaudio",
        "-n",
        "--daemonize=no",
        "--exit-idle-time=-1",
        "--disallow-exit",
        "-L",
        native,
        "-L",
        "module-null-sink",
    ]
    server = _serve(plain_user, argv, f"{top}/native", env)
    try:
        layerrun("create", "s", "--socket", "pulse", user=plain_user, check=0)
        given = {"PULSE_SERVER": f"unix:{top}/native", "XDG_RUNTIME_DIR": top}
        done = layerrun("app", "s", "--", "pactl", "info", user=plain_user, env=given, check=0)
        assert "Default Sink: null" in done.out
        layerrun("app", "not", "--", "pactl", "info", user=plain_user, env=given, check=1)
    finally:
        server.terminate()
        server.wait()


def test_windows_by_wayland(layerrun, plain_user, user_folder):
    top = user_folder(plain_user)
    os.chmod(top, 0o700)
    env = plain_user.environ(XDG_RUNTIME_DIR=top)
    argv = ["weston", "--backend=headless-backend.so", "--socket=wayland-5", "--idle-time=0"]
    server = _serve(plain_user, argv, f"{top}/wayland-5", env)
    try:
        layerrun("create", "w", "--socket", "wayland", user=plain_user, check=0)
        given = {"WAYLAND_DISPLAY": "wayland-5", "XDG_RUNTIME_DIR": top}
        program = shutil.which("wayland-info") or "weston-info"
        done = layerrun("app", "w", "--", program, user=plain_user, env=given, check=0)
        assert "wl_compositor" in done.out
    finally:
        server.terminate()
        server.wait()
