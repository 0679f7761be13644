"""Pulls that are cut, killed, fed with damage, or have somebody clean up beside them."""

import os
import subprocess

import pytest
from support.pushed import make_app, pushed, shown
from support.registries import Fault, proxy
from support.stores import check_whole, die_at_line

from layerrun.fleet import layers, pull
from layerrun.fleet.pull import Wish, pull_app
from layerrun.images.transport import Access
from layerrun.store.freezing import drop_unused
from layerrun.store.store import Store


def test_a_pull_that_was_cut_goes_on_at_the_next_command(layerrun, host, tree):
    with open(f"{tree}/big", "wb") as file:
        file.write(os.urandom(1 << 20))
    layerrun("base", "import", "small", tree, check=0)
    layer = pushed(layerrun, "base", "push", "small", f"oci://{host}/cut")["layers"][0]
    blob = f"GET .*/blobs/{layer}"
    with proxy(host, Fault(blob, cut=300_000), Fault(blob, status=404, times=99)) as (other, seen):
        said = layerrun("base", "pull", "back", f"oci://{other}/cut", "--insecure")
        assert said.rc == 6, said.err
    assert os.stat(f"{layerrun.store()}/blobs/partial/{layer[7:]}").st_size == 300_000
    assert "cut short" in layerrun("gc", "--all", "--dry-run", check=0).out
    with proxy(host) as (other, seen):
        layerrun("base", "pull", "back", f"oci://{other}/cut", "--insecure", check=0)
        ranges = [headers.get("Range") for line, headers in seen if layer in line and line.startswith("GET")]
        assert ranges == ["bytes=300000-"]
    assert shown(layerrun, "back")["digest"] == shown(layerrun, "small")["digest"]


def test_what_is_corrupted_on_the_way_leaves_nothing(layerrun, host, tree):
    layerrun("base", "import", "small", tree, check=0)
    layer = pushed(layerrun, "base", "push", "small", f"oci://{host}/corrupt")["layers"][0]
    with proxy(host, Fault(f"GET .*/blobs/{layer}", corrupt=5000, times=9)) as (other, _):
        said = layerrun("base", "pull", "back", f"oci://{other}/corrupt", "--insecure")
        assert said.rc == 1
        assert "something else than" in said.err
    layerrun("base", "show", "back", check=6)
    assert os.listdir(f"{layerrun.store()}/staging") == []


def test_who_cleans_up_takes_no_layer_of_a_pull(layerrun, host, tree, store_path, monkeypatch):
    layerrun("base", "import", "small", tree, check=0)
    make_app(layerrun, "small")
    pushed(layerrun, "push", "web", f"oci://{host}/cleaned")
    real, dropped = layers._privileged, []
    wish = Wish(access=Access(insecure=True))
    path = f"{store_path}-other"

    def meanwhile(store, layer):
        with Store.open(path) as other:
            dropped.append(drop_unused(other))
        return real(store, layer)

    monkeypatch.setattr(layers, "_privileged", meanwhile)
    with Store.open(path) as store:
        assert pull_app(store, "web", f"oci://{host}/cleaned", wish).app.config.layers
        assert dropped == [[]]
        monkeypatch.setattr(pull, "_create", lambda *_: 1 / 0)
    with Store.open(f"{path}-2") as store:
        path = f"{path}-2"
        with pytest.raises(ZeroDivisionError):
            pull_app(store, "web", f"oci://{host}/cleaned", wish)
        assert os.listdir(f"{path}/layers") == []


@pytest.mark.long
def test_killed_at_any_line_a_pull_leaves_nothing_half_done(layerrun, host, tree, store_path):
    layerrun("base", "import", "small", tree, check=0)
    make_app(layerrun, "small")
    pushed(layerrun, "push", "web", f"oci://{host}/killed")
    path = f"{store_path}-other"
    wish = Wish(access=Access(insecure=True))
    number = 1
    while True:
        with Store.open(path):
            pass

        def pull():
            with Store.open(path) as store:
                pull_app(store, "web", f"oci://{host}/killed", wish)

        if not die_at_line(number, pull):
            break
        with Store.open(path) as store:
            names = [app.name for app in store.apps()]
        assert names in ([], ["web"])
        number += 97
        subprocess.run(["rm", "-rf", path], check=True)
    check_whole(path)


def test_a_blob_that_is_damaged_here_is_read_again(layerrun, host, tree):
    with open(f"{tree}/big", "wb") as file:
        file.write(os.urandom(1 << 16))
    layerrun("base", "import", "small", tree, check=0)
    layer = pushed(layerrun, "base", "push", "small", f"oci://{host}/torn")["layers"][0]
    blobs = f"{layerrun.store()}/blobs"
    os.makedirs(f"{blobs}/partial")
    with open(f"{blobs}/{layer[7:]}", "wb") as file:
        file.write(bytes(1 << 10))  # as a power loss may leave it
    said = layerrun("base", "pull", "back", f"oci://{host}/torn", "--insecure")
    assert said.rc == 1, said.err
    layerrun("base", "pull", "back", f"oci://{host}/torn", "--insecure", check=0)
