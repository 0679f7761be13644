"""One layer of many: it shows the same, whoever runs meanwhile."""

import json
import os
import subprocess

import pytest
from support import users
from support.whose import whose


@pytest.fixture(params=["root", users.PLAIN])
def who(request):
    return whose(request.param)


# What each layer does to the one before: files, folders, links, each becoming another, and names of any bytes.
STEPS = [
    "mkdir -p d/deep e f g; echo 1 >d/a; echo 1 >d/deep/x; echo 1 >e/a; echo 1 >f/a; ln d/a d/b; ln -s d l; mkfifo p",
    "rm -r e; mkdir e; echo 2 >e/b; rm d/deep/x; echo 2 >d/c; chmod 700 d; rm -r g",
    "rm -r f; echo 3 >f; rm l; mkdir l; echo 3 >l/in; rm d/b; ln d/a d/again; mkdir g; echo 3 >g/back",
    "rm f; mkdir f; echo 4 >f/new; rm p; echo 4 >p; rm -r d/deep; touch -d @1000 d",
    "echo x >\"$(printf 'o\\377\\nz')\"",
    "mkdir 'with space'; echo 5 >'with space/x'; rm -r l; ln -s nowhere l; setfattr -n user.k -v v e",
]
LOOK = (
    "cd ~ && find . -mindepth 1 -printf '%p|%y|%m|%U|%s|%l|%T@\\n' | LC_ALL=C sort;"
    " find . -type f -exec cat {} + | sort; getfattr -d e"
)


def test_it_shows_the_same(layerrun, who):
    layerrun("create", "web", "--home", "fresh", user=who, check=0)

    def sh(line):
        return layerrun("app", "web", "--", "sh", "-c", line, user=who, check=0).out

    for step in STEPS:
        sh(f"cd ~ && {step}")
        layerrun("snapshot", "web", user=who, check=0)
    sh("cd ~; rm -r g; echo 6 >six")
    before = sh(LOOK)
    layerrun("squash", "web", user=who, check=0)
    assert sh(LOOK) == before
    history = json.loads(layerrun("history", "web", "--json", user=who, check=0).out)["snapshots"]
    assert [one["layers"] for one in history] == [1, 2, 3, 4, 5, 1]
    layerrun("rollback", "web", "2", user=who, check=0)
    assert sh("cd ~; cat e/b d/c; ls d/deep; test -e g || echo gone; stat -c %a d").split() == [
        "2",
        "2",
        "gone",
        "700",
    ]


def test_while_it_runs(layerrun, who):
    def sh(line):
        return layerrun("app", "web", "--", "sh", "-c", line, user=who, check=0).out

    layers = os.path.join(layerrun.store(who), "layers")
    for number in range(4):
        sh(f"mkdir -p ~/d; echo {number} >~/d/{number}")
        layerrun("snapshot", "web", user=who, check=0)
    for number in (1, 2, 3):
        layerrun("forget", f"web:{number}", user=who, check=0)
    words = layerrun.argv("app", "web", "--", "sh", "-c", "echo ready; read x; cat ~/d/*", user=who)
    runs = subprocess.Popen(
        words, env=layerrun.env(who), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert runs.stdout.readline() == "ready\n"
        sh("echo joined >~/joined")
        layerrun("squash", "web", user=who, check=0)
        assert len(os.listdir(layers)) == 5  # those that it has mounted stay
        layerrun("list", user=who, check=0)
        assert len(os.listdir(layers)) == 5
        assert runs.communicate("\n", timeout=60)[0].split() == ["0", "1", "2", "3"]
    finally:
        runs.kill()
        runs.wait()
    layerrun("list", user=who, check=0)
    assert len(os.listdir(layers)) == 1
    assert sh("cat ~/d/* ~/joined").split() == ["0", "1", "2", "3", "joined"]


@pytest.mark.long
def test_a_layer_of_400_becomes_one_of_1(layerrun):
    who = whose("root")
    from layerrun import Store
    from layerrun.runtime import snapshots, squash
    from layerrun.store.store import Store as Opened

    store = Store(layerrun.store(who))
    app = store.create("web", home="fresh")
    squash.DEEP, was = 500, squash.DEEP
    try:
        with Opened.open(layerrun.store(who)) as opened:
            for number in range(399):
                data = opened.open_data(opened.app("web"), "home")
                with open(f"/proc/self/fd/{data}/{number}", "w") as file:
                    file.write(str(number))
                os.close(data)
                snapshots.snapshot(opened, opened.app("web"))
            assert len(opened.app("web").stack) == 399
            assert app.run(["sh", "-c", "ls ~ | wc -l"], capture_output=True).stdout.split() == [b"399"]
            assert squash.squash(opened, opened.app("web")) == 398
            assert len(opened.app("web").stack) == 1
            assert app.run(["sh", "-c", "ls ~ | wc -l"], capture_output=True).stdout.split() == [b"399"]
    finally:
        squash.DEEP = was
