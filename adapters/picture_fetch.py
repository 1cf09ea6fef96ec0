"""A picture's bytes from an address that a seller wrote: within limits, from the public internet alone.

Reads   one URL, and the few that it redirects to
Writes  nothing
Never   connects to an address that it has not checked, follows a proxy of the environment, or sends a cookie

Each hop is checked anew: scheme, port, and every address that its name resolves to. The connection then goes
to one of those very addresses, so a name that resolves otherwise a moment later changes nothing. TLS is
verified against the name. One deadline covers connecting, the head and the body, however slowly they drip;
resolving a name ends by the resolver's own timeout. Bodies are counted as they come and never unpacked.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import lru_cache
from typing import Any, Literal

import httpcore
import httpx
from pydantic import Field

from schemas.events import Frozen

#: Why there is no picture. The first ones will not change by themselves; those of `PASSING` may.
Reason = Literal[
    "url",
    "address",
    "redirects",
    "status",
    "size",
    "packed",
    "kind",
    "pixels",
    "damaged",
    "time",
    "unreachable",
    "busy server",
]
PASSING: frozenset[Reason] = frozenset({"time", "unreachable", "busy server"})

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_UNICAST = ipaddress.ip_network("2000::/3")
_SIX_TO_FOUR = ipaddress.ip_network("2002::/16")
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_HEADERS = (
    ("accept", "image/*"),
    ("accept-encoding", "identity"),
    ("user-agent", "simstream"),
    ("connection", "close"),
)
_URL_CHARS = 4_000


class FetchSettings(Frozen):
    """How much of what one picture may cost; `redirects` are followed at most. `ports` are those allowed."""

    max_bytes: int = Field(default=8_000_000, ge=1_000)
    seconds: float = Field(default=10.0, gt=0)
    redirects: int = Field(default=3, ge=0, le=10)
    ports: tuple[int, ...] = (80, 443)


class NoPicture(Exception):
    """There is no picture to be had. `reason` is one of few words; the message says more."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason

    @property
    def passing(self) -> bool:
        """Whether another try may find one."""
        return self.reason in PASSING


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet: not private, loopback, link-local, multicast, ...

    An IPv6 address that stands for an IPv4 one (mapped, or of a NAT64) is as public as that one.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is None:
            return found in _UNICAST and found not in _SIX_TO_FOUR and found.is_global
        found = inner
    return found.is_global and not found.is_multicast and not found.is_reserved


class Fetcher:
    """Fetches one picture at a time per calling thread. Thread-safe; keeps no connection.

    `public` decides which addresses may be connected to. It is an argument for tests, which serve pictures on
    loopback, and no setting.
    """

    def __init__(self, settings: FetchSettings, *, public: Callable[[str], bool] = is_public) -> None:
        self._settings = settings
        self._public = public

    def fetch(self, url: str) -> bytes:
        """The body behind `url`, at most `max_bytes`. Raises NoPicture."""
        until = time.monotonic() + self._settings.seconds
        for _ in range(self._settings.redirects + 1):
            found = self._hop(self._checked(url), until)
            if isinstance(found, bytes):
                return found
            url = found
        raise NoPicture("redirects", f"more than {self._settings.redirects}")

    def _checked(self, url: str) -> httpx.URL:
        """The URL taken apart. Raises NoPicture for one that is none, or none of the web."""
        if len(url) > _URL_CHARS:
            raise NoPicture("url", f"longer than {_URL_CHARS} characters")
        try:
            parts = httpx.URL(url.strip())
        except (httpx.InvalidURL, ValueError) as error:
            raise NoPicture("url", str(error)) from error
        if parts.scheme not in ("http", "https") or not parts.host:
            raise NoPicture("url", "expected http://HOST/... or https://HOST/...")
        if parts.userinfo:
            raise NoPicture("url", "names a user or a password")
        if _port(parts) not in self._settings.ports:
            raise NoPicture(
                "url", f"port {_port(parts)} is none of {', '.join(map(str, self._settings.ports))}"
            )
        return parts

    def _hop(self, url: httpx.URL, until: float) -> bytes | str:
        """The body, or where it is said to be. Raises NoPicture."""
        request = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=_port(url), target=url.raw_path or b"/"
        )
        host = url.netloc.decode("ascii")
        try:
            with (
                httpcore.ConnectionPool(
                    ssl_context=_tls(), max_connections=1, network_backend=_Checked(self._public, until)
                ) as pool,
                pool.stream("GET", request, headers=[("host", host), *_HEADERS]) as response,
            ):
                if response.status in _REDIRECTS:
                    target = _header(response, b"location")
                    if not target:
                        raise NoPicture("status", f"{response.status} without a location")
                    try:
                        return str(url.join(target))
                    except (httpx.InvalidURL, ValueError) as error:
                        raise NoPicture("url", str(error)) from error
                if response.status != 200:
                    reason: Reason = "busy server" if response.status in _BUSY else "status"
                    raise NoPicture(reason, f"the answer is {response.status}")
                return self._body(response)
        except httpcore.TimeoutException as error:
            raise NoPicture("time", f"not here within {self._settings.seconds:g} s") from error
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise NoPicture("unreachable", str(error) or type(error).__name__) from error

    def _body(self, response: httpcore.Response) -> bytes:
        most = self._settings.max_bytes
        if _header(response, b"content-encoding") not in ("", "identity"):
            raise NoPicture("packed", f"content-encoding {_header(response, b'content-encoding')!r}")
        told = _header(response, b"content-length")
        if told.isdigit() and int(told) > most:
            raise NoPicture("size", f"{told} bytes are more than {most}")
        body = bytearray()
        with closing(response.iter_stream()) as parts:  # type: ignore[type-var]
            for part in parts:
                body += part
                if len(body) > most:
                    raise NoPicture("size", f"more than {most} bytes")
        return bytes(body)


class _Checked(httpcore.NetworkBackend):
    """Connects to the public addresses of a name alone, and lets nothing take longer than until `until`."""

    def __init__(self, public: Callable[[str], bool], until: float) -> None:
        self._inner = httpcore.SyncBackend()
        self._public = public
        self._until = until

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """To the first of its addresses that answers. Raises NoPicture if one of them is not public."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} is not known: {error}") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            # One is enough: who answers with a public and a private address wants to be asked twice.
            if not self._public(address):
                raise NoPicture("address", f"{host} is at {address}, which is not of the public internet")
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        for address in addresses:
            try:
                return _Timed(self._inner.connect_tcp(address, port, timeout=_left(self._until)), self._until)
            except httpcore.ConnectError as error:
                failure = error
        raise failure


class _Timed(httpcore.NetworkStream):
    """A stream whose every wait ends at one moment."""

    def __init__(self, inner: httpcore.NetworkStream, until: float) -> None:
        self._inner = inner
        self._until = until

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come. Raises httpcore.TimeoutException."""
        return self._inner.read(max_bytes, _left(self._until))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send. Raises httpcore.TimeoutException."""
        self._inner.write(buffer, _left(self._until))

    def close(self) -> None:
        """Hang up."""
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        """The same, encrypted; the certificate is that of the name, not of the address."""
        secured = self._inner.start_tls(ssl_context, server_hostname, _left(self._until))
        return _Timed(secured, self._until)

    def get_extra_info(self, info: str) -> Any:
        """What the stream inside knows."""
        return self._inner.get_extra_info(info)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time is over")
    return left


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _header(response: httpcore.Response, name: bytes) -> str:
    return (
        next((value for key, value in response.headers if key.lower() == name), b"").decode("latin-1").strip()
    )


@lru_cache(1)
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()
