"""A channel that was made by the command line, a web server on loopback that hands it out, and ways to lie."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import threading
from datetime import UTC, datetime, timedelta

from tuf.api.metadata import Metadata, MetaFile

from layerrun.fleet import keys, publishing, release


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path)
        if answer is None:
            super().do_GET()
        else:
            answer(self)

    def log_message(self, *words):
        pass


class Web:
    """A web server of a folder. ``asked`` are the paths asked for; ``answers`` are functions of a handler, by path."""

    def __init__(self, top):
        handler = functools.partial(_Handler, directory=top)
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.asked, self._server.answers = [], {}
        self.asked, self.answers = self._server.asked, self._server.answers
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class Publisher:
    """A channel's folder beside its keys, changed by the command line or, to lie, by python-tuf."""

    def __init__(self, layerrun, top):
        self.layerrun = layerrun
        self.path = f"{top}/www"
        self.keys = f"{self.path}.keys"
        self.root = f"{self.path}/metadata/1.root.json"
        self.top = top

    def __call__(self, verb, *words, check=0, **options):
        return self.layerrun("channel", verb, self.path, *words, check=check, **options)

    def archive(self, text="one", **files):
        """Make a tar archive of a small root; return its path."""
        tree = f"{self.top}/tree"
        shutil.rmtree(tree, ignore_errors=True)
        os.makedirs(f"{tree}/usr/bin")
        for name, content in {"text": text, **files}.items():
            with open(f"{tree}/usr/{name}", "w") as file:
                file.write(content)
        path = f"{self.top}/{len(os.listdir(self.top))}-{text[:20]}.tar"
        subprocess.run(
            ["tar", "-C", tree, "--sort=name", "--owner=0", "--group=0", "-cf", path, "."], check=True
        )
        return path

    def publish(self, text, channel="stable", **more):
        """Publish a release whose root file system holds ``text``, which is its version as well."""
        values = {"version": text, "arch": release.machine(), **more}
        return publishing.add(self.path, channel, self.archive(text), self.keys, **values)

    def copy(self):
        """Return a copy of all that is handed out now, to be put back later."""
        path = f"{self.top}/copy-{len(os.listdir(self.top))}"
        shutil.copytree(self.path, path)
        return path

    def put_back(self, copy):
        shutil.rmtree(self.path)
        shutil.copytree(copy, self.path)

    def signers(self):
        return keys.signers(self.keys)

    def read(self, name):
        return Metadata.from_file(f"{self.path}/metadata/{name}")

    def write(self, name, data, role=None, *, by=None, sign=True):
        """Write metadata, signed by the keys of a role as the root or the targets have it, or by others."""
        if sign:
            all_, root = self.signers(), self.read(f"{self.last('root')}.root.json").signed
            data.signatures.clear()
            for signer in by or [all_[keyid] for keyid in root.roles[role].keyids if keyid in all_]:
                data.sign(signer, append=True)
        data.to_file(f"{self.path}/metadata/{name}")

    def forge(self, role, version, by):
        """Have all that leads to metadata of a role lead to this version; ``by`` are the keys stolen, of that role."""
        if role == "timestamp":
            return
        if role != "snapshot":
            snapshot = self.read(f"{self.last('snapshot')}.snapshot.json")
            snapshot.signed.version += 1
            snapshot.signed.meta[f"{role}.json"].version = version
            data = self.read(f"{version - 1}.{role}.json")
            data.signed.version = version
            self.write(f"{version}.{role}.json", data, by=by)
            self.write(f"{snapshot.signed.version}.snapshot.json", snapshot, "snapshot")
            version = snapshot.signed.version
        else:
            data = self.read(f"{version - 1}.snapshot.json")
            data.signed.version = version
            self.write(f"{version}.snapshot.json", data, by=by)
        self.lie(lambda said: setattr(said.snapshot_meta, "version", version), hashes=False)

    def last(self, role):
        names = os.listdir(f"{self.path}/metadata")
        return max(int(n.split(".")[0]) for n in names if n.endswith(f".{role}.json") and n[0].isdigit())

    def lie(self, change, *, hashes=True):
        """Have timestamp.json say what ``change`` makes of it, signed properly."""
        timestamp = self.read("timestamp.json")
        timestamp.signed.version += 1
        change(timestamp.signed)
        if not hashes:
            timestamp.signed.snapshot_meta = MetaFile(timestamp.signed.snapshot_meta.version)
        self.write("timestamp.json", timestamp, "timestamp")


def ahead():
    return datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)


def long_ago():
    return datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
