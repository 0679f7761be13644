"""Real registries on loopback: Debian's docker-registry, a token server, and a proxy that does wrong on purpose."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import json
import os
import re
import subprocess
import threading
import time
import urllib.parse

USER, PASSWORD = "somebody", "secret:with colon"
# PASSWORD as `htpasswd -B` writes it.
BCRYPT = "$2b$04$tPaXdBe1wPX.q8SvaCUFQOikVMf.UIfA9izR6fKYsR1CqEnHLXSKu"
_LISTENING = re.compile(r'listening on ([^" ,]+:(\d+))')


@contextlib.contextmanager
def registry(folder, **config):
    """Run docker-registry with its data in ``folder``; gives HOST:PORT. ``config`` adds sections of its file."""
    os.makedirs(folder, exist_ok=True)
    sections = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": f"{folder}/data"}, "delete": {"enabled": True}},
        "http": {"addr": "127.0.0.1:0", "secret": "x" * 16},
    }
    for key, value in config.items():
        sections[key] = {**sections.get(key, {}), **value}
    with open(f"{folder}/config.yml", "w") as file:
        json.dump(sections, file)  # JSON is YAML
    with open(f"{folder}/log", "w") as log:
        process = subprocess.Popen(
            ["docker-registry", "serve", f"{folder}/config.yml"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        for _ in range(500):
            with open(f"{folder}/log") as file:
                text = file.read()
            if found := _LISTENING.search(text):
                break
            assert process.poll() is None, text
            time.sleep(0.02)
        else:
            raise AssertionError(text)
        yield f"127.0.0.1:{found[2]}"
    finally:
        process.terminate()
        process.wait(10)


def htpasswd(folder):
    """Write a file for basic auth; return the section of the registry's configuration."""
    with open(f"{folder}/htpasswd", "w") as file:
        file.write(f"{USER}:{BCRYPT}\n")
    return {"htpasswd": {"realm": "test", "path": f"{folder}/htpasswd"}}


def auth_json(path, host, user=USER, password=PASSWORD):
    """Write a file as `podman login` does."""
    text = base64.b64encode(f"{user}:{password}".encode()).decode()
    with open(path, "w") as file:
        json.dump({"auths": {host: {"auth": text}}}, file)
    return path


def certificates(folder, host="127.0.0.1"):
    """Make an authority and a certificate of its for a host; return the paths of ca.crt, cert.pem and key.pem."""
    run = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ca, ca_key = f"{folder}/certs/ca.crt", f"{folder}/ca.key"
    cert, key = f"{folder}/cert.pem", f"{folder}/key.pem"
    os.makedirs(f"{folder}/certs")
    options = {"check": True, "capture_output": True}
    subprocess.run(
        [*run, "-subj", "/CN=authority", "-days", "3650", "-keyout", ca_key, "-out", ca], **options
    )
    kind = "IP" if host[0].isdigit() else "DNS"
    extra = ["-CA", ca, "-CAkey", ca_key, "-subj", "/CN=registry", "-addext", f"subjectAltName={kind}:{host}"]
    extra += ["-addext", "basicConstraints=critical,CA:FALSE"]
    subprocess.run([*run, *extra, "-days", "3650", "-keyout", key, "-out", cert], **options)
    return ca, cert, key


@contextlib.contextmanager
def serving(handler):
    """Run an HTTP server on loopback in a thread; gives HOST:PORT."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Fault:
    """What the proxy does to requests whose line matches: ``times`` times one of

    ``status`` with ``headers``; ``cut`` the answer's body, or ``cut_request`` the request's, after so many bytes;
    ``corrupt`` a byte of the answer; ``redirect`` to another host.
    """

    def __init__(
        self,
        line,
        *,
        times=1,
        status=0,
        headers=None,
        cut=None,
        cut_request=None,
        corrupt=None,
        redirect=None,
    ):
        self.line, self.times, self.status = re.compile(line), times, status
        self.headers, self.cut, self.cut_request = headers or {}, cut, cut_request
        self.corrupt, self.redirect = corrupt, redirect


@contextlib.contextmanager
def proxy(upstream, *faults):
    """Stand before a registry and do wrong; gives (HOST:PORT, list of (request line, headers) seen)."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def handle_any(self):
            line = f"{self.command} {self.path}"
            seen.append((line, dict(self.headers)))
            fault = next((f for f in faults if f.times and f.line.search(line)), None)
            if fault:
                fault.times -= 1
            length = int(self.headers.get("Content-Length") or 0)
            if fault and fault.cut_request is not None:
                self.forward_cut(self.rfile.read(fault.cut_request), length)
                return
            body = self.rfile.read(length)
            if fault and fault.redirect:
                self.answer(307, {"Location": f"http://{fault.redirect}{self.path}"}, b"")
            elif fault and fault.status:
                self.answer(fault.status, fault.headers, b'{"errors":[{"message":"on purpose"}]}')
            else:
                self.forward(body, fault)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

        def ask(self, body):
            connection = http.client.HTTPConnection(upstream, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            connection.request(self.command, self.path, body=body, headers=headers)
            return connection, connection.getresponse()

        def forward(self, body, fault):
            connection, response = self.ask(body)
            data = response.read()
            headers = {k: v for k, v in response.getheaders() if k.lower() not in ("content-length", "date")}
            length = response.getheader("Content-Length")
            connection.close()
            if fault and fault.corrupt is not None and data:
                at = fault.corrupt % len(data)
                data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            cut = fault.cut if fault else None
            self.answer(response.status, headers, data, length=length, cut=cut)

        def forward_cut(self, part, length):
            """Give the registry the beginning of a body alone, and our client no answer."""
            connection = http.client.HTTPConnection(upstream, timeout=30)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for key, value in self.headers.items():
                connection.putheader(key, value)
            connection.endheaders()
            connection.send(part)
            time.sleep(0.2)  # let it be read before the end is
            connection.close()
            assert len(part) < length
            self.close_connection = True

        def answer(self, status, headers, data, *, length=None, cut=None):
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data if cut is None else data[:cut])
            if cut is not None:
                self.close_connection = True

    with serving(Handler) as host:
        yield host, seen


