"""Small trees and an app to send to a registry, and what matters of what comes back."""

import json
import os
import subprocess
import sys

INDEX = "application/vnd.oci.image.index.v1+json"


PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    printf("A=%s argc=%d uid=%d %s\n", getenv("A") ? getenv("A") : "-", argc, getuid(), argc > 1 ? argv[1] : "");
    for (int i = 1; i < argc; i++)
        printf("%s %s\n", argv[i], access(argv[i], F_OK) ? "no" : "yes");
    return 0;
}
"""


def make_tree(root, program):
    os.makedirs(f"{root}/usr/bin")
    os.makedirs(f"{root}/etc/many")
    subprocess.run(["cp", program, f"{root}/usr/bin/look"], check=True)
    for name in ("gone", "stays"):
        with open(f"{root}/etc/many/{name}", "w") as file:
            file.write(name * 100)
    with open(f"{root}/etc/\udcff odd\n", "w") as file:
        file.write("odd")
    os.link(f"{root}/etc/many/stays", f"{root}/etc/hard")
    # Equal content, and no hard link: the store shares them, the image must not.
    with open(f"{root}/etc/equal", "w") as file:
        file.write("stays" * 100)
    os.utime(f"{root}/etc/equal", ns=(0, os.stat(f"{root}/etc/hard").st_mtime_ns))
    os.symlink("many/stays", f"{root}/etc/link")
    os.setxattr(f"{root}/etc/equal", "user.mark", b"\0=\n")
    os.chmod(f"{root}/usr/bin/look", 0o755)
    return root


def shown(layerrun, name, **options):
    return json.loads(layerrun("base", "show", name, "--json", check=0, **options).out)


def pushed(layerrun, *words, **options):
    return json.loads(layerrun(*words, "--insecure", "--json", check=0, **options).out)


def facts(root):
    """What matters of a tree."""
    found = {}
    links = {}
    for at, folders, files in os.walk(os.fsencode(root)):
        for name in folders + files:
            path = os.path.join(at, name)
            status = os.lstat(path)
            short = os.path.relpath(path, os.fsencode(root))
            xattrs = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
                if key != "security.selinux"
            }
            content = b""
            if files and name in files:
                content = os.readlink(path) if os.path.islink(path) else open(path, "rb").read()  # noqa: SIM115
                links.setdefault(status.st_ino, []).append(short)
            found[short] = (
                status.st_mode,
                status.st_uid,
                status.st_gid,
                status.st_mtime_ns,
                content,
                sorted(xattrs.items()),
            )
    return found, sorted(sorted(names) for names in links.values())


def make_app(layerrun, base, user=None):
    """Make the app web, which takes things away, adds some, and gives a folder another content."""
    layerrun(
        "create", "web", "--base", base, "--env", "A=b", "--", "look", "/etc/many/gone", user=user, check=0
    )
    # Nothing in the base can do it: the upper is written as overlayfs would.
    store = layerrun.store(user)
    upper = next(f"{store}/apps/{app}/data/upper" for app in os.listdir(f"{store}/apps"))
    marks = [sys.executable, "-c", MARKS, upper, "trusted" if user is None else "user"]
    if user is None:
        subprocess.run(marks, check=True)
    else:
        user.run(["unshare", "-rm", *marks], check=True)
    layerrun("commit", "-y", "web", user=user, check=0)


MARKS = """
import os, stat, sys
upper, space = sys.argv[1:]
os.makedirs(upper + "/etc/many")
os.mknod(upper + "/etc/many/gone", stat.S_IFCHR, os.makedev(0, 0))
os.makedirs(upper + "/etc/new")
with open(upper + "/etc/new/f", "w") as file:
    file.write("new")
os.chmod(upper + "/etc/new/f", 0o6755)
"""
