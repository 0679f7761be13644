"""Commits as they are planned: a script run directly on one tree, and in a throwaway that is committed on another.

Run by the tests of plans, as root or as a plain user: ``planned.py FOLDER CASES``, a module-level name of this file.
What came of each is printed as JSON.
"""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
import time

from layerrun.commit import ancestors, engine
from layerrun.commit.plan import Selection, plan
from layerrun.store.store import Store
from support import stages
from support.stages import shell

OLD = "touch -h -d '2001-02-03 04:05:06.123456789'"
YEAR = 1600000000 * 10**9

KINDS = {
    "absent": "true",
    "file": "echo one > x",
    "dir": "mkdir x; echo in > x/in; mkdir x/sub; echo one > x/sub/deep",
    "bare": "mkdir x",
    "symlink": "ln -s one x",
    "fifo": "mkfifo x",
    "pair": "echo pair > x; ln x other",
    "closed": "mkdir x; echo c > x/c; chmod 555 x",
    "hole": "truncate -s 300K x; echo end >> x",
}
CLEAR = "test ! -d x || chmod -R u+rwx x; rm -rf x;"
SOCKET = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"x\")'"
# Done to what is there, by the kind that it is.
IN_PLACE = {
    "socket": ("absent", SOCKET),
    "socket-over": ("dir", CLEAR + SOCKET),
    "empty": ("file", ": > x"),
    "append": ("file", "echo more >> x"),
    "rewrite": ("file", "echo other > x.new; mv x.new x"),
    "chmod": ("file", "chmod 751 x"),
    "chmod-dir": ("dir", "chmod 700 x"),
    "open-dir": ("closed", "chmod 755 x; echo n > x/n"),
    "through-closed": ("closed", "chmod 755 x; echo n > x/n; rm x/c; chmod 555 x"),
    "touch": ("file", f"{OLD.replace('2001', '1999')} x"),
    "touch-dir": ("dir", f"{OLD.replace('2001', '1999')} x"),
    "touch-link": ("symlink", f"{OLD.replace('2001', '1999')} x"),
    "xattr": ("file", "setfattr -n user.a -v 1 x"),
    "xattr-dir": ("dir", "setfattr -n user.a -v 1 x; setfattr -n user.overlay.opaque -v y x"),
    "acl": ("file", "setfacl -m u:$(id -u):r x"),
    "acl-dir": ("dir", "setfacl -d -m u:$(id -u):rx x; echo n > x/n"),
    "truncate": ("hole", "truncate -s 100K x"),
    "punch": ("hole", "truncate -s 0 x; truncate -s 1M x; echo end >> x"),
    "rename": ("file", "mv x y"),
    "rename-dir": ("bare", "mv x y || { mkdir y; rmdir x; }"),
    "rename-dir-full": ("dir", "mv x y"),
    "rename-over": ("pair", "echo new > y; mv y x"),
    "pair-append": ("pair", "echo more >> x; cat x > /dev/null"),
    "pair-chmod": ("pair", "chmod 640 x"),
    "pair-remove": ("pair", "rm x"),
    "pair-link": ("pair", "ln x third"),
    "link": ("file", "ln x y"),
    "link-changed": ("file", "ln x y; echo more >> y"),
    "link-into": ("file", "mkdir n m; ln x n/x; ln x m/x; echo a > n/a"),
    "link-over": ("file", "echo o > o; ln -f x o; ln o n"),
    "links-across": ("absent", "mkdir n m; echo q > n/q; ln n/q m/q; ln n/q q; mkdir m/e; ln q m/e/q"),
    "new-links": ("absent", "echo q > q; ln q r; ln -s q s; ln s t"),
    "opaque": ("dir", "rm -r x; mkdir x; echo in > x/in; chmod 711 x"),
    "opaque-deep": ("dir", "rm -r x; mkdir -p x/sub; echo n > x/sub/n"),
    "come-and-go": ("dir", "echo n > x/n; rm x/n"),
    "in-dir": ("dir", "echo n > x/sub/n; echo more >> x/in"),
    "in-dir-only": ("dir", "echo more >> x/sub/deep"),
    "closed-new": ("absent", "mkdir x; echo a > x/a; mkdir x/n; echo b > x/n/b; chmod 000 x/n x/a; chmod 555 x"),
    "odd": ("absent", "echo 1 > \"$(printf 'a\\nb\\377')\"; echo 2 > ' '; echo 3 > -n; echo 4 > $(printf %0255d 7)"),
    "unreadable": ("file", "echo o > o; chmod 000 o x"),
    "back": ("file", "rm x; mkdir x; echo i > x/i; rm -r x; echo back > x"),
}  # fmt: skip


