"""Places to run real programs in: who runs, over which base."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import tempfile

from support import debian, leaks, reach, users

PLACES = ["root-host", "root-debian", "plain-host", "plain-debian", "single-host", "single-debian"]
TOOLS = "ca-certificates git python3-venv tcc libc6-dev tmux"
AUTHORITIES = "/srv/authorities.crt"
SERVERS = "postgresql-15 redis-server"

_numbers = itertools.count(1)


class Place:
    """Somebody's store. ``place("app", name, "--", …)`` runs the command line with it."""

    def __init__(self, folder, user=None):
        self.folder = folder
        self.user = user
        self.store = f"{folder}/store"
        self.one_id = user is not None and user.kind == users.SINGLE
        self.base = "host"
        self.made = {}

    def over(self, base):
        """Return the same store, with new apps over ``base``."""
        other = Place(self.folder, self.user)
        other.base, other.made = base, self.made
        return other

    @property
    def rooted(self):
        """Whether an app here has many ids, and is root of what it sees."""
        return self.user is None or (self.base != "host" and not self.one_id)

    def argv(self, *words):
        start = [os.path.join(os.path.dirname(sys.executable), "layerrun")]
        return (self.user.prefix() + reach.translate(start) if self.user else start) + [str(w) for w in words]

    def env(self, **more):
        return {**(self.user.environ() if self.user else os.environ), "LAYERRUN_STORE": self.store, **more}

    def __call__(self, *words, check=0, input=None):  # noqa: A002
        done = subprocess.run(
            self.argv(*words),
            env=self.env(),
            cwd="/",
            input=input,
            stdin=None if input is not None else subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=200,
            check=False,
        )
        said = f"layerrun {' '.join(map(str, words))}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert check is None or done.returncode == check, said
        return done

    def create(self, *options):
        """Make an app over this place's base and return its name."""
        name = f"app{next(_numbers)}"
        self("create", name, "--base", self.base, *options)
        return name

    def sh(self, app, script, check=0):
        """Run a shell script in the app, in a home that can be written; return what it printed."""
        return self("app", app, "--", "sh", "-euc", f"cd; {script}", check=check).stdout

    def install(self, app, packages):
        """Install packages by apt; return all that it said."""
        return self.sh(app, f"{self.apt('update')} && {self.apt('install', packages)} 2>&1")

    def apt(self, *words):
        """Return a shell command: apt-get, quiet, and with what one id needs."""
        options = "-o Dpkg::Options::=--force-unsafe-io"  # no fsync for each file: nothing is lost here
        options += " -o APT::Sandbox::User=root" if self.one_id else ""
        return (
            f"DEBIAN_FRONTEND=noninteractive apt-get -qq --no-install-recommends {options} {' '.join(words)}"
        )

    def tools(self):
        """Return the name of an app in which the tools are there: over the host a new one."""
        if self.base == "host":
            return self.create()
        if "tools" not in self.made:
            name = self.made["tools"] = self.create(*self.registry())
            self.install(name, TOOLS.removesuffix(" tmux") if self.one_id else TOOLS)
        return self.made["tools"]

    def servers(self):
        """Return the name of an app in which the servers are there: over the host a new one, else that of the tools."""
        app = self.tools()
        if self.base != "host" and "servers" not in self.made:
            self.made["servers"] = True
            self.install(app, SERVERS)
        return app

    def registry(self):
        """Return the shares by which an app over a base reaches the package registry as this machine does."""
        # Not in its own place: the package that owns that folder must be able to fill it.
        found = [("/etc/pip.conf", "/etc/pip.conf"), ("/etc/ssl/certs/ca-certificates.crt", AUTHORITIES)]
        return [f"--share={source}:{target}:ro" for source, target in found if os.path.exists(source)]


def make_folder(user=None):
    path = tempfile.mkdtemp(prefix=leaks.PREFIX, dir="/var/tmp")
    os.chmod(path, 0o755)
    if user:
        os.chown(path, user.uid, user.gid)
    return path


def unpack(user, target):
    """Give ``user`` a Debian tree of their own: with its owners where they have the ids, as their own where not."""
    extract = f"mkdir {target} && tar -xp --numeric-owner --exclude='./dev/*' -C {target}"
    argv = ["sh", "-c", extract + (" --no-same-owner" if user.kind == users.SINGLE else "")]
    if user.kind != users.SINGLE:
        argv = ["unshare", "--user", "--map-auto", "--map-root-user", *argv]
    pack = subprocess.Popen(["tar", "-c", "-C", debian.make(), "."], stdout=subprocess.PIPE)
    subprocess.run(user.prefix() + argv, stdin=pack.stdout, env=user.environ(), cwd="/", check=True)
    pack.stdout.close()
    assert pack.wait() == 0
