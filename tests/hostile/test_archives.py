"""Archives that nobody vouches for (checks 41 to 45): refused as a whole, nothing outside, nothing left behind."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tarfile

import pytest
from support import reach
from support.sandbox import inside_of, wait_for

D, F, L, H = tarfile.DIRTYPE, tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE


def entry(name, kind=F, *, data=b"", link="", mode=0o755, uid=0, gid=0, mtime=0, dev=(0, 0), pax=None):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname, info.mode = kind, len(data), link, mode
    info.uid, info.gid, info.mtime, (info.devmajor, info.devminor) = uid, gid, mtime, dev
    info.pax_headers = pax or {}
    return info, data


def archive(*entries, form=tarfile.PAX_FORMAT):
    """Return a tar archive of a small root file system with these entries behind it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, data in (entry("./", D), entry("usr", D), entry("usr/plain", data=b"plain"), *entries):
            # addfile reads size bytes; a name that tarfile would normalise is kept.
            tar.addfile(info, io.BytesIO(data) if data else None)
    return out.getvalue()


def bases_of(store):
    return {name: sorted(os.listdir(f"{store}/{name}")) for name in ("bases", "staging", "trash")}


EMPTY = {"bases": [], "staging": [], "trash": []}


@pytest.fixture
def take(layerrun, user_folder, folder):
    """Import bytes as an archive: ``take(data, who, "--max-size", "1M", check=1)``."""

    def run(data, who=None, *words, name="b", **options):
        top = user_folder(who) if who else folder
        path = os.path.join(top, "archive")
        with open(path, "wb") as file:
            file.write(data)
        os.chmod(path, 0o644)
        return layerrun("base", "import", *words, name, path, user=who, **options)

    return run


def refused(layerrun, done, said, who=None):
    assert said in done.err, done.err
    assert done.rc == 1, done
    assert bases_of(layerrun.store(who)) == EMPTY


NEVER = {
    "dots": ([entry("../out", data=b"x")], "leads elsewhere"),
    "dots-inside": ([entry("usr/../../out", data=b"x")], "leads elsewhere"),
    "absolute": ([entry("/DECOY/new", data=b"x")], "leads elsewhere"),
    "through-link": ([entry("a", L, link="/DECOY"), entry("a/new", data=b"x")], "behind a link"),
    "through-relative-link": ([entry("a", L, link="../../../.."), entry("a/x", data=b"x")], "behind a link"),
    "through-two-links": (
        [entry("a", L, link="/DECOY"), entry("b", L, link="a/folder"), entry("b/deep/er", D)],
        "behind a link",
    ),
    "folder-on-a-link": ([entry("a", L, link="/DECOY/folder"), entry("a", D, mode=0o777)], "no folder"),
    "root-is-a-link": ([entry("./", L, link="/DECOY")], "stands for the root"),
    "root-is-a-file": ([entry(".", data=b"x")], "stands for the root"),
    "hard-link-absolute": ([entry("h", H, link="/DECOY/file")], "leads elsewhere"),
    "hard-link-dots": ([entry("h", H, link="../DECOY/file")], "leads elsewhere"),
    "hard-link-through-link": ([entry("a", L, link="/DECOY"), entry("h", H, link="a/file")], "behind a link"),
    "hard-link-to-a-link": ([entry("a", L, link="/DECOY/file"), entry("h", H, link="a")], "no file"),
    "hard-link-to-a-folder": ([entry("h", H, link="usr")], "no file"),
    "hard-link-to-the-root": ([entry("h", H, link=".")], "no file"),
    "hard-link-to-nothing": ([entry("h", H, link="gone")], "not there"),
    "block-device": ([entry("usr/sda", tarfile.BLKTYPE, dev=(8, 0))], "device node"),
    "char-device": ([entry("usr/mem", tarfile.CHRTYPE, dev=(1, 1))], "device node"),
    "whiteout": ([entry("dev/w", tarfile.CHRTYPE, dev=(0, 0))], "device node"),
    "uid-of-nobody": ([entry("u", uid=2**31)], "belongs to"),
    "uid-minus-one": ([entry("u", uid=-1)], "belongs to"),
    "gid-too-large": ([entry("u", gid=70000)], "belongs to"),
    "file-on-a-folder": ([entry("usr", data=b"x")], "place of a folder"),
    "long-name": ([entry("n" * 256, data=b"x")], "255 bytes"),
    "deep": ([entry("/".join(["d"] * 200), D)], "deeper"),
    "unknown-type": ([entry("x", b"V")], "unknown type"),
    "link-to-nowhere": ([entry("l", L, link="")], "nowhere"),
}


