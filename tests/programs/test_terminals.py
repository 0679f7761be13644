"""Shells, job control, sizes and programs that want a terminal, each on a real pty."""

from __future__ import annotations

import contextlib
import shlex

import pytest
from programs.places import PLACES
from programs.terminal import Terminal

# Typed text is echoed: what is waited for must not be found in it.
SLEEP = "sh -c 'echo sle\"\"eping; exec sleep 1000'"
# One process that answers: nothing else reads the terminal while a shell already shows its prompt, and an answer,
# unlike an echo, says that it runs.
ANSWER = 'sh -c \'echo star""ted; while read x; do echo "<$x>"; done; echo en""ded; exit 9\''
PROMPT = "in> "


@pytest.fixture
def app(place):
    name = place.create()
    yield name
    place("remove", "-y", name)


@contextlib.contextmanager
def shell(place, app):
    """Start a login shell of the app and wait for its prompt."""
    with Terminal(place.argv("shell", app), place.env()) as terminal:
        terminal.line("PS1='i''n> '")
        terminal.expect(PROMPT)
        yield terminal


@contextlib.contextmanager
def outer(place):
    """Start a shell of the host with job control, in which layerrun is a job."""
    argv = [*(place.user.prefix() if place.user else []), "bash", "--norc", "-i"]
    with Terminal(argv, place.env(PS1="out> ", HISTFILE="")) as terminal:
        terminal.expect("out> ")
        yield terminal


def start(place, terminal, app, command):
    """Type a command line that runs ``command`` in the app: the shell is the place's user already."""
    words = place.argv("app", app, "--")
    terminal.line(" ".join(words[len(place.user.prefix()) if place.user else 0 :]) + " " + command)


def talk(terminal, word):
    """Type to ANSWER and wait for what it says: from then on it is there, and in the foreground."""
    terminal.line(word)
    terminal.expect(f"<{word}>\r\n")


def test_login_shell_with_job_control(place, app):
    with shell(place, app) as terminal:
        terminal.line("tty; stty size")
        terminal.expect(r"/dev/pts/\d+\r\n.*24 200\r\n(?s:.*)" + PROMPT)
        terminal.line(ANSWER)
        terminal.expect("started\r\n")
        talk(terminal, "one")
        terminal.send("\x1a")
        terminal.expect("Stopped(?s:.*)" + PROMPT)
        terminal.line("jobs")
        terminal.expect(r"\[1\]\+\s+Stopped\s+sh -c .*\r\n(?s:.*)" + PROMPT)
        terminal.line("fg")
        terminal.expect("exit 9'\r\n")
        talk(terminal, "two")
        terminal.send("\x03")
        terminal.expect(PROMPT)
        terminal.line("echo status=$?")
        terminal.expect(r"status=130\r\n(?s:.*)" + PROMPT)
        terminal.line(SLEEP + " &")
        terminal.expect("sleeping")
        terminal.line("kill %1; wait %1; echo status=$?")
        terminal.expect(r"status=143\r\n(?s:.*)" + PROMPT)
        terminal.line("trap 'echo size: $(stty size)' WINCH")
        terminal.expect(PROMPT)
        terminal.resize(31, 91)
        terminal.line("")
        terminal.expect("size: 31 91")
        terminal.line("exit 42")
        assert terminal.status() == 42
        assert terminal.cooked()


def test_a_command_is_a_job_of_the_outer_shell(place, app):
    with outer(place) as terminal:
        start(place, terminal, app, ANSWER)
        terminal.expect("started")
        talk(terminal, "first")
        terminal.send("\x1a")
        terminal.expect("Stopped(?s:.*)out> ")
        terminal.line("stty -a | tr ' ;' '\\n\\n' | grep -cx -e icanon -e echo -e opost")
        terminal.expect("3\r\n(?s:.*)out> ")
        terminal.line("fg")
        terminal.expect("exit 9'")
        talk(terminal, "second")
        # In the background it must leave the terminal to the shell, and read again once it is back.
        terminal.send("\x1a")
        terminal.expect("Stopped(?s:.*)out> ")
        terminal.line("bg")
        terminal.expect("&\r\n(?s:.*)out> ")
        terminal.line("echo still $((40 + 2))")
        terminal.expect("still 42\r\n(?s:.*)out> ")
        terminal.line("fg")
        terminal.expect("exit 9'")
        talk(terminal, "third")
        terminal.send("\x04")
        terminal.expect("ended\r\n(?s:.*)out> ")
        terminal.line("echo status=$?")
        terminal.expect("status=9\r\n")
        terminal.line("exit")
        terminal.status()


def test_ctrl_c_ends_a_command(place, app):
    with outer(place) as terminal:
        start(place, terminal, app, SLEEP)
        terminal.expect("sleeping")
        terminal.send("\x03")
        terminal.expect("out> ")
        terminal.line("echo status=$?")
        terminal.expect("status=130\r\n")
        terminal.line("exit")
        terminal.status()


@pytest.mark.parametrize("place", ["root-host", "plain-host"], indirect=True)
def test_a_stop_of_the_pipeline_it_is_part_of(place, app):
    """Only stdin and stderr are the terminal: the command shares it with the caller."""
    with outer(place) as terminal:
        start(place, terminal, app, ANSWER + " | cat")
        terminal.expect("started")
        talk(terminal, "first")
        terminal.send("\x1a")
        terminal.expect("Stopped(?s:.*)out> ")
        terminal.line("fg")
        terminal.expect("exit 9'")
        talk(terminal, "again")
        terminal.send("\x04")
        terminal.expect("ended\r\n")
        terminal.line("exit")
        terminal.status()


@pytest.mark.parametrize("place", ["root-host", "plain-host"], indirect=True)
def test_ctrl_z_where_nobody_could_continue_it(place, app):
    """A program started by a terminal itself (xterm -e) does not stop: nobody is there to wake it."""
    with Terminal(place.argv("app", app, "--", *shlex.split(ANSWER)), place.env()) as terminal:
        terminal.expect("started")
        talk(terminal, "first")
        terminal.send("\x1a")
        talk(terminal, "awake")
        terminal.send("\x04")
        assert terminal.status() == 9


def test_script_records_a_terminal_inside(place, app):
    said = place.sh(app, "script -qec 'tty; stty rows 7 cols 9; stty size' record </dev/null; cat record")
    assert "/dev/pts/" in said
    assert "7 9" in said


# Over the tree with one id tmux cannot be installed: see test_apt_with_one_id.
@pytest.mark.network
@pytest.mark.parametrize(
    "place",
    [
        pytest.param(name, marks=pytest.mark.long if name == "plain-debian" else ())
        for name in PLACES
        if name != "single-debian"
    ],
    indirect=True,
)
def test_tmux(place):
    app = place.tools()
    with Terminal(place.argv("app", app, "--", "tmux", "-f", "/dev/null", "new"), place.env()) as terminal:
        terminal.line("cd; echo a''live in $(tty) > tmux-was-here; tmux wait-for -S do''ne; e''xit 3")
        terminal.expect(r"\[exited\]")
        assert terminal.status() == 0
    assert place.sh(app, "cat tmux-was-here").startswith("alive in /dev/pts/")
    place("reset", "-y", "--path", "/**/tmux-was-here", app)
