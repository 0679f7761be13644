"""The plan: what is no plan is refused, whatever its bytes; what a real one says can be read."""

from __future__ import annotations

import contextlib
import os
import pathlib
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layerrun.native.launch import Failure, Start, check_plan, run_plan
from layerrun.runtime.plan import Plan

HERE = pathlib.Path(__file__).parent
WORDS = (
    "layerrun-plan 1 userns range uidmap 0 524288 65536 gidmap 0 524288 65536 identity 0 0 namespace net "
    "hostname box data /store/data overlay / upper work/0 userxattr lower /base idmap,ro lower /skeleton idmap "
    "overlay /home upper/home work/1 try lower /home idmap bind /share /mnt rec,nosuid tmpfs /tmp 1777 noexec "
    "dir /tmp/d 0755 file /tmp/f 0644 symlink text /tmp/l proc /proc dev /dev mask /proc/keys try "
    "readonly /proc/sys try own /tmp/d sysctl user/max_user_namespaces 0 groups 5,10 "
    "caps 800404fb "
    "ambient 400 landlock abstract-sockets,signals no_new_privs seccomp default keepenv LC_* env A=b cwd /root "
    "umask 022 cgroup /sys/fs/cgroup layerrun-1 notify arg true end"
).split()


def plan(words=WORDS):
    return b"".join(os.fsencode(word) + b"\0" for word in words)


def without(name, count):
    at = WORDS.index(name)
    return WORDS[:at] + WORDS[at + 1 + count :]


def with_op(*words):
    return [*WORDS[:-1], *words, "end"]


def changed(old, new):
    at = WORDS.index(old[0])
    assert WORDS[at : at + len(old)] == list(old)
    return [*WORDS[:at], *new, *WORDS[at + len(old) :]]


def tolerated(data):
    """Accepted or refused: either is an answer."""
    with contextlib.suppress(Failure):
        check_plan(data)


def refused(data):
    with pytest.raises(Failure) as caught:
        check_plan(data)
    failure = caught.value
    assert failure.step.startswith("read the plan"), failure
    assert failure.code in {22, 93, 7}, failure  # EINVAL, EPROTONOSUPPORT, E2BIG
    return failure


def test_a_plan_is_accepted():
    check_plan(plan())


@given(st.integers(0, len(plan()) - 1))
def test_every_truncation_is_refused(length):
    refused(plan()[:length])


@given(st.integers(0, len(WORDS) - 1))
def test_every_cut_between_words_is_refused(count):
    refused(plan(WORDS[:count]))


@given(st.binary(max_size=2000))
@example(b"")
@example(b"\0")
@example(b"end\0")
@example(b"layerrun-plan\0" + b"1\0" + b"end\0")
def test_noise_is_refused(data):
    refused(data)


@settings(max_examples=500)
@given(st.data())
def test_mutated_bytes_never_crash(data):
    found = bytearray(plan())
    for _ in range(data.draw(st.integers(1, 6))):
        found[data.draw(st.integers(0, len(found) - 1))] = data.draw(st.integers(0, 255))
    tolerated(bytes(found))


@settings(max_examples=300)
@given(st.lists(st.sampled_from(sorted(set(WORDS))), max_size=60))
def test_shuffled_words_never_crash(words):
    tolerated(plan(["layerrun-plan", "1", *words, "end"]))


@given(st.integers(2, len(WORDS) - 2))
def test_a_word_less_or_twice_is_refused_or_another_plan(at):
    for words in (WORDS[:at] + WORDS[at + 1 :], WORDS[: at + 1] + WORDS[at:]):
        tolerated(plan(words))


@pytest.mark.parametrize("version", ["0", "2", "", "01", "1x", " 1"])
def test_another_version_is_refused(version):
    assert refused(plan(["layerrun-plan", version, *WORDS[2:]])).code == 93


@pytest.mark.parametrize("name", ["", "Proc", "overlayfs", "exec", "end ", "#", "layerrun-plan"])
def test_an_unknown_operation_is_named(name):
    failure = refused(plan(with_op(name, "/x")))
    assert "unknown operation" in failure.step
    assert failure.path == name


@pytest.mark.parametrize(
    "op",
    [
        ("bind", "/a", "/b", "rw"),
        ("bind", "/a", "/b", "ro,suid"),
        ("bind", "/a", "/b", "ro,"),
        ("bind", "/a", "/b", "userxattr"),
        ("mask", "/a", "ro"),
        ("bind", "/a", "/b", ",ro"),
        ("bind", "/a", "relative", ""),
        ("tmpfs", "/a", "0755", "dev"),
        ("tmpfs", "/a", "0789", ""),
        ("tmpfs", "/a", "-1", ""),
        ("tmpfs", "/a", "100000", ""),
        ("tmpfs", "a", "0755", ""),
        ("dir", "a", "0755"),
        ("dir", "/a", ""),
        ("dir", "/a", "rwx"),
        ("file", "/a", "+644"),
        ("symlink", "x", "relative"),
        ("proc", "proc"),
        ("dev", ""),
        ("mask", "x", ""),
        ("mask", "/x", "maybe"),
        ("readonly", "x", ""),
        ("caps", "xyz"),
        ("caps", "0x1"),
        ("caps", "-1"),
        ("caps", "1ffffffffffffffff"),
        ("seccomp", "none"),
        ("namespace", "user"),
        ("namespace", ""),
        ("env", "NOVALUE"),
        ("env", "=x"),
        ("cwd", "here"),
        ("umask", "1000"),
        ("umask", "9"),
        ("identity", "-1", "0"),
        ("identity", "0", "4294967295"),
        ("uidmap", "0", "0", "1"),
        ("uidmap", "1", "0", "1"),
        ("uidmap", "100", "700000", "0"),
        ("uidmap", "a", "b", "c"),
        ("uidmap", "4294967290", "700000", "100"),
        ("uidmap", "100000", "4294967290", "100"),
        ("gidmap", "5", "0", "1"),
        ("userns", "host"),
        ("userns", "none"),
        ("userns", "range"),
        ("caps", "0"),
        ("identity", "0", "0"),
        ("umask", "022"),
        ("hostname", "again"),
        ("notify",),
        ("cgroup", "/sys/fs/cgroup", "again"),
        ("no_new_privs",),
        ("data", "/second"),
        ("lower", "/late", ""),
        ("overlay", "/x", "upper/x", "work/9", ""),
        ("overlay", "x", "upper/x", "work/9", ""),
    ],
)
def test_a_bad_operation_is_refused_with_its_number(op):
    failure = refused(plan(with_op(*op)))
    assert failure.op >= 0


