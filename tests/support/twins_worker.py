"""Does the same to two copies of a tree: directly to one, through a throwaway and a commit to the other.

Its text is given to ``python -c``, as that of `overlay_worker` is, which is its first argument. One JSON request a line
on stdin, one JSON answer a line on stdout. Its working folder is where the trees will be.
"""

import errno
import hashlib
import json
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import traceback

import layerrun

OPERATIONS = {"__name__": "operations"}
exec(sys.argv[1], OPERATIONS)
Operations = OPERATIONS["Operations"]

# What is run in the layer, with the two texts of the operations as arguments.
IN_LAYER = """
import json, os, sys
operations = {"__name__": "operations"}
for text in sys.argv[1:]:
    exec(text, operations)
os.umask(0o022)
print(json.dumps(operations["each"](*json.load(sys.stdin))))
"""
# Which operations succeed: 0, and with what the others fail.
EACH = """
import subprocess

def move(self, path, to):
    # With mv(1): where a folder cannot be renamed it copies more than Python does, sockets and owners.
    done = subprocess.run(["mv", "-fT", "--", self.at(path), self.at(to)], capture_output=True)
    if done.returncode:
        raise OSError(-2, done.stderr.decode(errors="replace"))

Operations.move = move

def each(tree, operations):
    found = []
    for operation in operations:
        try:
            Operations(tree).run([operation], strict=True)
            found.append(0)
        except OSError as error:
            found.append(error.errno or -1)
    return found
"""
exec(EACH, OPERATIONS)
each = OPERATIONS["each"]
# Times of before are set; others are those of the moment, and no two moments are alike.
OLDEST_NOW = 1_700_000_000 * 10**9


def sight(path, groups, top):
    """All that can be seen of an entry by a program, in a form that JSON keeps."""
    info = os.lstat(path)
    kind = stat.S_IFMT(info.st_mode)
    content = None
    if stat.S_ISREG(kind):
        with open(path, "rb") as file:
            content = hashlib.sha256(file.read()).hexdigest()
    elif stat.S_ISLNK(kind):
        content = os.readlink(path)
    elif stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
        content = info.st_rdev
    xattrs = {
        name: os.getxattr(path, name, follow_symlinks=False).hex()
        for name in os.listxattr(path, follow_symlinks=False)
    }
    group = None
    if info.st_nlink > 1 and not stat.S_ISDIR(kind):
        group = groups.setdefault(info.st_ino, os.path.relpath(path, top))
    return {
        "kind": kind,
        "mode": stat.S_IMODE(info.st_mode),
        "owner": [info.st_uid, info.st_gid],
        "content": content,
        "size": None if stat.S_ISDIR(kind) else info.st_size,
        # overlayfs copies a MiB at a time, and that is all hole or all data.
        "hole": stat.S_ISREG(kind) and info.st_size - info.st_blocks * 512 > 5 << 20,
        "mtime": info.st_mtime_ns,
        "xattrs": xattrs,
        "names": None if stat.S_ISDIR(kind) else info.st_nlink,
        "group": group,
    }


def picture(top):
    """Return all entries of a tree, its top as ".". Nothing is changed for it, not even for a moment."""
    groups = {}
    found = {}
    todo = ["."]
    while todo:
        at = todo.pop()
        path = os.path.join(top, at)
        found[at] = sight(path, groups, top)
        if found[at]["kind"] == stat.S_IFDIR:
            # The first name of a group is the same everywhere only in this order.
            todo += [
                os.path.normpath(os.path.join(at, name)) for name in sorted(os.listdir(path), reverse=True)
            ]
    return found


def timeless(seen):
    """Take the moment out of the times that were not set."""
    return {
        at: {**entry, "mtime": "now" if entry["mtime"] > OLDEST_NOW else entry["mtime"]}
        for at, entry in seen.items()
    }


def differences(one, other):
    """Say what differs, a line an entry."""
    found = []
    for at in sorted({*one, *other}):
        left, right = one.get(at), other.get(at)
        if left is None or right is None:
            found.append(f"{at!r}: {'only in the second' if left is None else 'only in the first'}")
        elif left != right:
            keys = [key for key in left if left[key] != right[key]]
            found.append(f"{at!r}: " + ", ".join(f"{key} {left[key]!r} {right[key]!r}" for key in keys))
    return found


def prepare(tree, operations):
    os.mkdir(tree)
    Operations(tree).run(operations, strict=False)
    # All is old, links and the folders last.
    for folder, dirs, files in os.walk(tree, topdown=False):
        for name in [*files, *dirs]:
            os.utime(os.path.join(folder, name), ns=(10**18, 10**18 + 123), follow_symlinks=False)
    os.utime(tree, ns=(10**18, 10**18 + 123))


def in_layer(layer, tree, operations):
    done = layer.run(
        [sys.executable, "-I", "-c", IN_LAYER, sys.argv[1], EACH],
        input=json.dumps([tree, operations]).encode(),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def session(direct, through, operations, layer):
    """Do it in the layer, then directly; what the two do not let do alike is left out from the second."""
    fates = in_layer(layer, through, operations)
    for operation, fate in zip(operations, fates, strict=True):
        # Folders of the machine cannot be renamed in an overlay; programs copy them then.
        if fate == errno.EXDEV:
            continue
        (directly,) = each(direct, [operation])
        assert (directly == 0) == (fate == 0), f"{operation}: {directly} directly, {fate} in the layer"


def handle(request):
    top = tempfile.mkdtemp(dir=".", prefix="t")
    top = os.path.realpath(top)
    os.chmod(top, 0o755)
    direct, through = os.path.join(top, "direct"), os.path.join(top, "through")
    for tree in (direct, through):
        prepare(tree, request["lower"])
    wrong = []

    def expect(what, one, other):
        wrong.extend(f"{what}: {line}" for line in differences(one, other))

    before = picture(through)
    expect("the two at the beginning", picture(direct), before)
    store = layerrun.Store()
    try:
        with store.throwaway(ids=request.get("ids")) as layer:
            for operations in request["sessions"]:
                session(direct, through, operations, layer)
                if request.get("checkpoints"):
                    layer.checkpoint()
            expect("the layer leaves the host alone", before, picture(through))
            changes = [f"{change.change} {change.path}" for change in layer.diff()]
            done = layer.commit()
        after = picture(through)
        expect("directly, and by a commit", timeless(picture(direct)), timeless(after))
        if done is None:
            assert not changes, changes
        else:
            assert layer not in store.throwaways(), "the layer is still there"
            store.undo(done)
            expect("before, and after undo", before, picture(through))
            store.redo(done)
            expect("after the commit, and after redo", after, picture(through))
            store.undo()
            expect("before, and after undo once more", before, picture(through))
    finally:
        subprocess.run(["chmod", "-R", "u+rwX", top], check=False, capture_output=True)
        shutil.rmtree(top, ignore_errors=True)
    return {"wrong": wrong, "changes": changes}


def main():
    os.umask(0o022)
    for line in sys.stdin:
        try:
            own = struct.pack("<I", os.getuid()).hex()
            answer = handle(json.loads(line.replace("55555555", own)))
        except Exception:  # noqa: BLE001  (the answer says so)
            answer = {"error": traceback.format_exc()}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
