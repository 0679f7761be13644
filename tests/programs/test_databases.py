"""Databases keep what they were given when they are killed, and nothing when the app is reset."""

from __future__ import annotations

import pytest

SERVED = [
    "root-host",
    pytest.param("root-debian", marks=pytest.mark.long),
    "plain-host",
    pytest.param("plain-debian", marks=pytest.mark.long),
    pytest.param("single-host", marks=pytest.mark.long),
]

# The server dies with kill -9 while the app goes on, and once more, with all of the app, at the end.
POSTGRES = r"""
set -eu
cd /srv/db 2>/dev/null || { mkdir -p ~/db; cd ~/db; }
PATH=/usr/lib/postgresql/15/bin:$PATH
start() { pg_ctl -D data -w -o "-k $PWD -c listen_addresses=" -l log start; }
ask() { psql -h "$PWD" -d postgres -v ON_ERROR_STOP=1 -Atc "$1"; }
case $1 in
make)
    initdb -D data -A trust >/dev/null
    start >/dev/null
    ask "create table t as select n from generate_series(1, 1000) n; insert into t values (-7)" >/dev/null
    server=$(head -n 1 data/postmaster.pid)
    kill -9 "$server"
    while kill -0 "$server" 2>/dev/null; do sleep 0.05; done
    start >/dev/null
    ask "insert into t values (-8)" >/dev/null
    ask "select count(*), sum(n) from t"
    kill -9 "$(head -n 1 data/postmaster.pid)" ;;
look)
    start >/dev/null
    ask "select count(*), sum(n) from t"
    grep -c "automatic recovery in progress" log
    pg_ctl -D data -w stop >/dev/null ;;
esac
"""

REDIS = r"""
set -eu
cd /srv/db 2>/dev/null || { mkdir -p ~/db; cd ~/db; }
start() {
    redis-server --port 0 --unixsocket "$PWD/socket" --dir "$PWD" --appendonly yes --appendfsync always \
        --save "" >>log 2>&1 &
    server=$!
    until redis-cli -s socket ping >/dev/null 2>&1; do kill -0 $server; sleep 0.02; done
}
case $1 in
make)
    start
    redis-cli -s socket set key value >/dev/null
    kill -9 $server
    wait || true
    start
    redis-cli -s socket append key d >/dev/null
    kill -9 $server
    wait || true ;;
look)
    start
    redis-cli -s socket get key
    redis-cli -s socket shutdown ;;
esac
"""


def story(place, app, script, expected):
    """Make data, kill, look at it in later starts of the app, clear it, find nothing and start afresh."""
    # Where there are many ids the server runs as a user of its own, as its package would have it.
    user = "postgres" if place.rooted else None
    step = "cat > /tmp/script"
    step += (
        f"; install -d -o {user} /srv/db; su {user} -s /bin/sh -c 'sh /tmp/script %s'"
        if user
        else "; sh /tmp/script %s"
    )

    def run(what, check=0):
        return place("app", app, "--", "sh", "-euc", step % what, input=script, check=check).stdout

    made = run("make")
    first = run("look")
    assert made in (first[: len(made)], "")
    assert first.splitlines()[0] == expected
    assert run("look").splitlines()[0] == expected
    if place.base == "host":
        place("reset", "-y", app)
    else:
        place("reset", "-y", "--path", "/srv/db", app)  # the server itself was installed into the app
    assert run("look", check=None).strip() != expected
    place("app", app, "--", "sh", "-c", "! cat /srv/db/data/PG_VERSION ~/db/data/PG_VERSION 2>/dev/null")


@pytest.mark.parametrize("place", SERVED, indirect=True)
def test_postgresql(place):
    app = place.servers()
    story(place, app, POSTGRES, "1002|500485")
    place("reset", "-y", "--path", "/**/db", app)


@pytest.mark.parametrize("place", SERVED, indirect=True)
def test_redis(place):
    app = place.servers()
    story(place, app, REDIS, "valued")
    place("reset", "-y", "--path", "/**/db", app)