@pytest.mark.parametrize(
    ("mount", "name"), [("cgroup", "x"), ("/", ""), ("/", "a/b"), ("/", ".."), ("/", "."), ("/", ".x")]
)
def test_a_bad_control_group_is_refused(mount, name):
    refused(plan(changed(["cgroup", "/sys/fs/cgroup", "layerrun-1"], ["cgroup", mount, name])))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            [w for w in changed(["userns", "range"], ["userns", "self"]) if w != "no_new_privs"],
            "no_new_privs",
        ),
        (changed(["userns", "range"], ["userns", "none"]), "bad argument"),
        (changed(["ambient", "400"], ["ambient", "200000"]), "ambient"),
        (changed(["groups", "5,10"], ["groups", "5,-1"]), "bad argument"),
        (changed(["landlock", "abstract-sockets,signals"], ["landlock", "signals,"]), "bad argument"),
        (changed(["seccomp", "default"], ["seccomp", "bpf:0600000000"]), "bad argument"),
        (changed(["seccomp", "default"], ["seccomp", "bpf:060000000000FF7F"]), "bad argument"),
        (without("data", 1), "data"),
        (without("userns", 1), "userns"),
        (without("caps", 1), "caps"),
        (without("seccomp", 1), "seccomp"),
        (changed(["overlay", "/"], ["overlay", "/x"]), "first mount"),
        (changed(["lower", "/base", "idmap,ro", "lower", "/skeleton", "idmap"], []), "without a lower"),
        (changed(["userns", "range"], ["tmpfs", "/", "0755", "", "userns", "range"]), "begin with userns"),
        (changed(["data"], ["tmpfs", "/x", "0755", "", "data"]), "first mount"),
        (changed(["end"], ["end", "end"]), "follows its end"),
        (changed(["end"], ["end", ""]), "follows its end"),
        (changed(["end"], []), "cut off"),
    ],
)
def test_a_plan_that_lacks_something_is_refused(words, why):
    failure = refused(plan(words))
    assert why in f"{failure.step} {failure.path}"


def test_too_many_operations_are_refused():
    words = [*WORDS[:-1], *(["env", "A=b"] * 9000), "end"]
    assert "too" in refused(plan(words)).step


def test_a_refused_plan_runs_nothing(folder):
    words = changed(["arg", "true"], ["arg", "touch", "arg", f"{folder}/made", "arg"])
    with pytest.raises(Failure):
        run_plan(Start(plan(words), argv=None, environ={}))
    assert os.listdir(folder) == []


def test_a_word_with_a_nul_is_refused():
    made = Plan()
    made.add("arg", "a\0b")
    with pytest.raises(ValueError):
        made.to_bytes()


def test_odd_bytes_pass_through():
    made = Plan()
    for word in ("\udcff\n\t ", "", "ä", "'\"\\"):
        made.add("arg", word)
    words = made.to_bytes().split(b"\0")
    assert words[3:10:2] == [b"\xff\n\t ", b"", "ä".encode(), b"'\"\\"]


def readable(text, *replacements):
    for old, new in replacements:
        text = text.replace(old, new)
    text = re.sub(r"apps/[0-9a-f]{16}", "apps/ID", text)
    text = re.sub(r"^cgroup .*\n", "", text, flags=re.MULTILINE)  # not every machine has them
    text = re.sub(r"bases/[0-9a-f]{16}", "bases/ID", text)
    return re.sub(r"skeletons/[0-9a-f]{64}", "skeletons/DIGEST", text)


def test_the_plan_of_an_app_can_be_read(layerrun, tree, who):
    """What the files beside this test say is what is started, operation by operation."""
    store = layerrun.store(who)
    layerrun("base", "import", "small", tree(who), user=who, check=0)
    layerrun(
        "create", "web", "--base", "small", "--share", "/usr/share:/mnt/share:ro", "--hide", "/etc/secret",
        "--home", "fresh", "--network", "none", "-e", "COLOUR=blue", "--", "httpd", "-f", "a b", user=who, check=0,
    )  # fmt: skip
    found = layerrun("plan", "web", user=who, check=0).out
    found = readable(found, (store, "STORE"))
    if who:
        found = re.sub(rf"^([ug]idmap 0) {who.uid} 1$", r"\1 CALLER 1", found, flags=re.MULTILINE)
        found = re.sub(r"^([ug]idmap 1) \d+ \d+$", r"\1 SUBORDINATE IDS", found, flags=re.MULTILINE)
    golden = HERE / "plans" / f"{who.kind if who else 'root'}.txt"
    if os.environ.get("WRITE_GOLDEN"):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(found)
    assert found == golden.read_text()


def test_a_plan_is_the_same_each_time(layerrun, either):
    layerrun("create", "web", user=either, check=0)
    assert layerrun("plan", "web", user=either).out == layerrun("plan", "web", user=either).out
