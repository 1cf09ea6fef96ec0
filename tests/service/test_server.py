"""The API on a real socket against rude clients: each gets its reason or is hung up on, and costs no memory.

Also the proofs that the other clients of the same service do not notice.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import psutil
import pytest

from service.settings import ServiceSettings
from tests.service.shop import Shop
from tests.support.serving import Raw, answer, connected, exchanged, request_head, serving

#: Short, so that a test sees them pass.
LIMITS = ServiceSettings(
    header_seconds=1.0, body_seconds=1.5, write_seconds=1.0, max_body_bytes=200_000, connections=40
)
MIB = 1024 * 1024
JSON = "Content-Type: application/json"


@pytest.fixture(scope="module")
def address(shop: Shop) -> Iterator[str]:
    """Where the shop answers."""
    with serving(shop.app(LIMITS), LIMITS) as found:
        yield found


@pytest.fixture(autouse=True)
def _still_well(address: str) -> Iterator[None]:
    """Whatever a test does to the service, the next polite client is answered."""
    yield
    assert httpx.get(f"{address}/v1/items/s1/similar").status_code == 200


def refused(address: str, sent: bytes, status: int) -> str:
    """The reason that comes back with that status."""
    found = exchanged(address, sent)
    assert found is not None
    assert found.status == status, found
    return str(found.problem["detail"])


def posted(body: bytes, *headers: str, path: str = "/v1/similar") -> bytes:
    return request_head("POST", path, JSON, f"Content-Length: {len(body)}", *headers) + body


def grown_by(work: Callable[[], object], *, times: int = 8) -> int:
    """Bytes of resident memory that this process, which is the service as well, has more after `work`."""
    for _ in range(2):
        work()  # what is allocated once
    process = psutil.Process()
    before: int = process.memory_info().rss
    for _ in range(times):
        work()
    return int(process.memory_info().rss) - before


def test_a_body_of_five_megabytes_is_refused_and_the_reason_arrives(address: str) -> None:
    part = b" " * 0x10000

    def send() -> None:
        with connected(address) as client:
            client.sendall(request_head("POST", "/v1/similar", JSON, f"Content-Length: {5 * MIB}"))
            for _ in range(5 * MIB // len(part)):
                client.sendall(part)
            found = answer(client)
            assert found is not None
            assert found.status == 413
            assert "larger than 200000" in found.problem["detail"]

    assert grown_by(send) < 8 * MIB


def test_a_body_without_end_is_refused_by_what_has_really_come(address: str) -> None:
    def send() -> None:
        with connected(address) as client:
            client.sendall(request_head("POST", "/v1/similar", JSON, "Transfer-Encoding: chunked"))
            stop = threading.Event()

            def pour() -> None:
                chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
                try:
                    while not stop.is_set():
                        client.sendall(chunk)
                except OSError:
                    pass  # hung up on, as it should be

            pouring = threading.Thread(target=pour)
            pouring.start()
            found = answer(client)
            stop.set()
            pouring.join()
            assert found is not None
            assert found.status == 413
            assert found.headers["connection"] == "close"
            assert "larger than" in found.problem["detail"]

    assert grown_by(send) < 16 * MIB


def test_a_body_that_lies_about_its_length_is_counted_all_the_same(address: str) -> None:
    both = request_head("POST", "/v1/similar", JSON, "Content-Length: 5", "Transfer-Encoding: chunked")
    found = exchanged(address, both + b"1000\r\n" + b" " * 0x1000 + b"\r\n0\r\n\r\n")
    assert found is not None
    assert 400 <= found.status < 500


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[" * 20_000, "not valid JSON"),
        (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "not valid JSON"),
        (b'{"seeds": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", "not valid JSON"),
        (b'{"text": "\\ud800"}', "not valid JSON"),
        (b'{"text": "\\udfff\\ud800"}', "not valid JSON"),
        (b'{"text": "\xed\xa0\x80"}', "not valid JSON"),
        (b'{"text": "a", "limit": NaN}', "not valid JSON"),
        (b'{"text": "a", "limit": 1e999}', "infinity"),
        (b'{"text": "a", "weights": {"content": Infinity}}', "not valid JSON"),
        (b'{"text": "a", "weights": {"content": 1e999}}', "infinity"),
        (b'{"text": "a", "filter": {"price": {"min": 1e999, "currency": "EUR"}}}', "infinity"),
        (b'{"text": "a", "limit": ' + b"9" * 50_000 + b"}", "infinity"),
        (b'{"text": "a"', "not valid JSON"),
        (b"", ""),
    ],
)
def test_json_that_is_none_is_refused_with_its_reason(address: str, body: bytes, reason: str) -> None:
    assert reason in refused(address, posted(body), 422)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/items/a%00b",
        "/v1/items/%00",
        "/v1/items/%ED%A0%80",
        "/v1/items/%FF%FE",
        "/v1/items/%ED%A0%80/similar",
        "/v1/items/" + "x" * 300,
        "/v1/items/s1/similar?weights=%ED%A0%80",
        "/v1/items/s1/similar?limit=%00",
        "/v1/items/s1/similar?min_score=1e999",
        "/v1/items/s1/similar?min_score=nan",
        "/v1/items/s1/similar?category=%00&release_id=%ED%A0%80",
        "/v1/items/..%2f..%2fetc%2fpasswd",
        "/%00",
        "//",
    ],
)
def test_odd_bytes_in_a_path_or_query_are_a_four_hundred(address: str, path: str) -> None:
    found = exchanged(address, request_head("GET", path))
    assert found is not None
    assert 400 <= found.status < 500
    assert found.problem


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/items/a\x00b HTTP/1.1\r\nHost: t\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100,
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\nContent-Length: 1e3\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\nX: a\x00b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: t\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: t\r\n\r\n",
        b"POST /v1/search HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_refused_with_its_reason(address: str, sent: bytes) -> None:
    found = exchanged(address, sent)
    assert found is not None
    assert 400 <= found.status < 500
    assert found.problem


def test_a_head_that_comes_byte_by_byte_is_cut_off(address: str) -> None:
    with connected(address) as client:
        found = dripped(client, request_head("GET", "/v1/items/s1"), then=b"")
    assert found is not None
    assert found.status == 408
    assert "head" in found.problem["detail"]


def test_a_second_head_that_comes_byte_by_byte_is_cut_off_too(address: str) -> None:
    with connected(address) as client:
        client.sendall(request_head("GET", "/v1/items/s1"))
        first = answer(client)
        assert first is not None
        assert first.status == 200
        found = dripped(client, request_head("GET", "/v1/items/s1"), then=b"")
    assert found is not None
    assert found.status == 408


def test_a_body_that_comes_byte_by_byte_is_cut_off(address: str) -> None:
    head = request_head("POST", "/v1/similar", JSON, "Content-Length: 1000")
    with connected(address) as client:
        found = dripped(client, b" " * 1000, then=head)
    assert found is not None
    assert found.status == 408
    assert "body" in found.problem["detail"]


def dripped(client: socket.socket, sent: bytes, *, then: bytes) -> Raw | None:
    """`then` at once, `sent` one byte every 50 ms, until there is an answer."""
    client.sendall(then)
    stop = threading.Event()

    def drip() -> None:
        for byte in sent:
            if stop.wait(0.05):
                return
            try:
                client.sendall(bytes([byte]))
            except OSError:
                return

    dripping = threading.Thread(target=drip)
    dripping.start()
    try:
        return answer(client)
    finally:
        stop.set()
        dripping.join()


def test_a_connection_that_says_nothing_is_closed(address: str) -> None:
    with connected(address) as client:
        assert answer(client) is None


def test_a_client_that_does_not_read_is_dropped_and_its_answers_with_it(shop: Shop) -> None:
    async def large(scope: object, receive: object, send: Callable[..., object]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[misc]
        await send({"type": "http.response.body", "body": b"x" * 32 * MIB})  # type: ignore[misc]

    with serving(large, LIMITS) as address:
        parts = address.removeprefix("http://").split(":")
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.settimeout(15.0)
            client.connect((parts[0], int(parts[1])))
            client.sendall(request_head("GET", "/"))
            until = time.monotonic() + 15.0
            ours = psutil.Process()
            while any(
                c.laddr.port == int(parts[1]) and c.status == "ESTABLISHED" for c in ours.net_connections()
            ):
                assert time.monotonic() < until, "it waits for ever"
                time.sleep(0.05)


def test_connections_beyond_the_limit_are_told_to_come_back(address: str) -> None:
    idle = [connected(address) for _ in range(LIMITS.connections)]
    try:
        found = exchanged(address, request_head("GET", "/health/live"))
        assert found is not None
        assert found.status == 503
        assert found.headers["retry-after"] == "1"
        assert found.problem["detail"] == "too many connections"
    finally:
        for client in idle:
            client.close()


def test_requests_beyond_the_limit_are_told_to_come_back_and_health_is_not(shop: Shop) -> None:
    limits = ServiceSettings(concurrent=2, body_seconds=20.0)
    with serving(shop.app(limits), limits) as address:
        head = request_head("POST", "/v1/similar", JSON, "Content-Length: 100")
        held = [connected(address) for _ in range(2)]
        for client in held:
            client.sendall(head)
        until = time.monotonic() + 10.0
        while (found := httpx.get(f"{address}/v1/items/s1")).status_code == 200:
            assert time.monotonic() < until, "nobody is turned away"
        assert found.status_code == 503
        assert found.headers["retry-after"] == "1"
        assert "in hand" in found.json()["detail"]
        assert httpx.get(f"{address}/health/live").status_code == 200
        for client in held:
            client.close()
        while httpx.get(f"{address}/v1/items/s1").status_code != 200:
            assert time.monotonic() < until, "places are not given back"
