"""Tries by the front door: what they begin, leave and write."""

from __future__ import annotations

import os
import sqlite3
import subprocess

TRUE = ("try", "-y", "--", "true")


KEEP = ("try", "-n", "--", "sh", "-c")


def plans(layerrun, who=None):
    return sorted(os.listdir(os.path.join(layerrun.store(who), "plans")))


def throwaways(layerrun, who=None):
    """Return the names that `list` shows."""
    lines = layerrun("list", user=who, check=0).out.splitlines()[1:]
    return [line.split()[0] for line in lines if line.split()[1] == "throwaway"]


def written(layerrun, name, who=None):
    return layerrun("diff", name, "-0", user=who, check=0).out.split("\0")[:-1]


def contents(store):
    """Return all of a store that a start might change: paths, times, sizes; and the catalog's rows."""
    found = []
    for top, folders, files in os.walk(store):
        for name in sorted(folders + files):
            path = os.path.join(top, name)
            info = os.lstat(path)
            # The kernel's own, made anew by each mount; SQLite's; and the line that says who has the lock.
            if "/work/" in path or name.startswith("catalog.db") or name in ("lock", "work"):
                continue
            found.append((os.path.relpath(path, store), info.st_ino, info.st_ctime_ns, info.st_size))
    database = sqlite3.connect(f"{store}/catalog.db")
    try:
        return sorted(found), list(database.iterdump())
    finally:
        database.close()


def begin(door, script, *options, who=None):
    """Start a `try` of a shell script that says a line when it is ready."""
    process = subprocess.Popen(
        door.argv("try", "-n", *options, "--", "sh", "-c", script, user=who),
        env=door.layerrun.env(who),
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    line = process.stdout.readline()
    assert line == "ready\n", (line, process.communicate(timeout=60))
    return process


def end(process, status=0):
    out, err = process.communicate("\n", timeout=60)
    assert process.returncode == status, (out, err)
    return out, err


def kill(process):
    """Kill a `try` as a whole: nobody is left to say what was written."""
    process.kill()
    process.communicate(timeout=60)
