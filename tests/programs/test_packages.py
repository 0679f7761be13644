"""A package manager changes an app, and only the app."""

from __future__ import annotations

import subprocess
import time
import urllib.request

import pytest

pytestmark = pytest.mark.network
# The tools of other tests come by apt over root-debian.
ROOTED = ["root-host", pytest.param("root-debian", marks=pytest.mark.long), "plain-debian"]


def serve(place, app, port):
    """Run mini-httpd in the app, get a page from it, stop it."""
    place.sh(app, "mkdir -p /srv/site && echo 'from the app' > /srv/site/index.html")
    argv = place.argv("app", app, "--", "mini_httpd", "-D", "-p", port, "-h", "127.0.0.1", "-d", "/srv/site")
    server = subprocess.Popen(argv, env=place.env(), cwd="/", stderr=subprocess.PIPE, text=True)
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=60) as page:
                    return page.read().decode()
            except OSError:
                assert server.poll() is None, server.stderr.read()
                time.sleep(0.02)  # not there yet
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()


@pytest.mark.parametrize("place", ROOTED, indirect=True)
def test_apt_installs_what_runs_and_is_reset(place, free_port):
    app = place.create()
    before = place.sh(app, "dpkg -s mini-httpd cron 2>&1 || true; getent group crontab || true")
    said = place.install(app, "cron mini-httpd")
    assert "Setting up mini-httpd" in said
    # What maintainer scripts did: a group, a spool that belongs to it, links of the init system.
    assert place.sh(app, "dpkg -s cron | grep ^Status").strip() == "Status: install ok installed"
    assert place.sh(app, "stat -c %G:%a /var/spool/cron/crontabs").strip() == "crontab:1730"
    assert place.sh(app, "ls -l /usr/bin/crontab")[:10] == "-rwxr-sr-x"
    assert place.sh(app, "echo '0 0 1 1 * true' | crontab - && crontab -l").strip() == "0 0 1 1 * true"
    assert place.sh(app, "dpkg --audit") == ""
    assert serve(place, app, free_port) == "from the app\n"
    changed = place("diff", app).stdout
    assert "/usr/sbin/mini_httpd" in changed
    assert "/etc/group\n" in changed
    place.sh(app, place.apt("purge mini-httpd 2>&1"))
    place("app", app, "--", "test", "-e", "/usr/sbin/mini_httpd", check=1)
    place("reset", "-y", app)
    assert place.sh(app, "dpkg -s mini-httpd cron 2>&1 || true; getent group crontab || true") == before
    assert place("diff", app).stdout == ""
    if place.base != "host":
        place("base", "verify", place.base)
    place("remove", "-y", app)


@pytest.mark.parametrize("place", ["single-debian"], indirect=True)
def test_apt_with_one_id(place):
    app = place.create()
    # As it comes, apt wants to become _apt, who is not there.
    done = place("app", app, "--", "apt-get", "update", check=100)
    assert "setgroups" in done.stderr
    # Told not to, it installs what wants no other owner …
    assert "Setting up mini-httpd" in place.install(app, "mini-httpd")
    assert "mini_httpd" in place("app", app, "--", "mini_httpd", "-V").stdout
    # … and what does says so, and can be repaired.
    said = place.sh(app, f"{place.apt('install cron')} 2>&1", check=100)
    assert "chown: changing ownership of '/var/spool/cron/crontabs': Invalid argument" in said
    assert "cron-daemon-common" in place.sh(app, "dpkg --audit")
    place.sh(app, f"{place.apt('purge cron cron-daemon-common')} 2>&1")
    assert place.sh(app, "dpkg --audit") == ""
    said = place.sh(app, f"{place.apt('install libutempter0')} 2>&1", check=100)
    assert (
        "error setting ownership of './usr/lib/x86_64-linux-gnu/utempter/utempter': Invalid argument" in said
    )
    place("reset", "-y", app)
    place("app", app, "--", "dpkg", "-s", "mini-httpd", check=1)
    place("remove", "-y", app)


@pytest.mark.parametrize("place", ["plain-host", "single-host"], indirect=True)
def test_apt_over_the_host_needs_root(place):
    app = place.create()
    done = place("app", app, "--", "apt-get", "update", check=100)
    assert "Permission denied" in done.stderr
    assert place("diff", app).stdout == ""
    place("remove", "-y", app)