@contextlib.contextmanager
def token_server(folder, key):
    """A token server as docker-registry wants it: gives (URL, list of scopes asked for, who asked).

    ``key`` signs; its certificate lies beside. Only USER gets to push.
    """
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.x509 import load_pem_x509_certificate

    with open(key, "rb") as file:
        private = serialization.load_pem_private_key(file.read(), None)
    with open(f"{folder}/cert.pem", "rb") as file:
        certificate = load_pem_x509_certificate(file.read())
    chain = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
    seen = []

    def b64(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def token(scopes, user):
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            granted = [a for a in actions.split(",") if a == "pull" or user == USER]
            access.append({"type": kind, "name": name, "actions": granted})
        now = int(time.time())
        claims = {
            "iss": "issuer", "aud": "service", "sub": user, "exp": now + 300, "nbf": now - 60, "iat": now,
            "jti": "1", "access": access,
        }  # fmt: skip
        head = {"typ": "JWT", "alg": "ES256", "x5c": [chain]}
        signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
        r, s = utils.decode_dss_signature(private.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def reply(self, fields, user):
            scopes = [scope for value in fields.get("scope", []) for scope in value.split(" ")]
            seen.append((scopes, user))
            if user == "wrong":
                data, status = b"{}", 401
            else:
                data, status = json.dumps({"token": token(scopes, user)}).encode(), 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self):
            basic = self.headers.get("Authorization", "")
            user = ""
            if basic.startswith("Basic "):
                name, _, password = base64.b64decode(basic[6:]).decode().partition(":")
                user = name if password == PASSWORD else "wrong"
            self.reply(urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query), user)

        def do_POST(self):
            fields = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
            right = fields.get("refresh_token") == ["identity"] and fields.get("grant_type") == [
                "refresh_token"
            ]
            self.reply(fields, USER if right else "wrong")

    with serving(Handler) as host:
        yield f"http://{host}/token", seen


@contextlib.contextmanager
def keeping(cuts):
    """A registry, as far as uploads go, that keeps what has come of one that was cut, as the specification has it.

    docker-registry 2.8 forgets it. ``cuts`` are after how many bytes the connection breaks, a PATCH each. Gives
    (HOST:PORT, blobs by digest, request lines with their Content-Range).
    """
    blobs, seen, begun = {}, [], bytearray()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def answer(self, status, **headers):
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key.replace("_", "-"), value)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def handle_any(self):
            seen.append((self.command, self.headers.get("Content-Range")))
            path, _, query = self.path.partition("?")
            if self.command == "HEAD":
                self.answer(200 if path.rpartition("/")[2] in blobs else 404)
            elif self.command == "POST":
                begun.clear()
                self.answer(202, Location="/v2/a/b/blobs/uploads/1")
            elif self.command == "GET":
                self.answer(
                    204, Location=f"/v2/a/b/blobs/uploads/{len(seen)}", Range=f"0-{max(len(begun) - 1, 0)}"
                )
            elif self.command == "PATCH":
                length = int(self.headers["Content-Length"])
                begun.extend(self.rfile.read(cuts[0] if cuts else length))
                if cuts:
                    cuts.pop(0)
                    self.close_connection = True
                else:
                    self.answer(202, Location=f"/v2/a/b/blobs/uploads/{len(seen)}")
            else:
                digest = urllib.parse.parse_qs(query)["digest"][0]
                right = "sha256:" + hashlib.sha256(begun).hexdigest() == digest
                if right:
                    blobs[digest] = bytes(begun)
                self.answer(201 if right else 400)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = handle_any  # noqa: N815

    with serving(Handler) as host:
        yield host, blobs, seen


def sha(data):
    """Return the digest of bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()
