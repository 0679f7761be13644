"""Layers that were built share files with bases and with one another."""

import os

from support.stores import check_whole

from layerrun.bases import sharing
from layerrun.bases.intake import publish
from layerrun.model import IdMode
from layerrun.native.intake import sweep_objects
from layerrun.store.store import Store


def test_equal_files_of_two_layers_are_one(store_path, folder):
    with Store.open(store_path) as store:
        found = []
        for number in range(2):
            with store.ticket() as ticket:
                top = f"{store_path}/staging/{ticket.id}/layer/tree"
                os.makedirs(f"{top}/etc")
                files = {"same": b"same" * 1000, "other": b"%d" % number, ".layerrun-share": b"kept"}
                for name, data in files.items():
                    with open(f"{top}/etc/{name}", "wb") as file:
                        file.write(data)
                    os.utime(f"{top}/etc/{name}", (5, 5))
                os.setxattr(f"{top}/etc/other", "user.x", b"1")
                os.link(f"{top}/etc/other", f"{top}/etc/linked")
                os.mknod(f"{top}/gone", 0o20000, 0)
                os.utime(f"{top}/etc", (7, 7))
                sharing.share_layer(store, ticket.fd, "layer/tree", IdMode.RANGE)
                assert os.stat(f"{top}/etc").st_mtime == 7
                assert sorted(os.listdir(f"{top}/etc")) == [".layerrun-share", "linked", "other", "same"]
                publish(store, ticket.fd)
                found.append((os.stat(f"{top}/etc/same"), os.stat(f"{top}/etc/other")))
                kept = f"{folder}/kept{number}"
                os.rename(f"{store_path}/staging/{ticket.id}/layer", kept)
        assert found[0][0].st_ino == found[1][0].st_ino
        assert found[0][1].st_ino != found[1][1].st_ino
        assert found[1][0].st_nlink == 3
        objects = os.open(f"{store_path}/objects", os.O_RDONLY)
        assert sweep_objects(objects, dry=True)[0] == 0
        os.close(objects)
    check_whole(store_path)
