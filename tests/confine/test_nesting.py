"""Programs that build sandboxes of their own: Chromium's own sandbox, bubblewrap, with --allow nesting."""

from __future__ import annotations

import pytest
from support import probes, users

# As root's app has a range of ids, Chromium runs as one that is not root, which it refuses to be with a sandbox.
PAGE = "data:text/html,<p id=x>hello</p><script>x.textContent=6*7</script>"
BROWSE = """
mkdir -p /tmp/home && cd /tmp && if test $(id -u) = 0; then
    chown 1000:1000 /tmp/home; as='setpriv --reuid 1000 --regid 1000 --clear-groups'
fi
exec $as env HOME=/tmp/home timeout 60 chromium --headless --disable-gpu --user-data-dir=/tmp/home/p --dump-dom "$1"
"""


@pytest.mark.long
@pytest.mark.parametrize("name", ["root", users.PLAIN])
def test_chromium_with_its_own_sandbox(layerrun, name):
    probes.need("rootless")
    user = None if name == "root" else users.ensure(name)
    layerrun("create", "a", "--allow", "nesting", user=user, check=0)
    done = layerrun("app", "a", "--", "sh", "-c", BROWSE, "sh", PAGE, user=user)
    assert '<p id="x">42</p>' in done.out, done.err[-2000:]
    layerrun("create", "b", user=user, check=0)
    done = layerrun("app", "b", "--", "sh", "-c", BROWSE, "sh", PAGE, user=user)
    assert "42" not in done.out