@pytest.mark.parametrize("case", NEVER)
def test_what_is_never_unpacked(take, layerrun, decoy, case):
    outside = decoy().path
    entries, said = NEVER[case]
    for info, _ in entries:
        info.name = info.name.replace("/DECOY", outside)
        info.linkname = info.linkname.replace("/DECOY", outside)
    form = tarfile.GNU_FORMAT if "uid" in case else tarfile.PAX_FORMAT
    refused(layerrun, take(archive(*entries, form=form)), said)


def test_what_is_never_unpacked_for_plain_users(take, layerrun, decoy, any_user):
    outside = decoy(any_user).path
    data = archive(entry("a", L, link=outside), entry("a/new", data=b"x"))
    refused(layerrun, take(data, any_user), "behind a link", any_user)
    refused(
        layerrun, take(archive(entry("h", H, link=f"{outside}/file")), any_user), "leads elsewhere", any_user
    )


DAMAGED = {
    "nothing": b"",
    "text": b"not an archive at all\n" * 100,
    "cut-in-a-header": archive(entry("x", data=b"y" * 2000))[:2600],
    "cut-in-a-file": archive(entry("x", data=b"y" * 20000))[:12000],
    "bad-header-later": archive().rstrip(b"\0")
    + bytes(512 - len(archive().rstrip(b"\0")) % 512)
    + b"junk" * 128
    + bytes(1024),
    "gzip-cut": gzip.compress(archive(entry("x", data=os.urandom(5000))))[:3000],
    "gzip-junk": b"\x1f\x8b" + b"junk" * 100,
    "xz-junk": b"\xfd7zXZ\0" + b"junk" * 100,
    "bz2-junk": b"BZh9" + b"junk" * 100,
}


@pytest.mark.parametrize("case", DAMAGED)
def test_what_is_damaged(take, layerrun, case):
    done = take(DAMAGED[case])
    assert done.rc in (1, 2), done
    assert "Traceback" not in done.err
    assert "archive" in done.err
    assert bases_of(layerrun.store()) == EMPTY


def raw_header(kind, size, name=b"x"):
    """A header as no tar writes it: any size, no content."""
    head = bytearray(512)
    head[: len(name)] = name
    head[100:108], head[108:116], head[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    head[124:136] = (b"%011o\0" % size) if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    head[136:148], head[156:157], head[257:265] = b"00000000000\0", kind, b"ustar\x0000"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def test_bombs(take, layerrun, folder):
    """Of each a little is unpacked at most: limits on bytes, growth, entries, headers, holes."""
    plain = archive().rstrip(b"\0")
    plain += bytes(-len(plain) % 512)
    # Headers of 1 GiB, with and without what they promise.
    for kind in (b"x", b"g", b"L", b"K"):
        refused(layerrun, take(plain + raw_header(kind, 1 << 30) + bytes(4 << 20)), "header of more than")
    chain = b"".join(raw_header(b"x", 11) + b"11 path=aa\n" + bytes(501) for _ in range(4000))
    refused(layerrun, take(plain + chain + raw_header(b"0", 0) + bytes(1024)), "archive")
    refused(layerrun, take(plain + raw_header(b"0", 1 << 50) + bytes(4096)), "bytes of files")
    # A hole of 8 EiB.
    pax = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(2**63 - 1)}
    refused(
        layerrun, take(archive(entry("s", data=b"1\n0\n0\n".ljust(512, b"\0"), pax=pax))), "bytes of files"
    )
    # Zeros that gzip and xz make nothing of: more than 200 times what came in.
    path = f"{folder}/zeros"
    with open(path, "wb") as file:
        file.write(
            gzip.compress(plain + raw_header(b"0", 3 << 30), 1) + gzip.compress(bytes(16 << 20), 1) * 70
        )
    refused(layerrun, layerrun("base", "import", "b", path), "times its size")
    data = archive(entry("z", data=bytes(20 << 20)))
    refused(layerrun, take(lzma.compress(data, preset=0), None, "--max-size", "4M"), "bytes")
    refused(layerrun, take(archive(entry("z", data=bytes(2 << 20))), None, "--max-size", "1M"), "bytes")


