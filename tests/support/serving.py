"""The API on a real socket of loopback, and a client that may be as rude as a test wants."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from service.server import Service
from service.settings import ServiceSettings


@contextmanager
def serving(app: Any, limits: ServiceSettings | None = None) -> Iterator[str]:
    """The address where `app` answers."""
    service = Service(app, host="127.0.0.1", port=0, limits=limits)
    thread = threading.Thread(target=service.run, daemon=True)
    thread.start()
    try:
        _await(service.address)
        yield service.address
    finally:
        service.stop()
        thread.join(30.0)
        assert not thread.is_alive(), "the service does not end"


def _await(address: str) -> None:
    until = time.monotonic() + 10.0
    while True:
        try:
            connected(address).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < until, "the service does not listen"
            time.sleep(0.01)


class Raw(NamedTuple):
    """What came back on a socket, taken apart."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The body as a problem; fails where it is none."""
        assert self.headers["content-type"] == "application/problem+json", self
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        assert found["detail"]
        return found


def connected(address: str, timeout_seconds: float = 15.0) -> socket.socket:
    """A TCP connection to the service."""
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=timeout_seconds)


def answer(client: socket.socket) -> Raw | None:
    """One answer, read to the end of its body; None where the service just hangs up."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = client.recv(65_536)
        if not part:
            assert not data, data
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        part = client.recv(65_536)
        assert part, "the body ends early"
        body += part
    return Raw(int(first.split(" ")[1]), headers, body)


def exchanged(address: str, sent: bytes) -> Raw | None:
    """What the service answers to these bytes."""
    with connected(address) as client:
        client.sendall(sent)
        return answer(client)


def request_head(method: str, path: str, *headers: str) -> bytes:
    """The head of a request."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode("latin-1")
