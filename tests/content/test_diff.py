"""`diff` and `tidy` as they are used: patches that patch(1) and git take, trees, metadata, any two compared."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from support import users
from support.whose import whose

BOTH = ["root", users.PLAIN]

MAKE = r"""
    set -e; cd "$1"; printf 'one\ntwo\nthree\n' >text; seq 1 200 >long; seq 1 60 >moved; seq 100 160 >edited
    mkdir -p folder/in; echo x >folder/in/f; echo 'a b' >'with space'; printf 'a\n' >"$(printf 'tab\tand\351')"
    printf '\0binary' >binary; ln -s text link; echo to-link >to-link; ln -s nowhere to-file; : >empty; echo same >same
    printf 'no newline' >ends; mkdir sub; seq 1 40 >sub/x; printf 'dos\r\nlines\r\n' >dos
"""
CHANGE = r"""
    set -e; cd "$1"; sed -i s/two/TWO/ text; sed -i -e 5d -e 's/^100$/hundred/' -e '$a end' long; mv moved 'moved here'
    sed 's/^110$/x/' edited >sub/edited; rm edited; rm -r folder; echo file >folder; echo c >>'with space'
    echo b >>"$(printf 'tab\tand\351')"; printf '\0BINARY' >binary; ln -sf long link; rm to-link; ln -s text to-link
    rm to-file; echo file >to-file; rm empty; : >new-empty; printf 'no newline, still' >ends; chmod 755 same
    mkdir -p deep/er; printf 'x\ny' >deep/er/new; mkfifo fifo; sed -i 's/dos/DOS/' dos
