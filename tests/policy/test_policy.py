"""The policy as data: what the words mean, what it comes to, where each grant comes from, TOML and JSON both ways."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerrun.config.manifest import from_toml, to_toml
from layerrun.errors import UsageError
from layerrun.model import AppConfig, Share
from layerrun.policy import (
    CAPABILITIES,
    DEVICES,
    FEATURES,
    PRESETS,
    RLIMITS,
    SOCKETS,
    Limit,
    Network,
    Policy,
    Publish,
    Socket,
    format_size,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1", 1),
        ("1024", 1024),
        ("1K", 1024),
        ("1.5k", 1536),
        ("64M", 64 << 20),
        ("2GiB", 2 << 30),
        ("1T", 1 << 40),
    ],
)
def test_sizes(text, value):
    assert parse_size(text) == value
    assert parse_size(format_size(value)) == value


@pytest.mark.parametrize("text", ["", "-1", "1X", "M", "1e9", "0x10", "1 M", "1.M", "9" * 20, "１"])
def test_bad_sizes(text):
    with pytest.raises(UsageError):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("80", "80:80"),
        ("8080:80", "8080:80"),
        ("53/udp", "53:53/udp"),
        ("127.0.0.1:8080:80/tcp", "127.0.0.1:8080:80"),
        ("[::1]:8080:80", "[::1]:8080:80"),
    ],
)
def test_ports(text, shown):
    assert str(Publish.parse(text)) == shown
    assert Publish.parse(shown) == Publish.parse(text)


@pytest.mark.parametrize(
    "text", ["", "0", "65536", "80:", ":80", "a", "80/sctp", "1.2.3:80:80", "1.2.3.4.5:80", "80:80:80"]
)
def test_bad_ports(text):
    with pytest.raises(UsageError):
        Publish.parse(text)


@pytest.mark.parametrize(
    "text", ["", "bridge", "link", "link:", "link:UP", "link:../x", "host:x", "none:", "private:1"]
)
def test_bad_networks(text):
    with pytest.raises(UsageError):
        Network.parse(text)


def test_a_link_names_an_app_or_a_profile():
    assert Network.parse("link:db").other == "db"
    assert str(Network.parse("link:db@work")) == "link:db@work"


@pytest.mark.parametrize(
    "text",
    [
        "x12",
        "wayland:talk=a",
        "session-bus:eat=org.x",
        "session-bus:talk=",
        "session-bus:talk=a b",
        "session-bus:talk=a,--own=b",
    ],
)
def test_bad_sockets(text):
    with pytest.raises(UsageError):
        Socket.parse(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("memory=512M", "memory=512M"),
        ("memory=1.5G", "memory=1536M"),
        ("cpu=1.50", "cpu=1.5"),
        ("cpu=.5", None),
        ("pids=100", "pids=100"),
        ("nofile=1024:4096", "nofile=1024:4096"),
        ("core=0:unlimited", "core=0:unlimited"),
        ("core=infinity", "core=unlimited"),
        ("pids=0", None),
        ("pids=1:2", None),
        ("nofile=5:4", None),
        ("nofile", None),
        ("files=5", None),
        ("nofile=-1", None),
    ],
)
def test_limits(text, shown):
    if shown is None:
        with pytest.raises(UsageError):
            Limit.parse(text)
    else:
        assert str(Limit.parse(text)) == shown
        assert Limit.parse(shown) == Limit.parse(text)


@pytest.mark.parametrize(
    "word", ["", "cap:", "cap:all", "syscall:", "syscall:a b", "Nesting", "socket:x11", "device:kvm"]
)
def test_bad_words_to_allow(word):
    with pytest.raises(UsageError):
        Policy(allow=[word])


@pytest.mark.parametrize(
    "device", ["", "null", "/etc/passwd", "/dev/../etc/passwd", "/dev//x", "dev/kvm", "/dev/x\0"]
)
def test_bad_devices(device):
    with pytest.raises(UsageError):
        Policy(devices=[device])


@pytest.mark.parametrize("user", ["", "-", "a b", "a:b:c", "root:", "../x", "x" * 65])
def test_bad_users(user):
    with pytest.raises(UsageError):
        Policy(user=user)


def test_a_port_needs_a_network_of_its_own():
    with pytest.raises(UsageError, match="private"):
        Policy(publish=["80"])
    assert Policy(network="private", publish=["80"]).publish == (Publish(80, 80),)


def test_what_is_denied_is_denied():
    grants = Policy(
        preset="desktop", deny=["socket:x11", "socket:wayland", "device:dri", "cap:chown", "ptrace"]
    ).grants()
    assert "wayland" not in [socket.kind for socket in grants.sockets]
    assert grants.devices == []
    assert not grants.has("ptrace")
    assert not grants.capabilities & 1
    with pytest.raises(UsageError, match="both"):
        Policy(allow=["nesting"], deny=["nesting"])


def test_each_grant_knows_where_it_comes_from():
    grants = Policy(
        preset="service", allow=["nesting", "cap:CAP_NET_RAW"], limits=["pids=5"], network="none"
    ).grants()
    origins = {(grant.kind, grant.value): grant.origin for grant in grants.all}
    assert origins["feature", "nesting"] == "--allow nesting"
    assert origins["capability", "net_raw"] == "--allow cap:net_raw"
    assert origins["capability", "chown"] == "the preset service"
    assert origins["limit", "pids=5"] == "--limit pids=5"
    assert origins["limit", "core=0"] == "the preset service"
    assert origins["network", "none"] == "--network none"
    assert ("limit", "pids=4096") not in origins


def test_the_later_of_two_counts():
    policy = Policy(
        limits=["pids=5", "nofile=9", "pids=7"], sockets=["session-bus:talk=a.b", "session-bus:own=c.d"]
    )
    assert [str(limit) for limit in policy.limits] == ["pids=7", "nofile=9"]
    assert [str(socket) for socket in policy.sockets] == ["session-bus:own=c.d"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_policies(name):
    grants = Policy(preset=name).grants()
    assert {grant.origin for grant in grants.all} == {f"the preset {name}"}
    assert set(grants.of("feature")) <= set(FEATURES)
    assert set(grants.of("capability")) <= set(CAPABILITIES)


def test_strict_is_strict():
    grants = Policy(preset="strict").grants()
    assert grants.network.kind == "none"
    assert (grants.capabilities, grants.of("feature"), grants.sockets, grants.devices) == (0, [], (), [])


RLIMIT = st.builds(
    lambda name, soft, more: f"{name}={soft}:{soft + more}",
    st.sampled_from(sorted(RLIMITS)),
    st.integers(0, 1 << 40),
    st.integers(0, 1 << 40),
)
POLICIES = st.builds(
    Policy,
    preset=st.sampled_from(sorted(PRESETS)),
    network=st.just("private"),
    publish=st.lists(
        st.builds(Publish, st.integers(1, 65535), st.integers(1, 65535), st.sampled_from(["tcp", "udp"]))
    ),
    sockets=st.lists(st.sampled_from([*SOCKETS, "session-bus:talk=org.a.*,own=b.c"])),
    devices=st.lists(st.sampled_from([*DEVICES, "/dev/ttyS0"])),
    allow=st.lists(st.sampled_from(["nesting", "cap:net_raw", "syscall:bpf"])),
    deny=st.lists(st.sampled_from(["ptrace", "cap:chown", "socket:x11", "device:kvm", "syscall:mount"])),
    limits=st.lists(st.one_of(RLIMIT, st.sampled_from(["memory=1G", "cpu=0.125", "pids=max"]))),
    user=st.sampled_from([None, "www-data", "0:0"]),
    max_size=st.one_of(st.none(), st.integers(1 << 20, 1 << 50)),
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
PATHS = st.lists(
    TEXT.map(lambda text: "/" + text.replace("/", "")).filter(lambda p: p not in ("/", "/.", "/.."))
)


@given(
    st.builds(
        AppConfig,
        command=st.lists(TEXT).map(tuple),
        env=st.lists(TEXT.map("A={}".format)).map(tuple),
        shares=PATHS.map(lambda paths: tuple(Share(source=path, target=path) for path in paths)),
        hides=PATHS.map(tuple),
        policy=POLICIES,
    )
)
def test_both_ways(config):
    assert AppConfig.from_json(config.to_json()) == config
    assert from_toml(to_toml(config)) == config


@pytest.mark.parametrize(("network", "asked"), [("host", None), ("none", Network.parse("none"))])
def test_what_was_stored_before_there_were_policies(network, asked):
    data = AppConfig(hides=("/srv",)).to_json() | {"network": network}
    del data["policy"]
    assert AppConfig.from_json(data) == AppConfig(hides=("/srv",), policy=Policy(network=asked))


def test_a_name_that_is_no_unicode_cannot_be_toml():
    with pytest.raises(UsageError, match="UTF-8"):
        to_toml(AppConfig(command=("\udcff",)))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("base = ", "TOML"),
        ("bse = 'x'", "unknown keys: bse"),
        ("base = 3", "base"),
        ("base = '../x'", "base"),
        ("command = 'ls'", "command"),
        ("command = [1]", "command"),
        ('command = ["a\\u0000"]', "TOML|command"),
        ("home = 'x'", "home|Home"),
        ("shares = ['relative']", "absolute"),
        ("policy = 3", "table"),
        ("[policy]\npreset = 'loose'", "preset"),
        ("[policy]\nnetwork = ['none']", "network"),
        ("[policy]\nlimits = ['pids=3']", "table"),
        ("[policy.limits]\nfiles = 3", "limit"),
        ("[policy]\nmax-size = '1'", "1M"),
    ],
)
def test_bad_manifests(text, why):
    with pytest.raises(UsageError, match=why):
        from_toml(text)


def test_an_empty_manifest_is_an_app_like_any_other():
    assert from_toml("") == AppConfig()
    assert from_toml("[policy.limits]\npids = 7").policy == attrs.evolve(Policy(), limits=["pids=7"])
