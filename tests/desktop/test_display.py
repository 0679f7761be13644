"""A real program shows its window from inside an app, and only with the grant."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.root]
MESSAGE = ["xmessage", "-geometry", "200x100+20+20", "layerrun"]


def _same_inside(layerrun, display, user):
    layerrun("create", "x", "--socket", "x11", "--", *MESSAGE, user=user, check=0)
    # The same program beside it, not in an app: the picture must be the same, letter by letter.
    plain = (user.environ() if user else layerrun.env()) | display.env()
    outside = display.shows((user.prefix() if user else []) + MESSAGE, plain)
    inside = display.shows(layerrun.argv("app", "x", user=user), layerrun.env(user, **display.env()))
    assert inside == outside
    assert len({inside[i : i + 4] for i in range(0, len(inside), 4)}) >= 2


def test_a_window_looks_inside_as_it_does_outside(layerrun, display):
    _same_inside(layerrun, display, None)


def test_a_plain_users_window_does_too(layerrun, users_display, any_user):
    _same_inside(layerrun, users_display, any_user)


def test_without_the_grant_there_is_no_display(layerrun, display):
    number = display.number
    env = display.env()
    done = layerrun("app", "none", "--", "sh", "-c", "echo $DISPLAY$XAUTHORITY; xdpyinfo", env=env)
    assert done.rc == 1
    assert done.out == "\n"
    # Told the real name by somebody, and with the key in reach, it gets no further.
    argv = ["sh", "-c", f"DISPLAY=:{number} XAUTHORITY={env['XAUTHORITY']} xdpyinfo"]
    assert layerrun("app", "none", "--", *argv, env=env).rc == 1


def test_the_key_is_that_of_one_display(layerrun, display):
    layerrun("create", "x", "--socket", "x11", check=0)
    done = layerrun(
        "app", "x", "--", "sh", "-c", "xauth -n list; echo; ls /tmp/.X11-unix", env=display.env(), check=0
    )
    keys, _, sockets = done.out.partition("\n\n")
    assert len(keys.splitlines()) == 1
    assert sockets == f"X{1000 + display.number}\n"
    # A stored plan is outdated by another display.
    done = layerrun("app", "x", "--", "true", env={"DISPLAY": ":4711"})
    assert done.rc == 125
    assert "/tmp/.X11-unix/X4711" in done.err


def test_abstract_sockets_that_are_allowed_leave_the_number(layerrun, display):
    layerrun("create", "x", "--socket", "x11", "--allow", "abstract-sockets", check=0)
    done = layerrun(
        "app", "x", "--", "sh", "-c", "echo $DISPLAY; xdpyinfo >/dev/null", env=display.env(), check=0
    )
    assert done.out == f":{display.number}\n"


def test_a_network_of_its_own_is_no_hindrance(layerrun, display):
    layerrun("create", "x", "--socket", "x11", "--network", "none", check=0)
    layerrun("app", "x", "--", "xdpyinfo", env=display.env(), check=0)


@pytest.mark.long
def test_a_gtk_program_shows_its_window(layerrun, display):
    layerrun("create", "z", "--preset", "desktop", "--", "zenity", "--info", "--text", "layerrun", check=0)
    seen = display.shows(layerrun.argv("app", "z"), layerrun.env(**display.env()))
    assert len({seen[i : i + 4] for i in range(0, len(seen), 4)}) > 20