"""
# What a patch does not hold.
NOT_IN_A_PATCH = {"binary", "fifo"}


@pytest.fixture(params=BOTH)
def who(request):
    return whose(request.param)


@pytest.fixture
def place(who, folder, user_folder):
    """A folder that the user may write, on the host."""
    if who:
        return user_folder(who)
    os.mkdir(f"{folder}/place")
    return f"{folder}/place"


def sh(who, script, *words):
    argv = ["sh", "-c", script, "sh", *words]
    done = who.run(argv) if who else subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def tree(top):
    """Return path -> what a patch can say of it."""
    found = {}
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in files + [name for name in folders if os.path.islink(os.path.join(folder, name))]:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, os.fsencode(top))
            if os.path.islink(path):
                found[relative] = os.readlink(path)
            elif os.path.isfile(path) and os.fsdecode(relative) not in NOT_IN_A_PATCH:
                with open(path, "rb") as file:
                    found[relative] = file.read(), bool(os.stat(path).st_mode & 0o100)
    return found


@pytest.mark.parametrize("tool", ["git", pytest.param("patch", marks=pytest.mark.long)])
def test_a_patch_does_what_was_done(layerrun, who, place, folder, tool):
    sh(who, MAKE, place)
    for name in ("copy", "direct"):
        shutil.copytree(place, f"{folder}/{name}", symlinks=True)
    # patch(1) takes a folder away only after it has made all files.
    change = CHANGE if tool == "git" else CHANGE.replace("echo file >folder;", "")
    layerrun("try", "-n", "--name", "t", "--", "sh", "-c", change, "sh", place, user=who, check=0)
    patch = layerrun("diff", "t", "-p", place, user=who, check=0, text=False).out
    subprocess.run(["sh", "-c", change, "sh", f"{folder}/direct"], check=True)
    strip = f"-p{place.count('/') + 1}"
    words = (
        ["git", "apply", "--whitespace=nowarn"]
        if tool == "git"
        else ["patch", "--binary", "-s", "--no-backup-if-mismatch"]
    )
    done = subprocess.run(
        [*words, strip],
        cwd=f"{folder}/copy",
        input=patch,
        capture_output=True,
        env={**os.environ, "GIT_DIR": "/nowhere"},
    )
    assert done.returncode == 0, done.stdout + done.stderr + patch
    after, wanted = tree(f"{folder}/copy"), tree(f"{folder}/direct")
    assert {p: v for p, v in after.items() if wanted.get(p) != v} == {}
    assert wanted.keys() == after.keys()
    at = os.fsencode(place).lstrip(b"/")
    assert b"Binary files a/%s/binary and b/%s/binary differ\n" % (at, at) in patch
    assert b"# /%s/fifo: new fifo\n" % at in patch
    assert b'rename from %s/moved\nrename to "%s/moved here"\n' % (at, at) in patch
    assert b"rename from %s/edited\nrename to %s/sub/edited\n" % (at, at) in patch


def test_all_of_it_as_json(layerrun, who, place):
    sh(who, MAKE, place)
    change = CHANGE + "touch -d @5 sub/x; chmod 600 sub/x; setfattr -n user.k -v v same"
    layerrun("try", "-n", "--name", "t", "--", "sh", "-c", change, "sh", place, user=who, check=0)
    said = layerrun("diff", "t", "--json", "--stat", "--meta", "-p", user=who, check=0).out
    records = {
        os.path.relpath(r["path"], place): r
        for r in json.loads(said)["changes"]
        if r["path"].startswith(place)
    }
    assert (records["text"]["added"], records["text"]["removed"]) == (1, 1)
    assert records["binary"]["added"] is None
    assert (records["moved here"]["change"], records["moved here"]["similarity"]) == ("R", 100)
    assert records["moved here"]["renamed_from"] == f"{place}/moved"
    assert 90 < records["sub/edited"]["similarity"] < 100
    assert records["folder/in/f"]["change"] == "D"
    assert records["to-link"]["change"] == records["to-file"]["change"] == "T"
    assert {i["what"]: i["new"] for i in records["same"]["meta"]} == {"mode": "0755", "xattr user.k": "v"}
    meta = {item["what"]: (item["old"], item["new"]) for item in records["sub/x"]["meta"]}
    assert meta["mode"] == ("0644", "0600")
    assert meta["mtime"][1] == "1970-01-01T00:00:05.000000000Z"
    assert meta.keys() == {"mode", "mtime"}
    assert records["fifo"]["patch"] == f"# {place}/fifo: new fifo\n"
    plain = json.loads(layerrun("diff", "t", "--json", user=who, check=0).out)["changes"]
    assert {"D"} == {r["change"] for r in plain if r["path"] == f"{place}/moved"}


def test_words_and_pictures(layerrun, who, place):
    sh(who, MAKE, place)
    layerrun("try", "-n", "--name", "t", "--", "sh", "-c", CHANGE, "sh", place, user=who, check=0)
    stat = layerrun("diff", "t", place, "--stat", user=who, check=0).out.splitlines()
    assert any(line.startswith(f"M {place}/text ") and line.endswith("| 2 +-") for line in stat)
    assert any(f"R {place}/moved => {place}/moved here" in line and line.endswith("| 0") for line in stat)
    assert any(line.endswith("| binary, 7 B to 7 B") for line in stat)
    assert "R           2  renamed" in stat
    drawn = layerrun("diff", "t", place, "--tree", user=who, check=0).out
    assert f"└── {place[1:]}/\n" in drawn
    assert "    ├── A deep/\n    │   └── A er/\n    │       └── A new  3 B\n" in drawn
    assert "M $'tab\\tand\\xe9'  4 B\n" in drawn
    assert "\x1b" not in drawn
    meta = layerrun("diff", "t", f"{place}/same", "--meta", user=who, check=0).out
    assert meta == f"P {place}/same\n    mode: 0644 -> 0755\n"


def test_paths(layerrun, who, place):
    sh(who, MAKE, place)
    layerrun("try", "-n", "--name", "t", "--", "sh", "-c", CHANGE, "sh", place, user=who, check=0)

    def letters(*paths, check=0):
        said = layerrun(
            "diff", "t", *(f"{place}/{path}" for path in paths), user=who, check=check
        ).out.splitlines()
        return [(line[0], line[14:].strip().removeprefix(place + "/")) for line in said]

    assert letters("text", "deep/er/new") == [("A", "deep/er/new"), ("M", "text")]
    assert letters("deep") == [("A", "deep/"), ("A", "deep/er/"), ("A", "deep/er/new")]
    assert letters("folder/in/f") == [("T", "folder  (dir to file)")]  # it went with the folder
    assert letters("dee", "same/no", "nowhere") == []
    assert layerrun("diff", "t", "--exit-code", f"{place}/sub/x", user=who).rc == 0
    assert layerrun("diff", "t", "--exit-code", f"{place}/text", user=who).rc == 1
    assert layerrun("diff", "t", "/etc/../x", user=who).rc == 2
    assert layerrun("diff", "t", "--tree", "--stat", user=who).rc == 2


def test_a_path_from_here_is_no_name(layerrun, who, place):
    layerrun("app", "web", "--", "true", user=who, check=0)
    above, name = os.path.split(os.path.realpath(place))
    done = layerrun("diff", "web", name, user=who, cwd=above, check=6)
    assert done.err.endswith(f"for the path, say {above}/{name}\n"), done.err


def test_between_two(layerrun, who, place):
    """Apps, branches, snapshots; what was frozen counts as what an app changed."""
    layerrun("create", "one", "--", "true", user=who, check=0)

    def write(app, text):
        layerrun("app", app, "--", "sh", "-c", text, user=who, check=0)

    def listed(*words):
        said = layerrun("diff", *words, user=who, check=0).out.splitlines()
        return [(line[0], line[14:].strip()) for line in said]

    at = "/home" if who is None else who.home
    write("one", f"cd {at}; echo 1 >lr-a; echo 1 >lr-b; mkdir lr-d; echo 1 >lr-d/f")
    layerrun("snapshot", "one", "first", user=who, check=0)
    write("one", f"cd {at}; echo 22 >lr-a; rm lr-b; echo 3 >lr-c")
    layerrun("branch", "one", "two", user=who, check=0)
    write("two", f"cd {at}; rm -r lr-d; echo 1 >lr-d")
    own = [("A", f"{at}/lr-a"), ("A", f"{at}/lr-c"), ("A", f"{at}/lr-d/"), ("A", f"{at}/lr-d/f")]
    assert listed("one") == own
    since = [("M", f"{at}/lr-a"), ("D", f"{at}/lr-b"), ("A", f"{at}/lr-c")]
    assert listed("one:first", "one") == since
    assert listed("one:1", "one", f"{at}/lr-b") == since[1:2]
    assert listed("one", "one:first") == [("M", f"{at}/lr-a"), ("A", f"{at}/lr-b"), ("D", f"{at}/lr-c")]
    assert listed("one", "two") == [("T", f"{at}/lr-d  (dir to file)")]
    assert listed("one", "one") == []
    assert listed("host", "one") == own
    assert [path for _, path in listed("one:first")] == [f"{at}/lr-{n}" for n in ("a", "b", "d/", "d/f")]
    patch = layerrun("diff", "one:first", "one", "-p", f"{at}/lr-a", user=who, check=0).out
    assert patch.endswith("@@ -1 +1 @@\n-1\n+22\n")
    assert layerrun("diff", "one", "nobody", user=who).rc == 6
    assert layerrun("diff", "one:nothing", "two", user=who).rc == 6
    assert layerrun("diff", "host", user=who).rc == 2


def test_bases(layerrun, who, folder):
    """Two imported trees; an app of one, and an app over the host, which cannot be compared with it."""
    for name, text in (("old", "1"), ("new", "2")):
        os.makedirs(f"{folder}/{name}/usr/share")
        os.chmod(f"{folder}/{name}", 0o755)
        with open(f"{folder}/{name}/usr/share/f", "w") as file:
            file.write(f"{text}\n")
        with open(f"{folder}/{name}/usr/same", "w") as file:
            file.write("same")
        os.utime(f"{folder}/{name}/usr/same", (1, 1))
        layerrun("base", "import", name, f"{folder}/{name}", user=who, check=0)
    assert layerrun("diff", "old", "new", user=who, check=0).out == "M         2 B  /usr/share/f\n"
    layerrun("create", "app", "--base", "new", "--", "true", user=who, check=0)
    assert "-1\n+2\n" in layerrun("diff", "old", "app", "-p", user=who, check=0).out
    assert layerrun("diff", "new", "app", user=who, check=0).out == ""
    refused = layerrun("diff", "host", "app", user=who)
    assert refused.rc == 2
    assert "do not stand on one base" in refused.err


def test_tidy(layerrun, who, place):
    """What was written back as it was goes, with folders left empty; nothing that is seen changes."""
    sh(
        who,
        "cd $1; mkdir -p d/e h; echo 1 >d/e/f; echo 2 >d/g; echo 3 >h/f; echo 4 >k; touch -d @9 d/e/f d/g h/f k",
        place,
    )
    script = (
        'cd "$1"; for f in d/e/f d/g h/f k; do cp -p $f x; echo >>$f; cat x >$f; touch -d @9 $f; rm x; done;'
        "echo new >d/new; rm -r h; mkdir h; echo 3 >h/f; touch -d @9 h/f; ln k l"
    )
    layerrun("try", "-n", "--name", "t", "--", "sh", "-c", script, "sh", place, user=who, check=0)
    store = layerrun.store(who)
    (upper,) = [
        f"{store}/apps/{name}/data/upper" for name in os.listdir(f"{store}/apps") if has(store, name, place)
    ]
    before = layerrun("diff", "t", user=who, check=0).out
    said = layerrun("tidy", "t", "--dry-run", user=who, check=0).out
    assert said.split() == [f"{place}/{name}" for name in ("d/e/f", "d/g", "d/e")]
    assert os.path.exists(f"{upper}{place}/d/e/f")
    layerrun("tidy", "t", user=who, check=0)
    assert not os.path.exists(f"{upper}{place}/d/e")
    assert not os.path.exists(f"{upper}{place}/d/g")
    # In a folder that hides what is beneath it, and a name of a file that has another one here, stay.
    assert os.path.exists(f"{upper}{place}/h/f")
    assert os.path.exists(f"{upper}{place}/k")
    assert layerrun("diff", "t", user=who, check=0).out == before
    assert layerrun("tidy", "t", user=who, check=0).err == "layerrun: t: 0 entries dropped\n"
    seen = layerrun(
        "try", "-n", "--name", "t", "--", "cat", f"{place}/d/e/f", f"{place}/h/f", user=who, check=0
    ).out
    assert seen.startswith("1\n3\n")


def has(store, name, place):
    return os.path.exists(f"{store}/apps/{name}/data/upper{place}/h/f")


def test_of_files_that_only_a_helper_can_read(layerrun, who, folder):
    """An app over a base, with owners of its own: texts are read, and compared by diff(1), where its ids are mapped."""
    os.makedirs(f"{folder}/tree/usr")
    os.chmod(f"{folder}/tree", 0o755)
    with open(f"{folder}/tree/usr/f", "w") as file:
        file.writelines(f"{n}\n" for n in range(2000))
    if who:
        subprocess.run(["chown", "-R", f"{who.uid}:{who.gid}", f"{folder}/tree"], check=True)
    layerrun("base", "import", "b", f"{folder}/tree", user=who, check=0)
    layerrun("create", "app", "--base", "b", "--", "true", user=who, check=0)
    # There is no shell in the base: what an app would write is put into its upper.
    store = layerrun.store(who)
    (upper,) = [f"{store}/apps/{name}/data/upper" for name in os.listdir(f"{store}/apps")]
    write = (
        'mkdir -p "$1/usr" && seq 1999 -1 0 >"$1/usr/f" && mkdir "$1/closed" && echo x >"$1/closed/f" &&'
        ' chmod 000 "$1/closed/f" "$1/closed"'
    )
    if who:
        sh(who, 'unshare -U --map-auto --map-root-user sh -c "$1" sh "$2"', write, upper)
        sh(who, 'unshare -U --map-auto --map-root-user chown 33:33 "$1/closed"', upper)
    else:
        sh(None, write, upper)
    patch = layerrun("diff", "app", "-p", user=who, check=0).out
    assert "new file mode 100000\n" in patch
    assert patch.count("\n-") == patch.count("\n+") - 1 > 1900  # the one more is of /closed/f
    meta = json.loads(layerrun("diff", "app", "--json", "--meta", user=who, check=0).out)["changes"]
    assert [record["path"] for record in meta] == ["/closed", "/closed/f", "/usr/f"]


def test_a_folder_that_its_owner_may_list_and_not_enter(layerrun, who, place):
    script = 'cd "$1"; mkdir closed; echo x >closed/f; chmod 400 closed'
    layerrun("try", "-n", "--name", "t", "--", "sh", "-c", script, "sh", place, user=who, check=0)
    said = layerrun("diff", "t", user=who, check=0).out.splitlines()
    assert [line[14:].strip() for line in said] == [f"{place}/closed/", f"{place}/closed/f"]
    assert "\n+x\n" in layerrun("diff", "t", "-p", user=who, check=0).out
