"""Servers that say one thing, and who asks them. It is run inside apps too, so it needs the standard library alone.

peer.py serve tcp|udp|dns ADDRESS PORT WHAT     until stdin ends; of dns WHAT is NAME=ADDRESS
peer.py ask tcp|udp ADDRESS PORT [SOURCE]       ADDRESS may be a name
peer.py wait
"""

import os
import select
import socket
import struct
import sys


def answer(question, name, address):
    asked = question[12 : question.index(b"\0", 12) + 5]
    labels = b"".join(bytes([len(part)]) + part for part in name.encode().split(b"."))
    known = asked == labels + b"\0" + struct.pack(">HH", 1, 1)
    record = b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(address) if known else b""
    other = asked.startswith(labels + b"\0")
    status = 0x8180 if known or other else 0x8183
    return question[:2] + struct.pack(">HHHHH", status, 1, known, 0, 0) + asked + record


def serve(kind, address, port, what):
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((address, int(port)))
    if kind == "tcp":
        one.listen()
    print("up", flush=True)
    os.close(1)
    while True:
        ready = select.select([one, 0], [], [])[0]
        if 0 in ready and not os.read(0, 1):
            return
        if one not in ready:
            continue
        if kind == "tcp":
            peer, where = one.accept()
            peer.recv(1)  # pasta of 2023 completes no connection before the client says something
            peer.sendall(f"{what} {where[0]}".encode())
            peer.close()
        else:
            data, where = one.recvfrom(512)
            said = answer(data, *what.split("=")) if kind == "dns" else f"{what} {where[0]}".encode()
            one.sendto(said, where)


def ask(kind, address, port, source=None):
    one = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    one.settimeout(5)
    try:
        if source:
            one.bind((source, 0))
        one.connect((address, int(port)))
        one.send(b"?")
        print(one.recv(512).decode() or "no: nothing")
    except OSError as error:
        print(f"no: {error}")


if sys.argv[1] == "serve":
    serve(*sys.argv[2:])
elif sys.argv[1] == "ask":
    ask(*sys.argv[2:])
else:
    print("up", flush=True)
    sys.stdin.read()