@pytest.mark.long
def test_too_many_entries(take, layerrun):
    one = raw_header(b"0", 0)
    plain = archive().rstrip(b"\0")
    plain += bytes(-len(plain) % 512)
    refused(layerrun, take(gzip.compress(plain + one * 2_000_100, 1)), "entries")


XATTRS = {
    "user.kept": "value",
    "user.overlay.opaque": "y",
    "user.overlay.redirect": "/x",
    "user.overlay.overlay.x": "y",
    "trusted.overlay.opaque": "y",
    "trusted.x": "y",
    "security.selinux": "unconfined_u",
    "system.posix_acl_access": "junk",
    "security.capability": "junk",
}


def test_odd_but_right(take, layerrun, who):
    """What is kept, what is left out, and what an entry that comes twice leaves behind."""
    pax = {f"SCHILY.xattr.{key}": value for key, value in XATTRS.items()}
    capable = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0).decode("utf-8", "surrogateescape")
    data = archive(
        entry("usr/attributes", data=b"x", pax=pax),
        entry("usr/folder", D, mode=0o1777, uid=33, gid=34, pax=pax),
        entry("usr/capable", data=b"x", pax={"SCHILY.xattr.security.capability": capable}),
        entry("usr/setuid", data=b"x", mode=0o6755),
        entry("usr/all", data=b"x", mode=0o7777, mtime=-5),
        entry("usr/fifo", tarfile.FIFOTYPE),
        entry("dev/null", tarfile.CHRTYPE, dev=(1, 3)),
        entry("./usr//./twice", data=b"first"),
        entry("usr/hard", H, link="usr/twice"),
        entry("usr/twice", data=b"second"),
        entry(".wh.plain", data=b"a name like any other"),
        entry("etc/missing/parents", data=b"x"),
        entry("usr/link", L, link="/etc/../../x"),
        entry(os.fsdecode(b"usr/\xff\n\x1b[31m"), data=b"x"),
        entry("usr/zeros", data=bytes(1 << 20)),
        entry("late", data=b"x", pax={"mtime": "nan"}),
    )
    take(data, who, check=0)
    (found,) = os.listdir(f"{layerrun.store(who)}/bases")
    tree = f"{layerrun.store(who)}/bases/{found}/tree"
    assert [k for k in os.listxattr(f"{tree}/usr/attributes") if k != "security.selinux"] == ["user.kept"]
    assert [k for k in os.listxattr(f"{tree}/usr/folder") if k != "security.selinux"] == ["user.kept"]
    assert "security.capability" in os.listxattr(f"{tree}/usr/capable")
    info = os.stat(f"{tree}/usr/setuid")
    assert info.st_mode & 0o7777 == 0o6755
    assert os.stat(f"{tree}/usr/all").st_mode & 0o7777 == 0o7777
    assert pathlib.Path(tree, "usr/twice").read_text() == "second"
    assert pathlib.Path(tree, "usr/hard").read_text() == "first"
    assert os.readlink(f"{tree}/usr/link") == "/etc/../../x"
    assert os.stat(f"{tree}/usr/zeros").st_blocks == 0
    assert os.path.exists(f"{tree}/.wh.plain")
    assert not os.path.exists(f"{tree}/dev/null")
    assert os.path.exists(os.fsencode(tree) + b"/usr/\xff\n\x1b[31m")
    assert layerrun("base", "verify", "b", user=who).rc == 0
    if who is None:
        assert (os.stat(f"{tree}/usr/folder").st_uid, os.stat(f"{tree}/usr/folder").st_gid) == (33, 34)
        assert info.st_uid == 0


