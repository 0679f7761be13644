"""A channel that was made by the command line, and a web server that hands it out."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from support.channels import Publisher, Web

from layerrun.fleet import publishing


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Make a channel with the releases one and two of stable, to be copied: keys and signatures take a while."""
    top = tmp_path_factory.mktemp("channel")
    made = Publisher(None, str(top))
    publishing.init(made.path, made.keys)
    for text in ("one", "two"):
        made.publish(text)
    return str(top)


@pytest.fixture
def publisher(layerrun, folder, template):
    """A channel that offers its second release, two."""
    shutil.copytree(template, folder, dirs_exist_ok=True)
    os.chmod(folder, 0o755)
    return Publisher(layerrun, folder)


@pytest.fixture
def web(publisher):
    """A server of the publisher's folder."""
    server = Web(publisher.path)
    yield server
    server.close()


@pytest.fixture
def offers(layerrun):
    """A function that gives what `update --check` says of a base."""

    def ask(name="debian", **options):
        done = layerrun("update", "--check", "--json", name, **options)
        return json.loads(done.out)["bases"][0] if done.rc == 0 else done

    return ask
