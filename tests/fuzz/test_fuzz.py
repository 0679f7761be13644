"""What reads bytes that somebody else may have written, under a fuzzer that watches which branches are taken.

Bytes that once broke something stand in ``found/``, by the name of their target, and are tried first.
"""

from __future__ import annotations

import os
import re
import subprocess
import types

import pytest

from layerrun.native.launch import Start
from layerrun.runtime.handoff import Door

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SOURCES = {
    "plan": ["plan", "environ", "error", "seccomp", "landlock"],
    "stored": ["stored", "plan", "error", "seccomp", "landlock"],
    "handoff": ["handoff", "plan", "error", "seccomp", "landlock"],
    "options": ["options"],
    "expand": ["expand"],
    "tar": ["tar", "tar_io", "tar_parts", "tar_path", "tar_pax", "tar_sparse", "names", "error"],
}
FLAGS = (
    "-g -O1 -std=gnu11 -D_GNU_SOURCE -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all".split()
)

pytestmark = [pytest.mark.fuzzer, pytest.mark.root, pytest.mark.idmap]


@pytest.fixture(scope="module", params=SOURCES)
def target(request, tmp_path_factory):
    """A name and the program that fuzzes it."""
    program = tmp_path_factory.mktemp("fuzz") / request.param
    sources = [f"{ROOT}/csrc/{name}.c" for name in SOURCES[request.param]]
    argv = ["clang", *FLAGS, f"-I{ROOT}/csrc", "-o", program, f"{HERE}/{request.param}.c", *sources]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return request.param, str(program)


def words():
    """The words that a plan and its head consist of, from the sources themselves."""
    found = set()
    for name in ("plan", "stored", "handoff", "options", "tar_pax"):
        with open(f"{ROOT}/csrc/{name}.c") as file:
            found |= set(re.findall(r'"([\w-]+)"', file.read()))
    return sorted(found)


LINES = [
    b"web\0--\0true\0x\0",
    b"-e\0A=b\0--env=C=d\0-eE=\0web@work\0--cwd\0/x\0--status-fd=3\0-d\0sh\0",
    b"web\0--profile\0work\0--cwd=/\0--env\0A=b\0--status-fd\012\0--detach\0",
]


def handed(plan):
    """Return starts of a plan, with and without everything that can be asked for."""
    app = types.SimpleNamespace(id="0123456789abcdef", name="web")
    full = Start(
        plan,
        argv=[b"sh", b"-c", b"echo"],
        environ={},
        env=[b"A=b", b"C="],
        cwd=b"/x",
        cwd_must=True,
        lock_fd=5,
        app_fd=6,
        stay=True,
        status_fd=1,
        detach=True,
        keep=[7, 8],
        net_fd=9,
    )
    after = Door("x", (), after="throwaway", uppers={"/x": "1:2"})
    return [
        after._words_of(full, app, None),
        Door("x", (), created="0")._words_of(Start(plan, argv=None, environ={}), app, 1.5),
    ]


def archives(folder):
    """Small archives of all forms; the byte before each says whether it is a layer."""
    top = f"{folder}/tree"
    os.makedirs(f"{top}/usr/bin")
    with open(f"{top}/usr/holes", "wb") as file:
        for offset in (0, 1 << 17, 1 << 18):
            file.seek(offset)
            file.write(b"data")
        file.truncate(1 << 19)
    os.link(f"{top}/usr/holes", f"{top}/usr/twin")
    os.symlink("l" * 120, f"{top}/usr/link")
    for name in (".wh.gone", ".wh..wh..opq", "n" * 120):
        with open(f"{top}/usr/bin/{name}", "wb"):
            pass
    os.setxattr(f"{top}/usr", "user.mark", b"a=\n")
    for form in (
        "--format=gnu -S",
        "--format=ustar",
        "--format=posix -S --sparse-version=0.0 --xattrs",
        "--format=posix -S --sparse-version=0.1",
        "--format=posix -S --sparse-version=1.0 --pax-option=globexthdr.name=x,comment=y",
        "libarchive",
    ):
        words = ["tar", "-c", *form.split(), "-b1", "--numeric-owner", "."]
        if form == "libarchive":
            words = ["bsdtar", "-c", "--format", "pax", "--xattrs", "-f", "-", "."]
        data = subprocess.run(words, cwd=top, capture_output=True).stdout
        yield b"\0" + data
        yield b"\1" + data


def blocks(folder):
    """Blocks of LZ4 and LZO, as mksquashfs makes them; the bytes before each say how and how much to unpack."""
    for kind, how in (("lz4", 8), ("lzo", 9)):
        path = f"{folder}/{kind}"
        argv = ["mksquashfs", f"{folder}/tree", path, "-comp", kind, "-noI", "-noF", "-noX", "-b", "16K"]
        subprocess.run([*argv, "-no-fragments", "-noappend"], check=True, capture_output=True)
        with open(path, "rb") as file:
            yield bytes([how, 255]) + file.read()[96:5000]


@pytest.fixture
def seeds(layerrun, folder, plain_user, single_user, store_path):
    """Real plans: of root and of plain users, over the host, with and without everything that can be asked for."""
    options = (
        "--share /usr/share:/srv/x:ro --hide /etc/ssh --home fresh --network none -e A=b --command".split()
    )
    for user in (None, plain_user, single_user):
        layerrun("create", "full", *options, "true", user=user, check=0)
        layerrun("app", "plain", "--", "true", user=user, check=0)
        layerrun("app", "full", user=user, check=0)
    made = {"plan": [], "stored": [], "handoff": [], "options": LINES, "tar": list(archives(folder))}
    with open(f"{folder}/tree/usr/text", "w") as file:
        file.write("".join(f"{number} {number * number}, " for number in range(9000)))
    made["expand"] = list(blocks(folder))
    for store in (store_path, layerrun.store(plain_user), layerrun.store(single_user)):
        for name in ("full", "plain"):
            with open(f"{store}/plans/{name}", "rb") as file:
                # Without the sum, which the target adds.
                stored = file.read()[:-17]
            made["stored"].append(stored)
            made["plan"].append(stored[stored.index(b"layerrun-plan\0") :])
            made["handoff"] += handed(made["plan"][-1])
    for name, plans in made.items():
        os.mkdir(f"{folder}/{name}")
        for number, plan in enumerate(plans):
            with open(f"{folder}/{name}/{number}", "wb") as file:
                file.write(plan)
    with open(f"{folder}/words", "w") as file:
        file.writelines(f'"{word}\\x00"\n' for word in words())
    return folder


def fuzz(target, seeds, seconds):
    name, program = target
    corpus = [f"{seeds}/{name}", *([f"{HERE}/found/{name}"] if os.path.isdir(f"{HERE}/found/{name}") else [])]
    argv = [program, f"-max_total_time={seconds}", "-max_len=32768", "-timeout=10", "-rss_limit_mb=1024"]
    argv += [f"-dict={seeds}/words", f"-artifact_prefix={seeds}/", "-print_final_stats=1", *corpus]
    done = subprocess.run(
        argv, capture_output=True, text=True, errors="replace", cwd=seeds, timeout=seconds + 120
    )
    assert done.returncode == 0, done.stderr[-6000:]
    tried = int(re.search(r"number_of_executed_units: (\d+)", done.stderr)[1])
    # Else it never got past the first word.
    assert tried > 1000
    print(done.stderr[-600:])


def test_for_a_moment(target, seeds):
    fuzz(target, seeds, 2)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_for_long(target, seeds):
    fuzz(target, seeds, 300)
