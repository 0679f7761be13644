"""Sockets of the session: reachable where granted, at one place inside, and named by one variable."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

pytestmark = [pytest.mark.root]
SAY = (
    "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[1].encode()); "
    "print(s.recv(9).decode())"
)


def _session(make_folder, user, listen):
    top = make_folder(user) if user else make_folder
    os.mkdir(f"{top}/pulse", 0o755)
    said = {name: listen(f"{top}/{name}", user) for name in ("wayland-7", "pulse/native", "pipewire-0")}
    with open(f"{top}/cookie", "w") as file:
        file.write("secret" + 250 * "x")
    for name in ("pulse", "cookie"):
        os.chown(f"{top}/{name}", user.uid if user else 0, user.gid if user else 0)
    env = {"XDG_RUNTIME_DIR": top, "WAYLAND_DISPLAY": "wayland-7", "PULSE_COOKIE": f"{top}/cookie"}
    return env, said


def _reaches_all(layerrun, env, said, user):
    sockets = [f"--socket={kind}" for kind in ("wayland", "pulse", "pipewire")]
    layerrun("create", "s", *sockets, user=user, check=0)
    script = f"""
        for path in $XDG_RUNTIME_DIR/$WAYLAND_DISPLAY ${{PULSE_SERVER#unix:}} $XDG_RUNTIME_DIR/$PIPEWIRE_REMOTE; do
            /usr/bin/python3 -c '{SAY}' $path
        done
        cat $PULSE_COOKIE $PULSE_CLIENTCONFIG; echo $XDG_SESSION_TYPE"""
    for _ in range(2):  # by Python, and by the stored plan
        done = layerrun("app", "s", "--", "sh", "-euc", script, user=user, env=env, check=0)
        assert done.out.splitlines() == [
            *["hello"] * 3, f"secret{250 * 'x'}autospawn = no", "enable-shm = no", "wayland",
        ]  # fmt: skip
    uid = user.uid if user else 0
    assert said["wayland-7"] == [f"/run/user/{uid}/wayland-0".encode()] * 2
    assert len(said["pulse/native"]) == len(said["pipewire-0"]) == 2


def test_sockets_of_root(layerrun, folder, listen):
    env, said = _session(folder, None, listen)
    _reaches_all(layerrun, env, said, None)


def test_sockets_of_a_plain_user(layerrun, user_folder, any_user, listen):
    env, said = _session(user_folder, any_user, listen)
    _reaches_all(layerrun, env, said, any_user)


def test_a_link_is_no_cookie(layerrun, folder, listen):
    """Who may write to the home could have put it there, to show an app what it may not read."""
    env, _ = _session(folder, None, listen)
    os.rename(f"{folder}/cookie", f"{folder}/decoy")
    os.symlink("decoy", f"{folder}/cookie")
    layerrun("create", "s", "--socket", "pulse", check=0)
    done = layerrun(
        "app", "s", "--", "sh", "-c", "ls /run/user/0/pulse; echo ${PULSE_COOKIE-none}", env=env, check=0
    )
    assert done.out.split() == ["client.conf", "native", "none"]


def test_what_is_asked_for_by_name_must_be_there(layerrun):
    layerrun("create", "asked", "--socket", "x11", "--socket", "wayland", check=0)
    env = dict.fromkeys(("DISPLAY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR"))
    done = layerrun("app", "asked", "--", "true", env=env, check=125)
    assert "XDG_RUNTIME_DIR is not set" in done.err
    assert "graphical session" in done.err
    layerrun("show", "asked", check=0)
    # A preset's may be missing.
    layerrun("create", "preset", "--preset", "desktop", check=0)
    layerrun("app", "preset", "--", "true", env=env, check=0)
    assert "socket wayland: XDG_RUNTIME_DIR is not set" in layerrun("show", "preset", env=env, check=0).out


def test_nothing_of_the_session_is_in_the_environment(layerrun):
    names = "DISPLAY WAYLAND_DISPLAY XAUTHORITY PULSE_SERVER PIPEWIRE_REMOTE DBUS_SESSION_BUS_ADDRESS".split()
    env = dict.fromkeys((*names, "XDG_SESSION_TYPE", "XDG_CURRENT_DESKTOP", "SSH_AUTH_SOCK"), "/nowhere")
    done = layerrun("app", "plain", "--", "env", env=env, check=0)
    assert not [line for line in done.out.splitlines() if line.partition("=")[0] in env]


def _call(name):
    return f"gdbus call --session --timeout 5 -d {name} -o / -m com.example.Say 2>/dev/null; "


def test_the_bus_is_filtered_and_its_proxy_goes_with_the_app(layerrun, bus):
    layerrun("create", "b", "--socket", "session-bus:talk=com.example.Allowed", check=0)
    env = {"DBUS_SESSION_BUS_ADDRESS": bus}
    script = _call("com.example.Allowed") + _call("com.example.Other")
    script += "gdbus call --session -d org.freedesktop.DBus -o / -m org.freedesktop.DBus.ListNames"
    done = layerrun("app", "b", "--", "sh", "-c", script, env=env, check=0)
    allowed, names = done.out.splitlines()
    assert allowed == "('hello',)"
    assert "com.example.Allowed" in names
    assert "com.example.Other" not in names
    # kill -9 of the launcher leaves no proxy behind, which no_leaks looks at too.
    process = subprocess.Popen(
        layerrun.argv("app", "b", "--", "sleep", "100"), env=layerrun.env(**env), stdin=subprocess.DEVNULL
    )
    until = time.monotonic() + 20
    while not _proxies(layerrun.store()):
        assert time.monotonic() < until
        time.sleep(0.05)
    process.kill()
    process.wait()
    while _proxies(layerrun.store()):
        assert time.monotonic() < until
        time.sleep(0.05)


def _proxies(store):
    """Return the proxies that work in a store: the folder of their socket is there."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm") as file:
                if not file.read().startswith("xdg-dbus-proxy"):
                    continue
            folders = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
        except OSError:
            continue
        if any(path.startswith(store) for path in folders):
            found.append(pid)
    return found


def test_a_bus_that_is_not_there_stops_what_asks_for_it(layerrun, folder):
    layerrun("create", "b", "--socket", "session-bus", check=0)
    env = {"DBUS_SESSION_BUS_ADDRESS": f"unix:path={folder}/nobody"}
    # The proxy is there; what it leads to is not: programs inside are told.
    done = layerrun("app", "b", "--", "gdbus", "call", "--session", "-d", "org.freedesktop.DBus", "-o", "/",
                    "-m", "org.freedesktop.DBus.ListNames", env=env)  # fmt: skip
    assert done.rc != 0
