"""Images that nobody vouches for (checks 41, 44, 46): layers reach nothing outside, and are what digests say."""

from __future__ import annotations

import os
import shutil

import pytest
from support.archives import END, header, padded, write_layout

EMPTY = {"bases": [], "staging": [], "trash": []}


@pytest.fixture
def image(layerrun, user_folder, folder):
    """Import an image of layers, and see that it is refused and nothing stays of it: ``image(who, said, layers)``."""

    def run(who, said, layers, change=None, **wrong):
        top = f"{user_folder(who) if who else folder}/image"
        digests = write_layout(top, [data + END for data in layers], **wrong)
        if change:
            change(top, digests)
        os.system(f"chmod -R a+rX {top}")
        done = layerrun("base", "import", "b", top, user=who)
        shutil.rmtree(top)
        if said is None:
            layerrun("base", "remove", "-y", "b", user=who)
            return
        assert done.rc == 1, done
        assert said in done.err, done.err
        assert "Traceback" not in done.err
        store = layerrun.store(who)
        assert {name: os.listdir(f"{store}/{name}") for name in EMPTY} == EMPTY

    return run


ROOT = header(b"usr/", b"5") + header(b"usr/x")


def test_hostile_layers(image, decoy, who):
    """A link of one layer is no way out for the next."""
    outside = os.fsencode(decoy(who).path)
    link = header(b"a", b"2", link=outside)
    cases = (
        ("behind a link", ROOT + link, header(b"a/new", size=1) + padded(b"x")),
        # There is nothing there that they could take away.
        (None, ROOT + link, header(b"a/.wh.file")),
        (None, ROOT + link, header(b"a/.wh..wh..opq")),
        ("behind a link", ROOT + link, header(b"h", b"1", link=b"a/file")),
        ("no file", ROOT + link, header(b"h", b"1", link=b"a")),
        ("leads elsewhere", ROOT, header(b"/.." + outside + b"/new")),
        ("no name", ROOT, header(b"usr/.wh...")),
        ("root", ROOT, header(b"./", b"2", link=outside)),
    )
    # As root all; each takes half a second.
    for said, lower, upper in cases if who is None else cases[::3]:
        image(who, said, [lower, upper])


def test_digests(image, who):
    def cut(top, digests):
        os.truncate(f"{top}/blobs/sha256/{digests[0].partition(':')[2]}", 40)

    def flip(top, digests):
        path = f"{top}/blobs/sha256/{digests[0].partition(':')[2]}"
        with open(path, "r+b") as file:
            file.seek(12)
            byte = file.read(1)
            file.seek(12)
            file.write(bytes([byte[0] ^ 1]))

    image(who, "layer", [ROOT], change=cut)
    if who is None:
        image(who, "", [ROOT], change=flip)
    image(who, "expected", [ROOT, header(b"y")], diff_ids=["sha256:" + "0" * 64] * 2)
    if who is None:
        image(who, "", [ROOT], named="sha256:" + "0" * 64)
        image(who, "", [ROOT], named="sha256:../../../etc/passwd")
        image(who, "128", [ROOT], count=10_000)
