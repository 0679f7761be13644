"""A proxy on loopback as companies have them: CONNECT, and requests by their whole URL. It keeps all that it sees."""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.server
import select
import socket
import urllib.parse

from support.registries import serving


class Seen:
    """What a proxy saw: ``lines`` of requests, their ``headers``, and the ``bytes`` that passed through tunnels."""

    def __init__(self):
        self.lines, self.headers, self.bytes = [], [], bytearray()


@contextlib.contextmanager
def web_proxy(names, password=None):
    """Run one that knows where names are (HOST:PORT by HOST:PORT); gives (its HOST:PORT, `Seen`).

    With ``password``, USER:PASSWORD, it wants to be told that.
    """
    seen = Seen()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def welcome(self):
            seen.lines.append(f"{self.command} {self.path}")
            seen.headers.append(self.headers)
            wanted = password and "Basic " + base64.b64encode(password.encode()).decode()
            if not wanted or self.headers.get("Proxy-Authorization") == wanted:
                return True
            self.send_response(407)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return False

        def do_CONNECT(self):
            self.close_connection = True
            if not self.welcome():
                return
            host, _, port = names.get(self.path, "127.0.0.1:1").partition(":")
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 20) as there:
                self.send_response(200)
                self.end_headers()
                self.carry(there)

        def carry(self, there):
            while True:
                for one in select.select([self.connection, there], [], [], 20)[0]:
                    data = one.recv(1 << 16)
                    if not data:
                        return
                    seen.bytes.extend(data)
                    (there if one is self.connection else self.connection).sendall(data)

        def handle_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if not self.welcome():
                return
            parts = urllib.parse.urlsplit(self.path)
            there = http.client.HTTPConnection(names[parts.netloc], timeout=20)
            headers = {k: v for k, v in self.headers.items() if not k.lower().startswith("proxy-")}
            there.request(self.command, parts._replace(scheme="", netloc="").geturl(), body, headers)
            response = there.getresponse()
            data = response.read()
            self.send_response(response.status)
            for key, value in response.getheaders():
                if key.lower() not in ("content-length", "date", "server"):
                    self.send_header(key, value)
            self.send_header("Content-Length", response.getheader("Content-Length") or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = handle_any  # noqa: N815

    with serving(Handler) as host:
        yield host, seen