@pytest.mark.parametrize("option", ["-c", "-cz", "-cJ", "-cj"])
def test_an_archive_is_the_base_that_its_folder_is(layerrun, folder, option):
    """The same digest, from a file and from a pipe."""
    tree = f"{folder}/tree"
    os.makedirs(f"{tree}/usr/bin")
    with open(f"{tree}/usr/bin/tool", "wb") as file:
        file.truncate(5 << 20)
        file.write(b"#!\n" * 40000)
    os.chown(f"{tree}/usr/bin/tool", 3, 4)
    os.chmod(f"{tree}/usr/bin/tool", 0o4755)
    os.link(f"{tree}/usr/bin/tool", f"{tree}/usr/again")
    os.symlink("tool", f"{tree}/usr/bin/link")
    os.setxattr(f"{tree}/usr", "user.mark", b"a\0b\xff")
    subprocess.run(["setcap", "cap_net_raw+ep", f"{tree}/usr/bin/tool"], check=True)
    words = ["tar", "--xattrs", "--xattrs-include=*", "-S", "-C", tree, option, "."]
    data = subprocess.run(words, check=True, capture_output=True).stdout
    with open(f"{folder}/archive", "wb") as file:
        file.write(data)
    layerrun("base", "import", "folder", tree, check=0)
    layerrun("base", "import", "file", f"{folder}/archive", check=0)
    layerrun("base", "import", "pipe", "-", input=data, text=False, check=0)
    bases = json.loads(layerrun("base", "list", "--json").out)["bases"]
    assert len({base["digest"] for base in bases if base["kind"] == "tree"}) == 1
    assert len(bases) == 4


LOOK = """
import ctypes, os, socket
def look(tree, archive):
    def tried(work):
        try: return str(work())
        except OSError as error: return error.strerror
    status = dict(line.split(":\\t", 1) for line in open(f"/proc/self/status")) if os.path.isdir("/proc") else None
    libc = ctypes.CDLL(None, use_errno=True)
    return {
        "root": [tried(lambda: os.stat(f"/{n}")) for n in ("usr", "etc", "proc", "dev", "tmp")],
        "write": tried(lambda: os.mkdir("/x")),
        "up": tried(lambda: sorted(os.listdir(os.open("..", os.O_RDONLY, dir_fd=tree)))),
        "tree": os.listdir(os.open(".", os.O_RDONLY, dir_fd=tree)),
        "fds": [fd for fd in range(256) if tried(lambda: os.fstat(fd)) != "Bad file descriptor"],
        "pid": os.getpid(), "uid": os.getresuid(), "groups": [g for g in os.getgroups() if g != 65534],
        "proc": status,
        "fork": tried(os.fork),
        "mount": tried(lambda: libc.mount(b"x", b"/", b"tmpfs", 0, None)),
        "exec": tried(lambda: os.execve("/proc/self/exe", ["x"], {})),
        "device": tried(lambda: os.mknod("dev", 0o020666, os.makedev(1, 3), dir_fd=tree)),
        "whiteout": tried(lambda: os.mknod("white", 0o020666, 0, dir_fd=tree)),
        "setuid": tried(lambda: os.setuid(5)),
        "network": tried(lambda: socket.socket().connect((b"127.0.0.1", 9))),
        "dumpable": libc.prctl(3, 0, 0, 0, 0), "nnp": libc.prctl(39, 0, 0, 0, 0), "seccomp": libc.prctl(21, 0, 0, 0, 0),
        "bounding": [cap for cap in range(41) if libc.prctl(23, cap, 0, 0, 0) == 1],
        "core": __import__("resource").getrlimit(4),
    }
"""