def cases():
    """Yield the name, how it is made, and what is done."""
    for one, make in KINDS.items():
        for other, then in KINDS.items():
            # A file with several names in whose place an equal one is put seems to be changed in place.
            if (one, other) not in (("absent", "absent"), ("pair", "pair")):
                yield f"{one}-to-{other}", make, CLEAR + then
    for name, (kind, work) in IN_PLACE.items():
        yield name, KINDS[kind], work


def picture(top):
    """Return all that can be seen of a tree."""
    return alone(stages.picture(top))


def script(which):
    """Return a script that does a part of each case in a folder of its own."""
    lines = ["set -e"]
    for name, make, work in cases():
        if which == "make":
            lines.append(f"mkdir {name}; (cd {name}; {make}; find . -depth -exec {OLD} {{}} +)")
        else:
            lines.append(f"(cd {name}; {work})")
    return "\n".join([*lines, f"{OLD} ." if which == "make" else "true"])


def layerrun(*words, cwd):
    program = os.path.join(os.path.dirname(sys.executable), "layerrun")
    done = subprocess.run([program, *words], cwd=cwd, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr
    return done


def alone(seen):
    """Of hard links leave out those whose other names are kept aside."""
    count = collections.Counter(values[-1] for values in seen.values() if len(values) > 9)
    return {
        path: values if len(values) < 10 or count[values[-1]] > 1 else (*values[:-1], "")
        for path, values in seen.items()
    }


def timeless(seen):
    """Leave out times of just now."""
    return {
        path: tuple(0 if isinstance(x, int) and x > YEAR else x for x in values)
        for path, values in seen.items()
    }


def read(path):
    with open(path) as file:
        return file.read()


def differences(one, other):
    return {
        repr(path): [repr(one.get(path)), repr(other.get(path))]
        for path in {*one, *other}
        if one.get(path) != other.get(path)
    }


def order_of_times(seen):
    """Return which entries have a time of just now."""
    return {repr(p) for p, v in seen.items() if v[5 if len(v) > 5 else 3] > YEAR}


def grid(folder):
    """All cases at once."""
    tree, direct = os.path.join(folder, "tree"), os.path.join(folder, "direct")
    for top in (tree, direct):
        os.mkdir(top)
        shell(script("make"), top)
    before = picture(tree)
    time.sleep(0.02)
    shell(script("work"), direct)
    layerrun("try", "-n", "--name", "t", "--", "sh", "-ec", script("work"), cwd=tree)
    with Store.open(os.environ["LAYERRUN_STORE"]) as store:
        app = store.app("t")
        planned = plan(store, app)
        assert not planned.conflicts, planned.conflicts
        assert planned.left == 0
        assert picture(tree) == before, "planning has changed something"
        done = engine.commit(store, app, planned)
        after, wanted = picture(tree), picture(direct)
        answer = {
            "commit": differences(timeless(after), timeless(wanted)),
            "times": sorted(order_of_times(after) ^ order_of_times(wanted)),
        }
        engine.undo(store, done)
        answer["undo"] = differences(picture(tree), before)
        engine.redo(store, done)
        answer["redo"] = differences(picture(tree), after)
    return answer


def conflicts(folder):
    """What is done in the layer, and what on the host meanwhile; which conflicts come of it, and what force does."""
    tree = os.path.join(folder, "tree")
    os.mkdir(tree)
    found = {}
    table = {
        # name: made, layer, host meanwhile
        "none": ("echo a > x; echo b > y", "echo aa > x", "echo bb > y"),
        "modified": ("echo a > x", "echo aa >> x", "echo b >> x"),
        "replaced": ("echo a > x", "chmod 600 x", "echo b > n; touch -d 2001-01-01 n; mv n x"),
        "chmod": ("echo a > x", "echo aa >> x", "chmod 600 x"),
        "added": ("true", "echo a > x", "echo b > x"),
        "added-same": ("true", "echo a > x; touch -d 2001-01-01 x", "echo a > x; touch -d 2001-01-01 x"),
        "added-dir": ("true", "mkdir x; echo a > x/a", "mkdir x; echo b > x/b"),
        "added-both": ("true", "mkdir x; echo a > x/a", "mkdir x; echo b > x/a"),
        "removed": ("echo a > x", "echo aa >> x", "rm x"),
        "removed-both": ("echo a > x", "rm x", "rm x"),
        "removed-changed": ("echo a > x", "rm x", "echo b >> x"),
        "folder-gone": ("mkdir x; echo a > x/a", "echo aa >> x/a", "rm -r x"),
        "folder-moved": ("mkdir x; echo a > x/a", "echo aa >> x/a", "mv x y"),
        "inside-removed": ("mkdir -p x/y/z; echo a > x/y/z/a", "rm -r x", "echo b > x/y/z/a"),
        "new-in-removed": ("mkdir -p x/y", "rm -r x", "echo b > x/y/new"),
        "beside": ("mkdir x; echo a > x/a", "echo aa >> x/a", "echo b > x/b"),
        "folder-chmod": ("mkdir x", "chmod 700 x; echo a > x/a", "chmod 711 x"),
        "folder-came": ("mkdir y; echo a > y/a", "mkdir x; echo b > x/a", "mv y x"),
        "folders-swapped": (
            "mkdir x y; echo a > x/a; echo b > y/a",
            "echo aa >> x/a; rm y/a",
            "mv x z; mv y x; mv z y",
        ),
        "to-link": ("mkdir x; echo a > x/a", "echo b > x/b", "mv x real; ln -s real x"),
        "moved": ("echo a > x", "mv x y", "true"),
        "moved-both": ("echo a > x", "mv x y", "mv x z"),
        "apart": ("echo a > x; ln x y", "echo 1 >> x; echo 22 >> y", "true"),
    }
    run = {"make": [], "layer": [], "host": []}
    for name, parts in table.items():
        for key, part in zip(run, parts, strict=True):
            if key == "make":
                part = f"mkdir ../{name}/; cd ../{name}; {part}"
            run[key].append(f"(cd {tree}/{name} 2>/dev/null || cd {tree}/..; {part})")
    shell(
        "; ".join(f"mkdir {tree}/{name}; (cd {tree}/{name}; {parts[0]})" for name, parts in table.items()),
        folder,
    )
    time.sleep(0.02)
    layer = "\n".join(run["layer"])
    layerrun("try", "-n", "--name", "t", "--", "sh", "-ec", layer, cwd=tree)
    time.sleep(0.02)
    shell("\n".join(run["host"]), tree)
    before = picture(tree)
    with Store.open(os.environ["LAYERRUN_STORE"]) as store:
        app = store.app("t")
        planned = plan(store, app)
        found["conflicts"] = [[c.path.removeprefix(tree + "/"), c.what] for c in planned.conflicts]
        found["untouched"] = differences(picture(tree), before) == {}
        forced = plan(store, app, force=True)
        found["forced"] = [[c.path.removeprefix(tree + "/"), c.what] for c in forced.conflicts]
        one = plan(store, app, Selection([f"{tree}/none"]))
        found["selected"] = [len(one.ops), one.left > 5, one.conflicts]
        if not forced.conflicts:
            done = engine.commit(store, app, forced)
            found["x"] = {}
            for name in table:
                path = f"{tree}/{name}/x"
                found["x"][name] = (
                    read(path) if os.path.isfile(path) else os.path.isdir(path) and sorted(os.listdir(path))
                )
            engine.undo(store, done)
            found["undo"] = differences(picture(tree), before)
    return found


def selection(folder):
    """Parts of a layer, one after the other, are all of it."""
    tree = os.path.join(folder, "tree")
    os.mkdir(tree)
    shell(f"mkdir d k; echo a > d/a; echo b > d/b; echo c > k/c; find . -depth -exec {OLD} {{}} +", tree)
    work = "echo aa > d/a; rm d/b; mkdir -p n/m; echo 1 > n/1; echo 2 > n/m/2; ln n/1 q; chmod 700 n n/m; echo c2 > k/c"
    layerrun("try", "-n", "--name", "t", "--", "sh", "-ec", work, cwd=tree)
    steps = []
    with Store.open(os.environ["LAYERRUN_STORE"]) as store:
        for chosen in (
            Selection([f"{tree}/n/m/2"]),
            Selection([f"{tree}/d"], exclude=["b"]),
            Selection(include=["c"]),
            Selection([f"{tree}/q"]),
            Selection(),
        ):
            planned = plan(store, store.app("t"), chosen)
            assert not planned.conflicts, planned.conflicts
            engine.commit(store, store.app("t"), planned)
            names = sorted(
                os.path.relpath(os.path.join(a, x), tree) for a, b, c in os.walk(tree) for x in b + c
            )
            steps.append([planned.left, names])
        gone = [app.name for app in store.apps()]
    same = os.path.samefile(f"{tree}/q", f"{tree}/n/1")
    modes = [oct(os.stat(f"{tree}/{n}").st_mode & 0o777) for n in ("n", "n/m")]
    texts = [read(f"{tree}/{n}") for n in ("d/a", "k/c")]
    return {"steps": steps, "same": same, "modes": modes, "texts": texts, "apps": gone}


def merges(folder):
    """Texts that both have changed."""
    tree = os.path.join(folder, "tree")
    os.mkdir(tree)
    lines = "".join(f"line {n}\n" for n in range(9))
    for name in ("apart", "touching", "binary", "unsaved"):
        with open(f"{tree}/{name}", "w") as file:
            file.write(lines + ("\0" if name == "binary" else ""))
    time.sleep(0.02)
    work = "for f in apart touching binary; do sed 's/line 1$/LINE 1/' $f > t; cat t > $f; rm t; done"
    layerrun("try", "-n", "--name", "t", "--", "sh", "-ec", work, cwd=tree)
    with Store.open(os.environ["LAYERRUN_STORE"]) as store:
        kept = ancestors.save(store, store.app("t"))
        time.sleep(0.02)
        shell("sed -i 's/line 7/line VII/' apart binary; sed -i 's/line 1$/line I/' touching", tree)
        planned = plan(store, store.app("t"))
        found = [[c.path.removeprefix(tree + "/"), c.what] for c in planned.conflicts]
        part = plan(store, store.app("t"), Selection([f"{tree}/apart"]))
        before = read(f"{tree}/apart")
        done = engine.commit(store, store.app("t"), part)
        text = read(f"{tree}/apart")
        engine.undo(store, done)
        back = read(f"{tree}/apart") == before
    merged = [path.removeprefix(tree + "/") for path in planned.merged]
    right = text == lines.replace("line 1\n", "LINE 1\n").replace("line 7", "line VII")
    return {"kept": kept, "conflicts": found, "merged": merged, "right": right, "back": back}


def rights(folder):
    """What gives rights to whoever runs it, named; dropped, and kept."""
    tree = os.path.join(folder, "tree")
    os.mkdir(tree)
    work = (
        "mkdir in; echo > in/suid; echo > in/beside; chmod 4755 in/suid; echo > sgid; chmod 2755 sgid;"
        "cp /bin/true caps; setcap cap_net_raw+ep caps; mkdir -m 2775 shared"
    )
    layerrun("try", "-n", "--no-userns", "--name", "t", "--", "sh", "-ec", work, cwd=tree)
    names = ["caps", "device", "in/suid", "sgid"]
    with Store.open(os.environ["LAYERRUN_STORE"]) as store:
        upper = store.open_data(store.app("t"), "upper")
        os.mknod(f"{tree}/device"[1:], 0o20644, os.makedev(1, 7), dir_fd=upper)
        os.close(upper)
        found = plan(store, store.app("t"))
        without = plan(store, store.app("t"), keep_privileged=False)
        done = engine.commit(store, store.app("t"), without, keep=True)
        dropped = {name: shown_rights(f"{tree}/{name}") for name in [*names, "in/beside"]}
        engine.undo(store, done)
        engine.commit(store, store.app("t"), found)
        kept = {name: shown_rights(f"{tree}/{name}") for name in names}
    named = [[right.path.removeprefix(tree + "/"), right.what] for right in found.privileged]
    return {"named": named, "dropped": dropped, "left": without.left, "kept": kept}


def shown_rights(path):
    if not os.path.lexists(path):
        return None
    if path.endswith("caps"):
        return " ".join(os.listxattr(path))
    return oct(os.lstat(path).st_mode & 0o7777)


def main():
    folder, what = sys.argv[1:]
    os.environ["LAYERRUN_STORE"] = os.path.join(folder, "store")
    os.environ["LAYERRUN_SWEEP"] = "foreground"
    os.umask(0o022)
    print(json.dumps(globals()[what](folder)))


if __name__ == "__main__":
    main()
