"""Apps with limits, for root and for plain users."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from support import reach, users
from support.whose import whose

_MAKE = """
import json, sys
from layerrun.model import AppConfig
from layerrun.policy import Policy
from layerrun.runtime import identity, limits
from layerrun.store.store import Store
name, policy, more = json.loads(sys.argv[1])
with Store.open() as store:
    ids = identity.choose(store.base("host"), user_namespace=not more.pop("no_userns", False))
    app = store.create_app(name, AppConfig(policy=Policy.from_json(policy), **more), ids=ids)
    print(json.dumps([[h.name, h.by] for h in limits.held(app, store.app_dir(app))]))
"""


@pytest.fixture(params=["root", users.PLAIN, users.SINGLE])
def anybody(request):
    """Root (``None``), and each kind of plain user."""
    return whose(request.param)


@pytest.fixture
def make(layerrun):
    """Make an app over the host: ``make("web", user, limits=[...], max_size=...)`` returns by what limits are held."""

    def make(name, user=None, *, home="overlay", no_userns=False, check=True, **policy):

        words = [sys.executable, "-c", _MAKE]
        request = json.dumps([name, policy, {"home": home, "no_userns": no_userns}])
        argv = (user.prefix() + reach.translate(words) if user else words) + [request]
        done = subprocess.run(
            argv, env=layerrun.env(user), cwd="/", capture_output=True, text=True, timeout=60, check=False
        )
        if not check:
            return done
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    return make