RUN = """
import json, os, sys
sys.path.insert(0, sys.argv[2])
from layerrun.native.jail import run_jailed
from layerrun.native.subids import id_maps, subids
os.makedirs(sys.argv[1])
found = subids()
uids, gids = ([(0, 1878917120, 65536)],) * 2 if os.geteuid() == 0 else (
    id_maps(found) if found else ([(0, os.geteuid(), 1)], [(0, os.getegid(), 1)]))
fd = os.open("/", os.O_RDONLY); os.set_inheritable(fd, True)  # leaks nowhere
null = os.open("/dev/null", os.O_RDONLY)
print(json.dumps(run_jailed("look:look", folder=sys.argv[1], pass_fds=(null,), uid_map=uids, gid_map=gids,
    mapped=os.geteuid() == 0, limits={})))
"""


def test_the_jail(who, user_folder, folder):
    """What unpacks sees an empty root, its folder, and nothing of the machine."""
    top = user_folder(who) if who else folder
    with open(f"{top}/look.py", "w") as file:
        file.write(LOOK)
    words = [sys.executable, "-c", RUN, f"{top}/tree", top]
    done = (
        who.run(words)
        if who
        else subprocess.run(reach.translate(words), capture_output=True, text=True, cwd="/")
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["root"] == ["No such file or directory"] * 5
    assert seen["write"] in ("Read-only file system", "Permission denied")
    assert seen["tree"] == []
    assert seen["up"] in ("[]", "Permission denied", "No such file or directory"), seen["up"]
    assert len(seen["fds"]) <= 8, seen["fds"]
    assert seen["pid"] == 1
    assert seen["uid"] == [0, 0, 0]
    assert seen["proc"] is None
    assert seen["fork"] == "Resource temporarily unavailable"
    assert seen["mount"] == "-1"
    assert seen["exec"] == "No such file or directory"
    assert seen["device"] == "Operation not permitted"
    assert seen["setuid"] in ("Operation not permitted", "Invalid argument")
    assert seen["network"] in ("Network is unreachable", "Permission denied")
    assert (seen["dumpable"], seen["nnp"], seen["seccomp"]) == (0, 1, 2)
    assert seen["bounding"] == [0, 1, 3, 4, 31]
    assert seen["core"] == [0, 0]


def is_gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("whom", ["import", "helper", "jail"])
def test_killed_while_it_unpacks(layerrun, either, whom):
    """Checks 48 and 59: who is left goes too (`no_leaks` looks), and the next command finds nothing half done."""
    process = subprocess.Popen(
        layerrun.argv("base", "import", "b", "-", user=either),
        env=layerrun.env(either),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
    )
    process.stdin.write(archive(entry("usr/large", data=os.urandom(1 << 20)))[: 900 << 10])
    process.stdin.flush()
    store = layerrun.store(either)

    # What comes after it is on its way.
    wait_for(lambda: list(pathlib.Path(store).glob("staging/*/base/tree/usr/plain")))
    inside = wait_for(lambda: len(found := inside_of(process.pid)) > 1 and found)
    os.kill({"import": process.pid, "helper": inside[0], "jail": inside[-1]}[whom], signal.SIGKILL)
    wait_for(lambda: is_gone(inside[-1]))
    out, err = process.communicate(timeout=60)
    if whom != "import":
        assert process.returncode == 1
        assert b"died" in err, err
    else:
        layerrun("list", user=either, check=0)
    assert bases_of(store) == EMPTY
    assert out == b""
